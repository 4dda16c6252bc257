"""Product → the texts that are embedded, indexed and reranked. One place, so that they cannot drift apart."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator

from app.index.analysis import normalize_text
from app.index.schema import Schema
from app.types import Product

TITLE_CHARACTERS = 2000

# The encoder sees at most 128 tokens, about 550 characters of English: the title whole, then the short fields that say
# what the thing is, then as much of the prose as fits. More would only be tokenised and cut off.
DENSE_CHARACTERS = {"brand": 64, "color": 48, "category": 120, "searched": 160, "description": 400, "bullets": 400}
DENSE_TOTAL = 900
LEXICAL_CHARACTERS = {
    "brand": 256,
    "color": 256,
    "category": 1000,
    "searched": 4000,
    "description": 8000,
    "bullets": 8000,
}

# Unclosed comments and styles run to the end, so that no input makes the search quadratic.
_MARKUP = re.compile(
    r"<!--.*?(?:-->|$)|<(?:style|script)\b.*?(?:</(?:style|script)\s*>|$)|</?[a-z][^<>]{0,500}>",
    re.DOTALL | re.IGNORECASE,
)


def dense_texts(product: Product, schema: Schema) -> tuple[str, str]:
    """(title, all) as the encoder is given them, normalised; all = title, brand, color, category, searched fields,
    description and bullets by their budgets in characters."""
    title = _title(product, schema)
    return title, _cut(" ".join((title, *_others(product, schema, DENSE_CHARACTERS))), max(DENSE_TOTAL, len(title)))


def lexical_texts(product: Product, schema: Schema) -> tuple[str, str]:
    """(title, all) as the lexical index is given them, normalised; all contains the title."""
    title = _title(product, schema)
    return title, " ".join((title, *_others(product, schema, LEXICAL_CHARACTERS)))


def text_hash(texts: tuple[str, ...]) -> str:
    """BLAKE2b-128 of the texts as 32 hex digits; different tuples never join to the same bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def _title(product: Product, schema: Schema) -> str:
    return normalize_text(_cut(_without_markup(product.text(schema.roles.title)), TITLE_CHARACTERS))


def _others(product: Product, schema: Schema, budgets: dict[str, int]) -> Iterator[str]:
    """The normalised texts of the other fields, in the order of the budgets; empty ones are left out."""
    roles = schema.roles
    by_role = {"brand": roles.brand, "color": roles.color, "category": roles.category}
    by_role |= {"description": roles.description, "bullets": roles.bullets}
    taken = {roles.title, *by_role.values()}
    for part, budget in budgets.items():
        if part == "searched":
            text = " ".join(_searched(product, schema, taken))
        else:
            name = by_role[part]
            text = product.text(name) if name else ""
        cut = normalize_text(_cut(_without_markup(text), budget))
        if cut:
            yield cut


def _searched(product: Product, schema: Schema, taken: set[str | None]) -> Iterator[str]:
    names = (spec.name for spec in schema.fields if spec.searched and spec.name not in taken)
    return (text for text in map(product.text, names) if text)


def _without_markup(text: str) -> str:
    """HTML as its words: shop feeds carry tags, styles and entities in titles and descriptions."""
    if "<" in text:
        text = _MARKUP.sub(" ", text)
    return html.unescape(text) if "&" in text else text


def _cut(text: str, budget: int) -> str:
    """At most `budget` characters, ending with a whole word where there is one."""
    if len(text) <= budget:
        return text
    if text[budget].isspace():
        return text[:budget]
    words = text[:budget].rsplit(maxsplit=1)
    return words[0] if len(words) > 1 else text[:budget]
