"""The result set, its totals, facets and pages, against a brute-force oracle over ten thousand random filtered queries.

The oracle is written from the definition: filter ∩ (lexical top-D ∪ dense top-D above the floor), all of it scored. It
evaluates filters on the products' JSON, takes every product's leg scores, and sorts: it shares no retrieval code."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from app.search.job import SearchJob
from app.search.searcher import Searcher
from app.types import SearchRequest

QUERIES = 10_000
FACETS = ("category", "style", "in_stock")
Leaf = tuple[str, str, Any]


@dataclass(frozen=True)
class _Text:
    """Every product's scores for one query text."""

    vector: Any
    lexical: Any
    dense: Any
    raw: Any
    by_words: Any
    by_meaning: Any


class _Oracle:
    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.count = len(searcher.catalog)
        self.profile = searcher.ranking.profiles["default"]
        self.products = [json.loads(searcher.catalog.document(row)) for row in range(self.count)]
        self.ids = [searcher.catalog.id(row) for row in range(self.count)]
        self.values = {name: [self._all_values(p, name) for p in self.products] for name in FACETS}
        self.known = {
            name: sorted({v if name == "in_stock" else str(v) for held in all_held for v in held})
            for name, all_held in self.values.items()
        }
        self.leaf = lru_cache(None)(self._leaf)
        self.text = lru_cache(None)(self._text)

    @staticmethod
    def _all_values(product: dict[str, Any], name: str) -> list[Any]:
        if name == "in_stock":
            return [product["current_stock"] > 0] if "current_stock" in product else [product["stock"] > 0]
        value = product.get(name)
        return [] if value is None else value if isinstance(value, list) else [value]

    def _leaf(self, leaf: Leaf) -> Any:
        name, kind, value = leaf
        if kind == "in":
            return np.array([any(v in value for v in held) for held in self.values[name]])
        low, high = value
        return np.array([p.get(name) is not None and low <= p[name] < high for p in self.products])

    def mask(self, tree: Any) -> Any:
        kind, inner = tree
        match kind:
            case "all":
                return np.logical_and.reduce([self.mask(one) for one in inner])
            case "any":
                return np.logical_or.reduce([self.mask(one) for one in inner])
            case "not":
                return ~self.mask(inner)
            case _:
                return self.leaf(inner)

    def _text(self, text: str) -> _Text:
        rows = np.arange(self.count, dtype=np.int32)
        vector = self.searcher.query_vectors([text], self.profile)[0]
        words = self.searcher.words.scores(self.searcher.words.parse(text), rows)
        dense = self.searcher.vectors.scores(vector, rows)
        titles = self.searcher.words.title_features(self.searcher.words.parse(text), rows)
        features = np.column_stack([dense, words, titles]).astype(np.float64)
        raw = np.zeros(self.count)
        for column, weight in enumerate(self.profile.weights):
            raw = raw + features[:, column] * weight
        lexical = (words[:, 0] + words[:, 1]) / np.float32(2)
        by_words = [row for row in np.lexsort((rows, -lexical)) if lexical[row] > 0]
        return _Text(vector, lexical, dense, raw, np.array(by_words, dtype=int), np.lexsort((rows, -dense)))

    def rows(self, text: str, allowed: Any) -> Any:
        one, depth = self.text(text), self.profile.depth
        lexical = one.by_words[allowed[one.by_words]][:depth]
        dense = one.by_meaning[allowed[one.by_meaning]][:depth]
        return np.array(
            sorted({*lexical, *(r for r in dense if one.dense[r] >= np.float32(self.profile.floor))}), dtype=int
        )

    def order(self, text: str, rows: Any) -> list[str]:
        raw = self.text(text).raw[rows]
        return [self.ids[row] for row in rows[np.lexsort((rows, -raw))]]

    def counts(self, rows: Any, name: str) -> Counter[Any]:
        return Counter(value for row in rows for value in self.values[name][row])


def _random_leaf(draw: random.Random, oracle: _Oracle) -> Leaf:
    if draw.random() < 0.5:
        name = draw.choice(FACETS)
        known = oracle.known[name]
        return (name, "in", tuple(draw.sample(known, min(len(known), draw.randint(1, 3)))))
    low = draw.uniform(0, 150)
    return ("price", "range", (low, low + draw.choice((0.5, 20, 500))))


def _random_tree(draw: random.Random, oracle: _Oracle, depth: int = 0) -> Any:
    kind = draw.choice(("leaf", "leaf", "all", "any", "not")) if depth < 3 else "leaf"
    if kind == "leaf":
        return ("leaf", _random_leaf(draw, oracle))
    if kind == "not":
        return ("not", _random_tree(draw, oracle, depth + 1))
    return (kind, [_random_tree(draw, oracle, depth + 1) for _ in range(draw.randint(1, 3))])


