"""Every limit of every route but the search's own: the limit itself is served, one more is refused and named."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.api import schemas
from tests.api.stub_service import KNOWN

_TEXT = "x" * schemas.MAX_TEXT_CHARACTERS
_QUERY = "x" * schemas.MAX_QUERY_CHARACTERS
_ID = "x" * schemas.MAX_ID_CHARACTERS
_LONG_FIELD = "x" * schemas.MAX_NAME_CHARACTERS


def _item(query: str = "x", **candidate: str) -> list[dict[str, Any]]:
    return [{"query": query, "candidates": [candidate or {"id": KNOWN}]}]


CASES: list[tuple[str, dict[str, Any], str, Any, Any]] = [
    ("/v1/search", {"query": "x"}, "facets", [_LONG_FIELD], [_LONG_FIELD + "x"]),
    ("/v1/search", {"query": "x"}, "fields", [_LONG_FIELD], [_LONG_FIELD + "x"]),
    ("/v1/search", {"query": "x"}, "sort", "-" + _LONG_FIELD, "-" + _LONG_FIELD + "x"),
    ("/v1/search", {"query": "x"}, "context", {"recent_product_ids": [_ID]}, {"recent_product_ids": [_ID + "x"]}),
    ("/v1/rescore", {}, "items", _item(_QUERY), _item(_QUERY + "x")),
    ("/v1/rescore", {}, "items", _item(id=_ID), _item(id=_ID + "x")),
    ("/v1/rescore", {}, "items", _item(text=_TEXT), _item(text=_TEXT + "x")),
    ("/v1/rescore", {}, "items", _item() * schemas.MAX_PAIRS, _item() * (schemas.MAX_PAIRS + 1)),
    ("/v1/classify", {}, "query", _QUERY, _QUERY + "x"),
    ("/v1/classify", {}, "text", _TEXT, _TEXT + "x"),
    ("/v1/classify", {"query": "x"}, "k", schemas.MAX_CATEGORIES, schemas.MAX_CATEGORIES + 1),
    ("/v1/classify", {"query": "x"}, "k", 1, 0),
    ("/v1/classify", {"query": "x"}, "timeout_ms", schemas.MAX_TIMEOUT_MS, schemas.MAX_TIMEOUT_MS + 1),
    ("/v1/why-not", {"id": KNOWN}, "query", _QUERY, _QUERY + "x"),
    ("/v1/why-not", {"id": KNOWN, "query": "x"}, "k", schemas.MAX_K, schemas.MAX_K + 1),
    ("/v1/why-not", {"id": KNOWN, "query": "x"}, "timeout_ms", schemas.MIN_TIMEOUT_MS, 0.5),
    ("/v2/rerank", {"documents": ["y"]}, "query", _QUERY, _QUERY + "x"),
    ("/v2/rerank", {"query": "x"}, "documents", [_TEXT], [_TEXT + "x"]),
    ("/v2/rerank", {"query": "x"}, "documents", ["y"] * schemas.MAX_DOCUMENTS, ["y"] * (schemas.MAX_DOCUMENTS + 1)),
    ("/v2/rerank", {"query": "x", "documents": ["y"]}, "top_n", 1, 0),
    ("/rerank", {"texts": ["y"]}, "query", _QUERY, _QUERY + "x"),
    ("/rerank", {"query": "x"}, "texts", [_TEXT], [_TEXT + "x"]),
    ("/rerank", {"query": "x"}, "texts", ["y"] * schemas.MAX_DOCUMENTS, ["y"] * (schemas.MAX_DOCUMENTS + 1)),
]


@pytest.mark.promise("S6", "at the limit 200, one beyond 422 or 413", control="each limit is tried from both sides")
@pytest.mark.parametrize(("path", "rest", "name", "most", "beyond"), CASES)
async def test_a_body_at_its_limit_is_served_and_one_beyond_is_not(
    client: httpx.AsyncClient, path: str, rest: dict[str, Any], name: str, most: Any, beyond: Any
) -> None:
    """200, then 422 or 413 with the member or the number that is too much."""
    served = await client.post(path, json=rest | {name: most})
    assert served.status_code == 200, served.text
    refused = await client.post(path, json=rest | {name: beyond})
    assert refused.status_code in (413, 422)
    assert name in refused.text or "at most" in refused.text


@pytest.mark.promise("S6", "at the limit 200, one beyond 422", control="each limit is tried from both sides")
@pytest.mark.parametrize(
    ("path", "most", "beyond"),
    [
        ("/v1/search?q=x&k={}", schemas.MAX_K, schemas.MAX_K + 1),
        ("/v1/search?q=x&offset={}", schemas.MAX_OFFSET, schemas.MAX_OFFSET + 1),
        ("/v1/search?q={}", _QUERY, _QUERY + "x"),
        ("/v1/search?q=x&timeout_ms={}", schemas.MAX_TIMEOUT_MS, schemas.MAX_TIMEOUT_MS + 1),
        ("/v1/search?q=x&profile={}", "p" * 64, "p" * 65),
        (f"/v1/products/{KNOWN}/similar?k={{}}", schemas.MAX_K, schemas.MAX_K + 1),
        (f"/v1/products/{KNOWN}/similar?k={{}}", 1, 0),
    ],
)
async def test_a_query_string_at_its_limit_is_served_and_one_beyond_is_not(
    client: httpx.AsyncClient, path: str, most: Any, beyond: Any
) -> None:
    """200, then 422."""
    assert (await client.get(path.format(most))).status_code == 200
    assert (await client.get(path.format(beyond))).status_code == 422
