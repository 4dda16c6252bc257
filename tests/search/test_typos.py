"""Relevance under typing errors, on the shipped judgements."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from app.index.analysis import normalize_text
from app.search.searcher import Searcher
from app.types import SearchRequest
from models.relevance import Gain, Qrels, Queries, Run, evaluate
from tests.conftest import DATA

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROFILES = ("default", "lexical", "dense")
Texts = dict[str, str]


def misspelt(text: str, source: random.Random) -> str:
    """The text with one letter inserted, deleted, substituted or swapped, anywhere in one word of four letters up."""
    words = text.split()
    places = [at for at, word in enumerate(words) if len(word) >= 4 and word.isascii() and word.isalpha()]
    if not places:
        return text
    place = source.choice(places)
    word = edited = words[place]
    while edited == word:
        at, letter = source.randrange(len(word) - 1), source.choice(LETTERS)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        one = source.randrange(len(word))
        edits = (word[:one] + letter + word[one:], word[:one] + word[one + 1 :], word[:one] + letter + word[one + 1 :])
        edited = source.choice((*edits, swapped))
    words[place] = edited
    return " ".join(words)


class Suite:
    """The dev queries, clean and three times misspelt, under the ranking that the version came with."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        queries = Queries.load(DATA / "esci/dev.queries.tsv")
        self.qrels = Qrels.load(DATA / "esci/dev.qrels.tsv")
        self.clean = {name: normalize_text(text) for name, text in queries.items() if name in self.qrels}
        self.misspelt: list[Texts] = []
        for seed in (1, 2, 3):
            source = random.Random(seed)
            self.misspelt.append({name: normalize_text(misspelt(t, source)) for name, t in self.clean.items()})

    def ndcg(self, texts: Texts, profile: str) -> float:
        """Mean nDCG@10 of a profile over the texts."""
        searcher = self.searcher
        rankings = {}
        for name, typed in texts.items():
            query = searcher.query(SearchRequest(typed, profile=profile))
            assert query.text is not None
            words = searcher.words.parse(query.text)
            vector = searcher.query_vectors([query.text], query.profile)[0] if query.profile.uses_dense else None
            rows = searcher.rank(searcher.result_set(query, words, vector).rows, words, vector, query.profile).rows[:10]
            rankings[name] = [(searcher.catalog.id(int(row)), -float(place)) for place, row in enumerate(rows)]
        judged = self.qrels.restrict(list(texts))
        found = evaluate(judged, Run(rankings, profile), ("ndcg@10",), gain=Gain("exp", 0.0, 2.0))
        return float(np.mean(found.values["ndcg@10"]))


@pytest.fixture(scope="module")
def suite(esci: Searcher) -> Suite:
    return Suite(esci)


@pytest.fixture
def as_typed(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Switches the corrections off."""
    return lambda: monkeypatch.setattr(suite.searcher, "correct", lambda text, prefix: text)


def test_misspelt_queries_keep_their_relevance(suite: Suite, as_typed: Callable[[], None]) -> None:
    """nDCG@10 with an error in every query is at least 0.95 of that without, in every profile, and below 0.9 of it when
    nothing is mended. Nothing was fitted to misspelt queries."""
    mended = {name: np.mean([suite.ndcg(texts, name) for texts in suite.misspelt]) for name in PROFILES}
    as_typed()
    for name in PROFILES:
        clean = suite.ndcg(suite.clean, name)
        assert mended[name] >= 0.95 * clean
        assert np.mean([suite.ndcg(texts, name) for texts in suite.misspelt]) < 0.9 * clean


def test_queries_without_errors_are_left_as_typed(suite: Suite) -> None:
    """Of the dev queries, only those with a real misspelling change."""
    changed = {text: suite.searcher.query(SearchRequest(text)).text for text in suite.clean.values()}
    assert {typed: meant for typed, meant in changed.items() if typed != meant} == {
        "toothpaste without sweetner": "toothpaste without sweetener",
        "vinpositine": "vinpocetine",
    }