def _as_json(tree: Any) -> Any:
    kind, inner = tree
    if kind == "leaf":
        name, how, value = inner
        return {"field": name, "in": list(value)} if how == "in" else {"field": name, "gte": value[0], "lt": value[1]}
    return {kind: _as_json(inner)} if kind == "not" else {kind: [_as_json(one) for one in inner]}


def _relaxed(tree: Any, name: str) -> Any:
    """The definition of disjunctive: without the top-level conjuncts that constrain this field alone."""
    conjuncts = tree[1] if tree[0] == "all" else [tree]
    kept = [one for one in conjuncts if _fields(one) != {name}]
    return ("all", kept) if kept else None


def _fields(tree: Any) -> set[str]:
    kind, inner = tree
    if kind == "leaf":
        return {inner[0]}
    return _fields(inner) if kind == "not" else set().union(*(_fields(one) for one in inner))


def _ask(searcher: Searcher, request: SearchRequest, vector: Any) -> dict[str, Any]:
    job = SearchJob(searcher, searcher.query(request), perf_counter(), vector=vector)
    searcher.search([job])
    assert job.answer is not None, job.error
    answer: dict[str, Any] = json.loads(b"{" + job.answer.tail)
    return answer


@pytest.fixture(scope="module")
def oracle(retail: Searcher) -> _Oracle:
    """Over the shipped retail catalogue, with the shipped encoder."""
    return _Oracle(retail)


def test_ten_thousand_filtered_queries_equal_the_oracle(oracle: _Oracle) -> None:
    """No violation, exactly min(k, result set) hits in the right order, totals and disjunctive facets as counted."""
    draw = random.Random(20261123)
    titles = [product["title"].lower().split() for product in oracle.products]
    texts = sorted({" ".join(draw.sample(t, min(len(t), draw.randint(1, 3)))) for t in draw.sample(titles, 150)})
    seen: Counter[str] = Counter()
    for number in range(QUERIES):
        text, tree, k = draw.choice(texts), _random_tree(draw, oracle), draw.choice((1, 10, 100))
        allowed = oracle.mask(tree)
        rows = oracle.rows(text, allowed)
        # An offset that the result set does not reach is an empty page; one that no result set reaches is refused.
        offset = draw.choice((0, 0, 0, 7, 150))
        faceted = number % 4 == 0
        request = SearchRequest(
            text, k=k, offset=offset, filter=_as_json(tree), facets=FACETS if faceted else (), fields=("title",)
        )
        answer = _ask(oracle.searcher, request, oracle.text(text).vector)
        assert [hit["id"] for hit in answer["hits"]] == oracle.order(text, rows)[offset : offset + k]
        assert answer["total"]["value"] == len(rows)
        cut = answer["total"]["relation"] == "gte"
        assert cut or len(rows) < 2 * oracle.profile.depth
        if faceted:
            for name in FACETS:
                relaxed = _relaxed(tree, name)
                free = oracle.rows(text, oracle.mask(relaxed) if relaxed else np.ones(oracle.count, bool))
                expected = oracle.counts(free, name)
                told = {facet["value"]: facet["count"] for facet in answer["facets"][name]}
                assert told == dict(sorted(expected.items(), key=lambda i: (-i[1], i[0]))[:50])
        seen["empty" if not len(rows) else "cut" if cut else "whole"] += 1
    # The random queries reached what they were meant to reach.
    assert min(seen["empty"], seen["cut"], seen["whole"]) > QUERIES // 50, seen


def test_tightening_a_filter_never_adds_a_product_of_the_whole_set(oracle: _Oracle) -> None:
    """Where no depth cuts, a further condition only removes."""
    draw = random.Random(5)
    for _ in range(200):
        wide = ("all", [_random_tree(draw, oracle, 2)])
        tight = ("all", [*wide[1], _random_tree(draw, oracle, 2)])
        answers = [
            _ask(
                oracle.searcher,
                SearchRequest("leather bag", k=200, filter=_as_json(tree)),
                oracle.text("leather bag").vector,
            )
            for tree in (wide, tight)
        ]
        if all(answer["total"]["relation"] == "eq" for answer in answers):
            ids = [{hit["id"] for hit in answer["hits"]} for answer in answers]
            assert len(ids[0]) == 200 or ids[1] <= ids[0]


def test_the_oracle_notices_a_broken_filter(oracle: _Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: retrieval that ignores the filter does not pass."""
    from app.search import retrieve

    monkeypatch.setattr(retrieve, "allowed_by", lambda condition, catalog: None)
    tree = ("all", [("leaf", ("category", "in", ("accessories",)))])
    answer = _ask(oracle.searcher, SearchRequest("bag", k=10, filter=_as_json(tree)), oracle.text("bag").vector)
    rows = oracle.rows("bag", oracle.mask(tree))
    assert answer["total"]["value"] != len(rows)
