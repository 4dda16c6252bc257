"""Why-not against an oracle in plain numpy: it takes every product's leg scores, evaluates filters on the products'
JSON, sorts, and shares no retrieval code. What is said to keep a product is tried, and what is less is tried, too."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from app.api.answers import WhyNotResponse
from app.errors import EncoderUnavailable
from app.search.job import SearchJob
from app.search.normalize import Query
from app.search.searcher import Searcher, process
from app.search.whynot import WhyNotJob, why_not
from app.types import SearchRequest
from tests.conftest import DATA, Client

ABSENT = 1000
TINY_TEXTS = (
    "wireless steel headphones", "small bright lamp", "waterproof backpack", "quiet kettle without steel", "soft mug",
    "folding wooden speaker", "acme headphones", "zzgrunt", "large red lamp by cobalt", "he-0", "wirelss speakr",
)  # fmt: skip


@dataclass(frozen=True)
class _Scores:
    vector: Any
    lexical: Any
    dense: Any
    contributions: Any
    raw: Any


class _Oracle:
    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.rows = np.arange(len(searcher.catalog), dtype=np.int32)
        self.products = [searcher.catalog.fields(int(row)) for row in self.rows]
        self.of = lru_cache(None)(self._scores)

    def _scores(self, text: str) -> _Scores:
        searcher, profile = self.searcher, self.searcher.ranking.profiles["default"]
        words = searcher.words.parse(text)
        vector = searcher.query_vectors([text], profile)[0]
        fields, dense = searcher.words.scores(words, self.rows), searcher.vectors.scores(vector, self.rows)
        titles = searcher.words.title_features(words, self.rows)
        parts = np.column_stack([dense, fields, titles]).astype(np.float64) * np.array(profile.weights)
        raw = np.zeros(len(self.rows))
        for column in parts.T:
            raw = raw + column
        return _Scores(vector, (fields[:, 0] + fields[:, 1]) / np.float32(2), dense, parts, raw)

    def fulfils(self, condition: Any, row: int) -> bool:
        if "all" in condition:
            return all(self.fulfils(one, row) for one in condition["all"])
        if "any" in condition:
            return any(self.fulfils(one, row) for one in condition["any"])
        if "not" in condition:
            return not self.fulfils(condition["not"], row)
        value = self.products[row].get(condition["field"])
        held = [] if value in (None, "") else value if isinstance(value, list) else [value]
        if "in" in condition:
            return any(one in condition["in"] for one in held)
        return any(condition["gte"] <= one < condition["lt"] for one in held)

    def failed(self, condition: Any, path: str, row: int) -> list[str]:
        """Paths of the conjuncts that fail."""
        if "all" in condition:
            inner = [self.failed(one, f"{path}.all[{at}]", row) for at, one in enumerate(condition["all"])]
            return [one for found in inner for one in found]
        return [] if self.fulfils(condition, row) else [path]

    def expected(self, query: Query, row: int) -> dict[str, Any]:
        """The members of an answer that the definitions determine."""
        condition, k, profile = query.request.filter, query.request.k, query.profile
        if condition is not None and not self.fulfils(condition, row):
            return {"stage": "filter", "failed": self.failed(condition, "filter", row)}
        one = self.of(query.text or "")
        within = [r for r in self.rows if condition is None or self.fulfils(condition, r)]
        worded = sorted((r for r in within if one.lexical[r] > 0), key=lambda r: (-one.lexical[r], r))
        near = sorted(within, key=lambda r: (-one.dense[r], r))
        by_words = worded[: profile.depth]
        by_meaning = [r for r in near[: profile.depth] if float(one.dense[r]) >= profile.floor]
        places = {
            "lexical": (row in by_words, worded.index(row) + 1 if row in worded else None, float(one.lexical[row])),
            "dense": (row in by_meaning, near.index(row) + 1, float(one.dense[row])),
        }
        order = sorted({*by_words, *by_meaning}, key=lambda r: (-one.raw[r], r))
        if row not in order:
            return {"stage": "retrieval", **places}
        rank = order.index(row) + 1
        found = {"stage": "shown" if rank <= k else "rank", **places, "rank": (rank, len(order), one.raw[row])}
        if rank > k:
            other = order[k - 1]
            found["gap"] = (self.searcher.catalog.id(int(other)), one.raw[other] - one.raw[row])
        return found


def _essence(answer: dict[str, Any]) -> dict[str, Any]:
    """The same members of an answer."""
    found: dict[str, Any] = {"stage": answer["stage"]}
    if answer["filter"]:
        return found | {"failed": [one["path"] for one in answer["filter"]["failed"]]}
    for leg in ("lexical", "dense"):
        found[leg] = (answer[leg]["kept"], answer[leg]["rank"], answer[leg]["score"])
    if answer["rank"]:
        found["rank"] = (answer["rank"]["rank"], answer["rank"]["total"], answer["rank"]["raw"])
    if answer["stage"] == "rank":
        found["gap"] = (answer["rank"]["last"]["id"], answer["rank"]["gap"])
    return found


def _with(query: Query, searcher: Searcher, change: dict[str, Any]) -> Query:
    """The query after a change that an answer proposes."""
    settings = {name: value for name, value in change.items() if name in ("depth", "floor")}
    request = replace(query.request, **{name: value for name, value in change.items() if name in ("k", "filter")})
    return replace(searcher.query(request), profile=replace(query.profile, **settings))


def _lesser(change: dict[str, Any]) -> dict[str, Any] | None:
    """A change by one step less, which must not do; None for a change of the filter, which has no steps."""
    if "depth" in change:
        return change | {"depth": change["depth"] - 1}
    if "floor" in change:
        return change | {"floor": float(np.nextafter(np.float32(change["floor"]), np.float32(2)))}
    return {"k": change["k"] - 1} if "k" in change else None


def _check_keep(searcher: Searcher, query: Query, row: int, answer: dict[str, Any], vector: Any) -> None:
    """Every change that is proposed keeps the product at its stage; a step less does not."""
    stages = ("filter", "retrieval", "rank", "shown")
    at = stages.index(answer["stage"])
    for change in answer["keep"]:
        after = why_not(searcher, _with(query, searcher, change), row, vector)["stage"]
        assert stages.index(after) > at, (change, answer)
        if answer["stage"] == "filter":
            assert after == answer["filter"]["then"]
        lesser = _lesser(change)
        if lesser is None or lesser.get("depth") == 0:
            continue
        if answer["stage"] == "rank" or not _kept_anyway(answer, lesser):
            less = why_not(searcher, _with(query, searcher, lesser), row, vector)
            assert less["stage"] == answer["stage"], (lesser, answer)


def _kept_anyway(answer: dict[str, Any], change: dict[str, Any]) -> bool:
    """Whether a change lets a leg keep the product, by what the answer says of both."""
    depth = change.get("depth", answer["lexical"]["depth"])
    floor = change.get("floor", answer["dense"]["floor"])
    lexical, dense = answer["lexical"], answer["dense"]
    return (lexical["rank"] is not None and lexical["rank"] <= depth) or (
        dense["rank"] <= depth and dense["score"] >= floor
    )


def _fields(oracle: _Oracle, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Values that occur, by field."""
    found: dict[str, list[Any]] = {}
    for name in names:
        held = (product.get(name) for product in oracle.products)
        values = {one for value in held if value for one in (value if isinstance(value, list) else [value])}
        found[name] = sorted(values)
    return found


