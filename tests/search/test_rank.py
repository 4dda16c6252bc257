"""The first places of a ranking are those of the whole of it, and the rows of two lists come once each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.index.lexical import LexicalHits
from app.search import rerank
from app.search.calibrate import Link
from app.search.features import NAMES
from app.search.fuse import choose
from app.search.rerank import Profile, rank
from app.search.retrieve import DenseHits

PROFILE = Profile("default", 100, 0.0, (1.0,) * len(NAMES), Link(1.0, 0.0, True))
ROWS = st.lists(st.integers(0, 60), max_size=40, unique=True)


@settings(deadline=None)  # the first call compiles
@given(
    scores=st.lists(st.sampled_from([-1.5, 0.0, -0.0, 0.25, 0.5, 2.0]), max_size=120),
    first=st.integers(0, 2 * rerank._FEW),
)
def test_the_first_places_are_those_of_the_whole_ranking(scores: list[float], first: int) -> None:
    """With many ties, whose rows ascend."""
    features = np.zeros((len(scores), len(NAMES)))
    features[:, 0] = scores
    rows = np.arange(3, 3 + len(scores), dtype=np.int32)
    whole, some = rank(rows, features, PROFILE), rank(rows, features, PROFILE, first)
    assert whole.rows.tolist() == [row for _, row in sorted(zip([-score for score in scores], rows, strict=True))]
    assert some.rows.tolist() == whole.rows[:first].tolist()
    assert some.raw.tolist() == whole.raw[:first].tolist()
    assert some.features.tolist() == whole.features[:first].tolist()


@settings(deadline=None)
@given(words=ROWS, meaning=ROWS)
def test_the_result_set_has_each_row_of_both_lists_once(words: list[int], meaning: list[int]) -> None:
    lists = [np.array(rows, np.int32) for rows in (words, meaning)]
    scores = [np.zeros(len(rows), np.float32) for rows in lists]
    found = LexicalHits(lists[0], scores[0], len(words))
    chosen = choose(found, DenseHits(lists[1], scores[1], cut=False))
    assert chosen.rows.tolist() == sorted({*words, *meaning}) and chosen.rows.dtype == np.int32
    assert [rows.tolist() for rows in lists] == [words, meaning]


@pytest.mark.parametrize("far", [800.0, 1e6, 1e308])
def test_probabilities_far_out_are_nought_and_one(far: float) -> None:
    assert Link(1.0, 0.0, True).probability(np.array([-far, 0.0, far])).tolist() == [0.0, 0.5, 1.0]
