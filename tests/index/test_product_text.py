"""The texts made of a product: their order, their budgets, and that markup does not reach the encoder."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from app.index.analysis import normalize_text
from app.index.product_text import DENSE_CHARACTERS, DENSE_TOTAL, dense_texts, lexical_texts, text_hash
from app.index.schema import FieldSpec, Roles, Schema
from app.types import Product

SCHEMA = Schema.of(
    FieldSpec("title", "text"),
    FieldSpec("bullets", "text"),
    FieldSpec("brand", "keyword"),
    FieldSpec("category", "keyword"),
    FieldSpec("color", "keyword"),
    FieldSpec("description", "text"),
    FieldSpec("style", "keyword", searched=True),
    FieldSpec("attrs", "text", searched=True),
    FieldSpec("internal", "keyword"),
)


def product(**fields: object) -> Product:
    return Product("p", {"title": "Steel Kettle", **fields})


FULL = product(
    brand="Acme",
    color="Red",
    category=["Home", "Kitchen"],
    style="modern",
    attrs={"cable_length": 2.0, "lid": "glass"},
    description="Boils water.",
    bullets="Holds 1.5L without a drip",
    internal="SECRET",
)


def test_the_text_is_the_title_then_the_fields_in_order() -> None:
    """Title, brand, colour, category, searched fields, description, bullets; unsearched fields stay out."""
    expected = "steel kettle acme red home kitchen modern cable length 2 lid glass boils water. "
    expected += normalize_text(FULL.text("bullets"))
    assert dense_texts(FULL, SCHEMA) == ("steel kettle", expected)
    assert lexical_texts(FULL, SCHEMA) == ("steel kettle", expected)


def test_words_that_change_the_meaning_survive() -> None:
    """The encoder is given "without", which the aggressive cleaning of text-books removes."""
    assert "without" in dense_texts(FULL, SCHEMA)[1].split()


def test_a_product_with_a_title_alone_is_its_title() -> None:
    """Absent fields leave no trace, not even a space."""
    assert dense_texts(product(), SCHEMA) == ("steel kettle", "steel kettle")


def test_roles_decide_which_field_is_which() -> None:
    """A field under another name plays the role that the schema gives it."""
    schema = Schema((FieldSpec("name", "text"), FieldSpec("maker", "keyword")), Roles(title="name", brand="maker"))
    assert dense_texts(Product("p", {"name": "Kettle", "maker": "Acme"}), schema) == ("kettle", "kettle acme")


def test_prose_is_cut_to_its_budget_at_a_word() -> None:
    """Long descriptions end with a whole word within the budget, and the text as a whole within its total."""
    words = " ".join(f"word{n}" for n in range(2000))
    text = dense_texts(product(description=words, bullets=words), SCHEMA)[1]
    described = text.removeprefix("steel kettle ").split()
    assert set(described) <= set(words.split())
    first = described[: described.index("word0", 1)]
    assert len(" ".join(first)) <= DENSE_CHARACTERS["description"] < len(" ".join(first)) + 9
    assert len(text) <= DENSE_TOTAL


def test_the_title_is_never_cut_by_the_total() -> None:
    """A title of common length stays whole however little room it leaves."""
    title = " ".join(["marvellous"] * 120)
    texts = dense_texts(product(title=title, brand="Acme"), SCHEMA)
    assert texts[0] == title
    assert texts[1].startswith(title)


def test_the_lexical_text_keeps_more_than_the_dense_text() -> None:
    """BM25 sees words that lie beyond what the encoder reads."""
    late = product(description="filler " * 300 + "needle")
    assert "needle" in lexical_texts(late, SCHEMA)[1]
    assert "needle" not in dense_texts(late, SCHEMA)[1]


def test_markup_is_not_words() -> None:
    """Tags, comments and styles go, entities become characters, and a comparison sign is no tag."""
    html = "<!-- .h {color:#000} --><style>p{margin:0}</style><p class='x'>Tea &amp; coffee<br>for &lt;2 cups</p> 3 < 5"
    assert dense_texts(product(description=html), SCHEMA)[1] == "steel kettle tea & coffee for <2 cups 3 < 5"


def test_hostile_markup_takes_no_longer_than_plain_text() -> None:
    """Comments and tags that never close cost time in proportion to their length, not to its square."""
    started = time.perf_counter()
    for piece in ("<!--", "<style>", "<a", "</script", "<"):
        dense_texts(product(description=piece * (60_000 // len(piece))), SCHEMA)
    assert time.perf_counter() - started < 5


def test_the_hash_depends_on_every_text_and_its_bounds() -> None:
    """Moving a character from one text to the next changes the hash, which is 128 bits in hex."""
    assert text_hash(("ab", "c")) != text_hash(("a", "bc"))
    assert text_hash(("ab", "c")) == text_hash(("ab", "c"))
    assert len(text_hash(("ab", "c"))) == 32


@given(st.text(max_size=300), st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_texts_are_in_normal_form(title: str, description: str) -> None:
    """Whatever a product says, its title is normalised and both texts begin with it."""
    made = product(title=title, description=description)
    dense, lexical = dense_texts(made, SCHEMA), lexical_texts(made, SCHEMA)
    assert dense[0] == lexical[0] == normalize_text(dense[0])
    assert dense[1].startswith(dense[0])
    assert lexical[1].startswith(lexical[0])
