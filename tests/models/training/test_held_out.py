"""Held-out figures are what they are called."""

from __future__ import annotations

import math

import numpy as np

from models.training.data import Corpus, Pair
from models.training.held_out import HeldOut

CORPUS = Corpus(tuple(f"p{n}" for n in range(30)), tuple(f"t{n}" for n in range(30)), tuple(f"w{n}" for n in range(30)))


def test_recall_and_reciprocal_rank_by_hand() -> None:
    """One query finds its two answers first and third, the other its only one not among the first ten."""
    held = HeldOut.of([Pair("a", 4), Pair("a", 9), Pair("b", 20)], CORPUS, 100, 0)
    assert held.rows == tuple(range(30))
    products = np.eye(30, dtype=np.float32)
    a, b = np.zeros(30, dtype=np.float32), -np.eye(30, dtype=np.float32)[20]
    a[[4, 5, 9]] = 3, 2, 1
    recall, mrr = held.recall_and_mrr(np.stack([a, b]), products)
    assert (recall, mrr) == (0.5, 0.5)


def test_the_pool_holds_every_answer_and_as_many_others_as_asked() -> None:
    """Whichever are drawn."""
    held = HeldOut.of([Pair("a", 4), Pair("b", 20)], CORPUS, 5, 0)
    assert len(held.rows) == 7
    assert [{held.rows[place] for place in own} for own in held.answers] == [{4}, {20}]


def test_without_queries_the_figures_are_no_numbers() -> None:
    """Nothing is better than a made-up zero."""
    held = HeldOut.of([], CORPUS, 5, 0)
    assert all(math.isnan(value) for value in held.recall_and_mrr(np.empty((0, 2)), np.empty((5, 2))))
