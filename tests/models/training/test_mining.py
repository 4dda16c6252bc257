"""Mined negatives are hard, and no answers."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.mining import hard_negatives

ANGLES = np.linspace(0, np.pi, 100, dtype=np.float32)
PRODUCTS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def test_negatives_are_near_but_neither_answers_nor_the_nearest() -> None:
    """Of products in order of nearness: 0 and 3 answer, two more are skipped, and the next ten are drawn from."""
    drawn = {
        int(row)
        for seed in range(50)
        for row in hard_negatives(PRODUCTS[:1], PRODUCTS, [{0, 3}], count=3, skip=2, depth=10, seed=seed)[0]
    }
    assert drawn == set(range(4, 14))


def test_mining_repeats_for_a_seed() -> None:
    """And differs for another."""
    made = [hard_negatives(PRODUCTS[:5], PRODUCTS, [set()] * 5, count=4, seed=seed) for seed in (1, 1, 2)]
    assert made[0].shape == (5, 4)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


def test_a_query_whose_neighbours_all_answer_gets_others() -> None:
    """And one that everything answers is an error."""
    few = hard_negatives(PRODUCTS[:1], PRODUCTS[:4], [{0, 1, 2}], count=2, skip=5)
    assert few.tolist() == [[3, 3]]
    with pytest.raises(ValueError, match="no negative"):
        hard_negatives(PRODUCTS[:1], PRODUCTS[:2], [{0, 1}], count=1)
