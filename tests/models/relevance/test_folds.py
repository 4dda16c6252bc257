"""Folds by query, and out-of-fold values."""

from __future__ import annotations

import pytest

from models.relevance import Fold, out_of_fold, query_folds

IDS = [f"q{i}" for i in range(83)]
PINNED = [("c",), ("d",), ("a",), ("b",), ("e",)]


def test_folds_part_the_queries_into_equal_shares() -> None:
    """83 queries in five folds: sizes 16 and 17, each query tested once and trained on four times."""
    folds = query_folds(IDS, k=5)
    assert sorted(len(fold.test) for fold in folds) == [16, 16, 17, 17, 17]
    assert sorted(q for fold in folds for q in fold.test) == sorted(IDS)
    assert all(sorted(fold.train + fold.test) == sorted(IDS) for fold in folds)


def test_folds_depend_on_the_ids_and_the_seed_alone() -> None:
    """The order of the input changes nothing, another seed does."""
    assert query_folds(IDS) == query_folds(reversed(IDS))
    assert query_folds(IDS) != query_folds(IDS, seed=1)


def test_folds_are_the_same_on_every_machine() -> None:
    """Pinned: a fold must not move between two reports, nor with Python's own hash seed."""
    assert [fold.test for fold in query_folds(["a", "b", "c", "d", "e"], k=5)] == PINNED


def test_queries_with_the_same_text_share_a_fold() -> None:
    """Case and spacing do not make another query, so they must not leak from train into test."""
    texts = {f"q{i}": f"query {i}" for i in range(40)} | {f"r{i}": f"  Query   {i}" for i in range(40)}
    for fold in query_folds(texts, k=5):
        assert {q[1:] for q in fold.test}.isdisjoint(q[1:] for q in fold.train)
        assert len(fold.test) == 16


@pytest.mark.parametrize(
    ("queries", "k"), [(["a", "b"], 3), (["a", "b"], 1), (["a", "a", "b"], 2), ({"a": "x", "b": "X "}, 2)]
)
def test_queries_that_cannot_be_parted_are_refused(queries: list[str] | dict[str, str], k: int) -> None:
    """More folds than distinct queries, a single fold, or an id given twice."""
    with pytest.raises(ValueError, match=r"folds|twice"):
        query_folds(queries, k)


def test_every_value_out_of_fold_comes_from_a_model_that_never_saw_its_query() -> None:
    """The model is the list of what it was fitted on, and the value whether the query is in it."""
    values = out_of_fold(lambda train: set(train), lambda model, test: {q: q in model for q in test}, query_folds(IDS))
    assert values == dict.fromkeys(IDS, False)


def test_a_leaking_fold_or_an_incomplete_answer_is_refused() -> None:
    """A fold that tests what it trains on, an answer for other queries, and a query tested twice."""

    def zeros(_: object, test: tuple[str, ...]) -> dict[str, int]:
        return dict.fromkeys(test, 0)

    with pytest.raises(ValueError, match="trains on"):
        out_of_fold(set, zeros, [Fold(("a", "b"), ("b",))])
    with pytest.raises(ValueError, match="exactly"):
        out_of_fold(set, lambda model, test: {"a": 0}, [Fold(("a",), ("b",))])
    with pytest.raises(ValueError, match="two folds"):
        out_of_fold(set, zeros, [Fold(("a",), ("b",)), Fold(("c",), ("b",))])
