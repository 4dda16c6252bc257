"""The aggressive form of normalising: what it removes, and what that costs on the shipped judgements."""

from __future__ import annotations

import numpy as np
import pytest

from app.index.analysis import normalize_text
from app.search.searcher import Searcher
from models.relevance import Qrels, Queries, compare, evaluate
from models.stop_words import aggressive, runs
from tests.conftest import DATA


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("chair without wheels", "chair wheels"),
        ("usb type-c cable", "usb typec cable"),
        ("1.5L kettle", "15 l kettle"),
        ("c++ primer", "c primer"),
        ("the who", "the who"),
    ],
)
def test_it_loses_what_the_conservative_form_keeps(text: str, left: str) -> None:
    """Why it is off: four different meanings become something else. A text of stop words alone stays."""
    normal = normalize_text(text)
    assert aggressive(normal) == left
    assert normal == left or any(word not in left.split() for word in normal.split())


def test_it_costs_relevance_where_words_count(esci: Searcher) -> None:
    """By words alone at least 0.01 of nDCG@10 on the dev queries, with an interval that excludes nothing lost; the
    encoder's queries are not told apart."""
    queries, qrels = Queries.load(DATA / "esci/dev.queries.tsv"), Qrels.load(DATA / "esci/dev.qrels.tsv")
    scored = {name: evaluate(qrels, run) for name, run in runs(esci, queries, qrels, "lexical").items()}
    words = compare(scored["conservative"], scored["words"], "ndcg@10")
    assert words.difference.estimate < -0.01 and words.difference.high < 0.0
    assert np.array_equal(scored["encoder"].values["ndcg@10"], scored["conservative"].values["ndcg@10"])
    dense = {name: evaluate(qrels, run) for name, run in runs(esci, queries, qrels, "dense").items()}
    assert abs(compare(dense["conservative"], dense["encoder"], "ndcg@10").difference.estimate) < 0.02