def _random_filter(draw: random.Random, values: dict[str, list[Any]], levels: int = 2) -> Any:
    kind = draw.choice(("leaf", "leaf", "all", "all", "any", "not")) if levels else "leaf"
    if kind == "leaf":
        name = draw.choice(sorted(values))
        if isinstance(values[name][0], float):
            low = draw.choice(values[name])
            return {"field": name, "gte": low, "lt": low + draw.choice((10, 60, 150))}
        return {"field": name, "in": draw.sample(values[name], min(len(values[name]), draw.randint(1, 3)))}
    if kind == "not":
        return {"not": _random_filter(draw, values, levels - 1)}
    return {kind: [_random_filter(draw, values, levels - 1) for _ in range(draw.randint(1, 3))]}


def _agrees(
    searcher: Searcher, texts: list[str], fields: tuple[str, ...], depths: tuple[int, ...], absent: int, seed: int
) -> None:
    draw, oracle = random.Random(seed), _Oracle(searcher)
    values = _fields(oracle, fields)
    seen: dict[str, int] = dict.fromkeys(("filter", "retrieval", "rank", "shown"), 0)
    while sum(seen.values()) - seen["shown"] < absent:
        condition = _random_filter(draw, values) if draw.random() < 0.5 else None
        query = searcher.query(SearchRequest(draw.choice(texts), k=draw.randint(1, 9), filter=condition))
        dense = oracle.of(query.text or "").dense
        floor = float(np.quantile(dense, draw.choice((0.2, 0.9, 0.99)))) if draw.random() < 0.7 else query.profile.floor
        query = replace(query, profile=replace(query.profile, depth=draw.choice(depths), floor=floor))
        near = np.argsort(-oracle.of(query.text or "").raw)[:20]
        row = int(draw.choice(near) if draw.random() < 0.5 else draw.choice(oracle.rows))
        vector = oracle.of(query.text or "").vector
        answer = why_not(searcher, query, row, vector)
        expected = oracle.expected(query, row)
        assert _essence(answer) == expected, (query, row)
        if sum(seen.values()) % 4 == 0:
            _check_keep(searcher, query, row, answer, vector)
        seen[answer["stage"]] += 1
    assert min(seen.values()) >= absent // 20, seen


