"""Explanations: the score in its parts on ten thousand hits, the words that met against the texts, and the cost."""

from __future__ import annotations

import json
import math
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from app.api.answers import Explanation
from app.index.analysis import normalize_text
from app.index.lexical import LexicalIndex
from app.index.negation import NOT
from app.index.synonyms import Synonyms
from app.index.terms import product_terms, query_terms
from app.search.explain import evidence
from app.search.features import NAMES
from app.search.job import SearchJob
from app.search.searcher import Searcher
from app.types import SearchRequest
from tests.conftest import DATA

HITS = 10_000
SYNONYMS = Synonyms.parse("couch, sofa\ntv, television, flat screen\nps5 => playstation 5")
PRODUCTS = (
    ("Leather Sofa, 3 seats", "A sofa without armrests. For the living room."),
    ("Couch cover", "Fits every sofa and couch."),
    ("Flat screen 55 inch", "A television with a stand."),
    ("Sofa bed without wheels", "Soft, dark."),
    ("Playstation 5 controller", "For the console."),
    ("TV stand", "Holds a television, with wheels."),
    ("Soda", "Sparkling."),
    ("", ""),
)
TEXTS = [(normalize_text(title), normalize_text(f"{title} {more}")) for title, more in PRODUCTS]
QUERIES = (
    "couch", "leather sofas", "tv stands", "ps5 controller", "sofa without wheels", "flat screen", "unheard sofa", "so",
)  # fmt: skip


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    """The products above, with synonyms."""
    return LexicalIndex.build(TEXTS, synonyms=SYNONYMS)


def _told(index: LexicalIndex, text: str, row: int, *, prefix: bool = False) -> dict[str, Any]:
    return evidence(np.array([row], np.int32), text, index, index.parse(text, prefix=prefix))[0]


def _bare(term: str) -> str:
    return term.removeprefix(NOT).replace("_", " ")


@pytest.mark.parametrize("text", QUERIES)
def test_words_meet_where_the_texts_have_them(index: LexicalIndex, text: str) -> None:
    """Against the sets of terms of title and text: every product, every word, nothing more."""
    for row, (title, whole) in enumerate(TEXTS):
        in_title, in_text = (set(product_terms(one, SYNONYMS)) for one in (title, whole))
        expected, missing = [], []
        for wanted in query_terms(text, SYNONYMS):
            absent = wanted.term.startswith(NOT)
            alternatives = [(wanted.term, "exact"), *((one, "synonym") for one in wanted.synonyms)]
            met = {
                (_bare(term), "title" if term in in_title else "all", "absent" if absent else kind)
                for term, kind in alternatives
                if term in in_title | in_text
            }
            expected += met
            if not met and not absent:
                missing.append(_bare(wanted.term))
        told = _told(index, text, row)
        found = [(term, one["field"], one["kind"]) for one in told["evidence"] for term in one["product"]]
        assert sorted(found) == sorted(expected), row
        spelt = {"sofas": "sofa", "stands": "stand"}
        assert [spelt.get(word, word) for word in told["missing"]] == missing, row


def test_each_kind_of_meeting_is_told(index: LexicalIndex) -> None:
    """By hand: the word as the query spells it, what it met, where, and why that counts."""
    assert _told(index, "leather couches", 0) == {
        "evidence": [
            {"query": "leather", "product": ["leather"], "field": "title", "kind": "exact"},
            {"query": "couches", "product": ["sofa"], "field": "title", "kind": "synonym"},
        ],
        "missing": [],
    }
    assert _told(index, "tv", 2)["evidence"] == [
        {"query": "tv", "product": ["television"], "field": "all", "kind": "synonym"},
        {"query": "tv", "product": ["flat screen"], "field": "title", "kind": "synonym"},
    ]
    assert _told(index, "ps5 charger", 4) == {
        "evidence": [
            {"query": "playstation", "product": ["playstation"], "field": "title", "kind": "exact"},
            {"query": "5", "product": ["5"], "field": "title", "kind": "exact"},
        ],
        "missing": ["charger"],
    }
    assert _told(index, "sofa without wheels", 3)["evidence"][-1] == {
        "query": "wheels", "product": ["wheel"], "field": "title", "kind": "absent",
    }  # fmt: skip
    assert _told(index, "sofa without wheels", 0)["missing"] == []
    assert _told(index, "so", 6, prefix=True)["evidence"] == [
        {"query": "so", "product": ["soda"], "field": "title", "kind": "prefix"}
    ]


