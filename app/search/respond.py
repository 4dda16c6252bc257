"""Stage 10: the answer's bytes, made once. Products are stored as JSON, so a hit is joined, not serialised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import orjson

from app.index.catalog import Catalog
from app.types import Rows, record


@record()
class Page:
    """One page of a result set, ready to be written. `scores` is None when browsing."""

    rows: Rows
    scores: Sequence[float] | None
    explanations: Sequence[Mapping[str, Any]] | None
    total: int
    exact: bool
    facets: Mapping[str, Sequence[tuple[Any, int]]]


def tail(
    page: Page,
    catalog: Catalog,
    *,
    version: str,
    tier: str,
    degraded: Sequence[str],
    calibrated: bool,
    fields: tuple[str, ...] | None,
    corrected: str | None = None,
    relaxed: tuple[str | None, Sequence[str]] | None = None,
    truncated: bool = False,
    word_matches: int | None = None,
) -> bytes:
    """The answer's members after `request_id`, `took_ms` and `cached`, closing brace included. `corrected` is the text
    that was searched for, where it is not what was typed. `relaxed`: the shorter text that was searched for because
    nothing was found for the whole of it (None: the filter alone), and the words dropped. `truncated`: the encoder read
    the text's beginning only. `word_matches`: products with a word of it; None where none was looked for."""
    head = orjson.dumps(
        {
            "version": version,
            "tier": tier,
            "degraded": {"is": bool(degraded), "reasons": list(degraded)},
            "calibrated": calibrated,
            "corrected": corrected,
            "relaxed": relaxed and {"text": relaxed[0], "dropped": relaxed[1]},
            "truncated": truncated,
            "word_matches": word_matches,
            "total": {"value": page.total, "relation": "eq" if page.exact else "gte"},
        }
    )
    hits = b",".join(_hits(page, catalog, fields))
    facets = orjson.dumps(
        {name: [{"value": value, "count": count} for value, count in counts] for name, counts in page.facets.items()}
    )
    return b"".join((head[1:-1], b',"hits":[', hits, b'],"facets":', facets, b"}"))


def product(product_id: str, version: str, document: bytes) -> bytes:
    """JSON object of one product."""
    head: bytes = orjson.dumps({"id": product_id, "version": version})
    return b"".join((head[:-1], b',"product":', document, b"}"))


def _hits(page: Page, catalog: Catalog, fields: tuple[str, ...] | None) -> Iterator[bytes]:
    scores = repeat(b"null") if page.scores is None else map(str.encode, map(repr, page.scores))
    explained = repeat(b"null") if page.explanations is None else map(orjson.dumps, page.explanations)
    for row, score, explanation in zip(page.rows.tolist(), scores, explained):  # noqa: B905  (some have no end)
        document = catalog.document(row) if fields is None else catalog.document_with(row, fields)
        yield b'{"id":%b,"score":%b,"product":%b,"explanation":%b}' % (
            orjson.dumps(catalog.id(row)),
            score,
            document,
            explanation,
        )