def _job(searcher: Searcher, text: str, product_id: str, **request: Any) -> dict[str, Any]:
    row = searcher.catalog.row(product_id)
    assert row is not None
    job = WhyNotJob(searcher, searcher.query(SearchRequest(text, **request)), row)
    process([job])
    if job.error is not None:
        raise job.error
    return job.answer


def test_why_not_agrees_with_brute_force_on_a_thousand_absent_products(tiny_searcher: Searcher) -> None:
    """Every stage, with and without filters; and what is proposed works, by no more than it takes."""
    _agrees(tiny_searcher, list(TINY_TEXTS), ("brand", "color", "category", "price"), (1, 3, 8, 20, 200), ABSENT, 5)


def test_why_not_agrees_with_brute_force_on_the_shipped_catalogue(esci: Searcher) -> None:
    """Queries of shoppers over thousands of products, at the depth that is served and at others."""
    with open(DATA / "esci" / "dev.queries.tsv", encoding="utf-8") as lines:
        texts = [line.rstrip("\n").split("\t")[1] for line in lines]
    draw = random.Random(3)
    _agrees(esci, draw.sample(texts, 60), ("brand", "color"), (5, 40, 100, 400), ABSENT, 9)


def test_the_comparison_sees_a_list_that_is_one_longer(tiny_searcher: Searcher) -> None:
    """Positive control: an oracle of another depth contradicts the answers."""
    oracle, contradicted = _Oracle(tiny_searcher), 0
    query = tiny_searcher.query(SearchRequest("wireless steel headphones", k=3))
    query = replace(query, profile=replace(query.profile, depth=5))
    deeper = replace(query, profile=replace(query.profile, depth=6))
    for row in map(int, oracle.rows):
        found = _essence(why_not(tiny_searcher, query, row))
        assert found == oracle.expected(query, row)
        contradicted += found != oracle.expected(deeper, row)
    assert contradicted >= 1


def test_what_is_shown_is_what_a_search_shows(tiny_searcher: Searcher) -> None:
    """Stage, rank, score and raw of every product are those of the search itself, its spelling mended."""
    text = "wireless stel headphones"
    job = SearchJob(tiny_searcher, tiny_searcher.query(SearchRequest(text, k=40, explain=True)), perf_counter())
    process([job])
    assert job.answer is not None
    answer = json.loads(b"{" + job.answer.tail)
    assert answer["corrected"] == "wireless steel headphones"
    for place, hit in enumerate(answer["hits"], 1):
        told = _job(tiny_searcher, text, hit["id"], k=5)
        assert told["corrected"] == answer["corrected"] and told["version"] == answer["version"]
        assert told["stage"] == ("shown" if place <= 5 else "rank")
        rank, explained = told["rank"], hit["explanation"]
        assert (rank["rank"], rank["total"]) == (place, answer["total"]["value"])
        assert (rank["raw"], rank["score"]) == (explained["raw"], hit["score"])
        assert {name: told["lexical"][name] for name in ("evidence", "missing")} == {
            name: explained[name] for name in ("evidence", "missing")
        }
        if place > 5:
            fifth = answer["hits"][4]
            assert rank["last"] == {"id": fifth["id"], "raw": fifth["explanation"]["raw"], "score": fifth["score"]}
            differences = [one["difference"] for one in rank["difference"]]
            assert differences == sorted(differences, reverse=True)
            assert sum(differences) == pytest.approx(rank["gap"], abs=1e-12)


