"""S7: whatever a filter holds, it is refused or becomes a typed condition, and nothing of it gets anywhere else."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.errors import BadInput
from app.index import filters
from app.search.searcher import Searcher
from tests.app.server import Served, served
from tests.app.test_leaks import HOSTILE, LINE
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.keep_alive import KeepAlive, request

_FIELDS = ("brand", "color", "category", "price", "stock", "in_stock")
_STRINGS = (
    HOSTILE,
    "' OR '1'='1",
    '" || true || "',
    "x'; DROP TABLE products; --",
    "brand in ['Acme'] or price > 0",
    "{brand}",
    "{{7*7}}",
    "${jndi:ldap://x/a}",
    "%s%n%x",
    "$(id)",
    "../../etc/passwd",
    "Acme\x00",
    "*",
    ".*",
    "__class__",
    "\ufeffAcme",
    "ａｃｍｅ",
    "A" * 2_000,
    "\U000e0041\u202e",
    "]},{\"all\":[",
)  # fmt: skip
_NUMBERS = (0, -1, 1e308, -1e308, 2**53 + 1, 2**70, 1e-320, -0.0, True)
_ODD = (None, [], {}, [[]], {"$gt": 0}, {"field": "brand"}, ["Acme", 1], True)
_PROOF = (
    {"field": "brand", "in": ["Acme"]},
    {"field": "price", "gte": 20},
    {"not": {"field": "in_stock", "eq": True}},
)
_TREES = (filters.All, filters.AnyOf, filters.Not, filters.In, filters.Range, filters.Exists)


@pytest.fixture(scope="module")
def service(tiny_bundles: Path) -> Iterator[Served]:
    """The real service, which logs what is searched for."""
    with served(tiny_bundles, AISLE_PROCESSES="1", AISLE_LOG_QUERIES="1", AISLE_CACHE_MB="1") as running:
        yield running


def _hostile(draw: random.Random, depth: int = 0) -> Any:
    """A filter with something hostile as a value, a list's member, a bound, a field's name or a key."""
    if depth < 3 and draw.random() < 0.25:
        key = draw.choice(("all", "any"))
        return {key: [_hostile(draw, depth + 1) for _ in range(draw.randint(1, 3))]}
    if depth < 3 and draw.random() < 0.1:
        return {"not": _hostile(draw, depth + 1)}
    text = draw.choice(_STRINGS) + str(draw.randrange(10_000))
    field = draw.choice(_FIELDS)
    kind = draw.randrange(8)
    if kind < 3:
        return {"field": draw.choice(_FIELDS[:3]), "in": [text, *draw.sample(_STRINGS, draw.randint(0, 3))]}
    if kind == 3:
        return {"field": draw.choice(_FIELDS[:3]), "eq": text}
    if kind == 4:
        return {"field": draw.choice(_FIELDS[3:5]), draw.choice(("gte", "gt", "lt")): draw.choice((*_NUMBERS, text))}
    if kind == 5:
        return {"field": text, draw.choice(("eq", "in", "exists")): draw.choice((text, [text], True))}
    if kind == 6:
        return {"field": field, draw.choice(("eq", "in", "gte", "exists")): draw.choice(_ODD)}
    return {"field": field, "eq": text, text: draw.choice((text, 1))}


def _leaves(condition: Any) -> Iterator[Any]:
    assert type(condition) in _TREES, type(condition)
    if isinstance(condition, filters.All | filters.AnyOf):
        for one in condition.of:
            yield from _leaves(one)
    elif isinstance(condition, filters.Not):
        yield from _leaves(condition.of)
    else:
        yield condition


def _is_typed(raw: Any, searcher: Searcher) -> bool:
    """Whether it is taken, and then a tree of conditions whose fields and values are the catalogue's own."""
    schema = searcher.catalog.schema
    types = {spec.name: spec.type for spec in schema.fields}
    kinds = {"keyword": str, "number": float, "boolean": bool}
    try:
        condition = filters.parse(raw, schema)
    except BadInput:
        return False
    for leaf in _leaves(condition):
        assert types[leaf.field] in kinds
        if isinstance(leaf, filters.In):
            assert {type(value) for value in leaf.values} == {kinds[types[leaf.field]]}
        elif isinstance(leaf, filters.Range):
            bounds = [one for one in (leaf.gte, leaf.gt, leaf.lte, leaf.lt) if one is not None]
            assert types[leaf.field] == "number" and {type(one) for one in bounds} == {float}
    allowed = filters.mask(condition, searcher.catalog) if condition is not None else np.ones(1, bool)
    assert allowed.dtype == np.bool_
    return True


def _series(service: Served) -> set[str]:
    lines = httpx.get(f"{service.address}/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


async def _asked(service: Served, bodies: list[Any]) -> list[int]:
    line, statuses = KeepAlive(int(service.address.rpartition(":")[2])), []
    for body in bodies:
        status, _ = await line.ask(request("POST", "/v1/search", json.dumps(body).encode()))
        statuses.append(status)
    line.close()
    return statuses


@pytest.mark.parametrize("count", forms(500, 10_000))
async def test_no_value_of_a_filter_reaches_more_than_a_typed_condition(
    service: Served, tiny_searcher: Searcher, promise: Promise, seed: int, count: int
) -> None:
    """Injections for query languages, shells and templates, line breaks, terminal codes, odd types: 200 with what a
    plain comparison finds, or 422; no series and no line of the log is of the caller's making."""
    draw = random.Random(seed)
    hostile = [_hostile(draw) for _ in range(count)]
    bar = f"{count:,} hostile filters: only typed conditions reach the engine, 0 5xx, 0 new series, nothing raw logged"
    with promise("S7", bar) as found:
        typed = [_is_typed(one, tiny_searcher) for one in hostile]
        # Every kind of request has been there once, and from the cache: its series exist.
        warm = [_hostile(draw) for _ in range(200)]
        bodies = [{"query": "steel mug", "filter": one, "timeout_ms": 20_000} for one in (*_PROOF, *warm, *warm)]
        bodies += [{"query": HOSTILE + "mug", "filter": one} for one in (*_PROOF, *warm)]
        first = await _asked(service, bodies)
        _series(service)  # a scrape has series of its own
        before = _series(service)
        bodies = [{"query": "steel mug", "filter": one, "timeout_ms": 20_000} for one in hostile]
        statuses = await _asked(service, bodies)
        added = _series(service) - before
        told = Counter(statuses)
        await _asked(service, [{"query": "last of all"}])
        raw = [line for line in service.lines if not LINE.fullmatch(line)]
        found.figure = (
            f"{count:,} hostile filters: {dict(sorted(told.items()))}, {sum(typed):,} became typed conditions, "
            f"{len(added)} new series, {len(raw)} raw lines"
        )
        logged = sum("\\u001b[31m" in line for line in service.lines)
        found.control = f"plain filters are answered {first[:3]}; {logged} escaped lines are in the log"
        found.metric = "all series of /metrics are compared"
        assert first[:3] == [200] * 3
        assert set(told) == {200, 422}, told
        assert [status == 200 for status in statuses] == typed, "the service and the parser differ"
        assert min(sum(typed), count - sum(typed)) > count / 5, "one kind was hardly tried"
        assert not added, added
        assert not raw, raw[:3]
        assert logged, "nothing hostile was logged"