def test_what_a_chinese_thing_is_for_is_told_apart() -> None:
    """A case for phones has the phone's characters, and not as what it is."""
    index = LexicalIndex.build([("手机壳", "手机壳"), ("手机", "手机")])
    case, phone = (_told(index, "手机", row) for row in (0, 1))
    assert {one["kind"] for one in case["evidence"]} == {"modifier"}
    assert {one["kind"] for one in phone["evidence"]} == {"exact"}


def test_a_product_that_only_the_meaning_found_misses_every_word(tiny_searcher: Searcher) -> None:
    """And a browse has no explanations at all."""
    told = [hit["explanation"] for hit in _answer(tiny_searcher, "zzgrunt mug", k=60)["hits"]]
    assert any(one["missing"] == ["zzgrunt", "mug"] and one["evidence"] == [] for one in told)
    assert any(one["missing"] == ["zzgrunt"] and one["evidence"] for one in told)
    for one in told:
        Explanation.model_validate(one)


def _answer(searcher: Searcher, text: str, **request: Any) -> dict[str, Any]:
    job = SearchJob(searcher, searcher.query(SearchRequest(text, explain=True, **request)), perf_counter())
    searcher.search([job])
    assert job.answer is not None
    answer: dict[str, Any] = json.loads(b"{" + job.answer.tail)
    return answer


def _dev_queries() -> list[str]:
    with open(DATA / "esci" / "dev.queries.tsv", encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t")[1] for line in lines]


def test_ten_thousand_explained_hits_are_their_scores(esci: Searcher) -> None:
    """The contributions' ordered sum is `raw` bit for bit; raw and id give the order; the link gives the score."""
    seen = 0
    for text in _dev_queries():
        hits = _answer(esci, text, k=200, fields=())["hits"]
        for hit in hits:
            explained, total = hit["explanation"], 0.0
            assert [part["name"] for part in explained["contributions"]] == list(NAMES)
            for part in explained["contributions"]:
                assert part["contribution"] == part["value"] * part["weight"]
                total += part["contribution"]
            assert total == explained["raw"]
            logit = explained["link"]["slope"] * total + explained["link"]["offset"]
            assert abs(hit["score"] - 1.0 / (1.0 + math.exp(-logit))) <= 1e-12
        keys = [(-hit["explanation"]["raw"], hit["id"]) for hit in hits]
        assert keys == sorted(keys)
        seen += len(hits)
        if seen >= HITS:
            break
    assert seen >= HITS


@pytest.mark.deep
@pytest.mark.parametrize(
    ("cached", "most"), [(False, 1.15), (True, 1.2)], ids=["whole search", "vector from the cache"]
)
def test_explaining_ten_hits_costs_little(esci: Searcher, cached: bool, most: float) -> None:
    """The same query with and without `explain`, in turn: the median of the queries' ratios, each of its fastest turns.
    A search whose vector is known already takes a third of the time, and explaining as long as ever."""
    ratios = []
    for text in _dev_queries():
        vector = esci.query_vectors([text], esci.ranking.profiles["default"])[0] if cached else None
        took: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(12):
            for explain in (True, False) if turn % 2 else (False, True):
                query = esci.query(SearchRequest(text, k=10, explain=explain))
                started = perf_counter()
                esci.search([SearchJob(esci, query, started, vector=vector)])
                took[explain].append(perf_counter() - started)
        ratios.append(min(took[True]) / min(took[False]))
    print(f"explained / plain, median of {len(ratios)} queries: {median(ratios):.3f}")
    assert median(ratios) <= most
