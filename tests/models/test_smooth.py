"""Vectors drawn towards their neighbours': against a plain recomputation, and where there is nothing to draw on."""

from __future__ import annotations

import numpy as np
import pytest

from models.smooth import NEIGHBOURS, Smoothing, smoothed


def _vectors(count: int) -> np.ndarray:
    random = np.random.default_rng(3)
    centres = random.normal(size=(8, 24))
    vectors = centres[random.integers(0, 8, count)] + 0.4 * random.normal(size=(count, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * 0.9).astype(np.float32)


def test_each_vector_moves_to_the_weighted_mean_of_its_nearest() -> None:
    """Brute force in float64 over all products but the product itself."""
    vectors = _vectors(300)
    stored, smoothing = smoothed(vectors, 0.6)
    count, share = smoothing.neighbours, smoothing.share
    assert count == 3 and share == pytest.approx(0.6 * 3 / NEIGHBOURS)
    directions = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    for row in range(0, 300, 7):
        nearest = np.argsort(-cosines[row])[:count]
        weights = cosines[row][nearest] / cosines[row][nearest].sum()
        np.testing.assert_allclose(
            stored[row], (1 - share) * vectors[row] + share * weights @ vectors[nearest], atol=1e-3
        )


def test_neighbours_agree_more_than_before() -> None:
    """What it is for: the products of one kind come to stand together."""
    vectors = _vectors(2000)
    stored, _ = smoothed(vectors, 0.6)
    spread = [np.linalg.norm(one - one.mean(axis=0)) / np.linalg.norm(one) for one in (vectors, stored)]
    assert spread[1] != pytest.approx(spread[0], rel=1e-3)
    near = [np.sort(one @ one.T / np.linalg.norm(one, axis=1) ** 2, axis=1)[:, -5:].mean() for one in (vectors, stored)]
    assert near[1] > near[0]


@pytest.mark.parametrize(("count", "share"), [(99, 0.6), (500, 0.0), (1, 0.6)])
def test_small_catalogues_and_no_share_are_left_alone(count: int, share: float) -> None:
    """In a small catalogue the twentieth nearest product is another thing altogether."""
    vectors = _vectors(count)
    stored, smoothing = smoothed(vectors, share)
    assert smoothing.neighbours == 0 and smoothing.share == 0
    np.testing.assert_array_equal(stored, vectors)


def test_so_many_neighbours_and_no_more() -> None:
    """One a hundred products, twenty at most; progress tells of every product."""
    told: list[int] = []
    assert smoothed(_vectors(2500), 0.5, told.append)[1] == Smoothing(NEIGHBOURS, 0.5)
    assert sum(told) == 2500