def test_the_failed_conditions_are_named_with_what_the_product_has(tiny_searcher: Searcher) -> None:
    """Path, condition and values; the filter that is left keeps what the product fulfils."""
    product = tiny_searcher.catalog.fields(0)
    good = {"field": "brand", "in": [product["brand"]]}
    dear = {"field": "price", "gte": product["price"] + 1}
    other = {"any": [{"field": "color", "in": ["none"]}, {"field": "stock", "gte": 99}]}
    told = _job(tiny_searcher, "headphones", "p000", filter={"all": [good, dear, {"all": [other]}, {"not": good}]})
    assert told["stage"] == "filter"
    assert told["filter"]["failed"] == [
        {"path": "filter.all[1]", "condition": dear, "values": {"price": product["price"]}},
        {
            "path": "filter.all[2].all[0]",
            "condition": other,
            "values": {"color": product["color"], "stock": product["stock"]},
        },
        {"path": "filter.all[3]", "condition": {"not": good}, "values": {"brand": product["brand"]}},
    ]
    assert told["keep"] == [{"filter": {"all": [good]}}]
    assert told["lexical"] is told["dense"] is told["rank"] is None
    assert _job(tiny_searcher, "headphones", "p003", filter=good)["filter"]["failed"][0]["values"] == {"brand": None}


def test_a_list_that_was_searched_for_in_a_graph_may_miss_a_product(tiny_searcher: Searcher) -> None:
    """Then depth and floor would not have kept it, and the answer says that the list is approximate."""

    class Forgetful:
        kind = "HNSW32,SQfp16"

        def __getattr__(self, name: str) -> Any:
            return getattr(tiny_searcher.vectors, name)

        def search(self, query: Any, depth: int, allowed: Any) -> Any:
            rows, scores = tiny_searcher.vectors.search(query, depth, allowed)
            return rows[rows != 0], scores[rows != 0]

    searcher = copy.copy(tiny_searcher)
    searcher.vectors = Forgetful()
    query = searcher.query(SearchRequest("zzgrunt", k=60))
    query = replace(query, profile=replace(query.profile, floor=-2.0))
    exact, missed = why_not(tiny_searcher, query, 0), why_not(searcher, query, 0)
    assert (exact["stage"], exact["dense"]["kept"], exact["dense"]["approximate"]) == ("shown", True, False)
    assert (missed["stage"], missed["dense"]["kept"], missed["dense"]["approximate"]) == ("retrieval", False, True)
    assert missed["dense"]["rank"] == exact["dense"]["rank"]
    assert missed["keep"] == []
    assert missed["lexical"]["rank"] is None and missed["lexical"]["missing"] == ["zzgrunt"]


def test_without_the_encoder_the_words_alone_are_asked(tiny_searcher: Searcher) -> None:
    """As in a search: the lexical tier says why; a profile without words has nothing to say."""

    class Broken:
        knows = staticmethod(tiny_searcher.encoder.knows)

        def queries(self, texts: Any) -> Any:
            raise EncoderUnavailable("gone")

    searcher = copy.copy(tiny_searcher)
    searcher.encoder = Broken()
    told = _job(searcher, "steel mug", "p000")
    assert told["tier"] == "lexical" and told["degraded"] == {"is": True, "reasons": ["encoder_error"]}
    assert told["dense"] is None and told["lexical"] is not None
    with pytest.raises(EncoderUnavailable):
        _job(searcher, "steel mug", "p000", profile="dense")


async def test_the_route_answers_and_refuses(tiny_bundles: Path, client: Client) -> None:
    """Through the queue, in the shape of the document; unknown products, profiles, fields and shapes are refused."""
    async with client(tiny_bundles) as http:
        asked = {"query": "steel mug", "id": "p001", "k": 2, "filter": {"field": "price", "gte": 0}}
        response = await http.post("/v1/why-not", json=asked)
        assert response.status_code == 200
        WhyNotResponse.model_validate(response.json())
        again = await http.post("/v1/why-not", json=asked)
        assert again.json() == response.json()
        for change, status in (
            ({"id": "nobody"}, 404), ({"profile": "nothing"}, 404), ({"collection": "nowhere"}, 404),
            ({"filter": {"field": "prise", "gte": 0}}, 422), ({"query": " "}, 422), ({"k": 0}, 422), ({"kk": 1}, 422),
        ):  # fmt: skip
            refused = await http.post("/v1/why-not", json=asked | change)
            assert refused.status_code == status
            assert refused.headers["content-type"] == "application/problem+json"
