"""Probabilities against labels."""

from __future__ import annotations

import numpy as np
import pytest

from models.relevance import accuracy, brier_skill, calibration_error, evaluate_pairs, mse

P = [0.9, 0.8, 0.4, 0.3]
Y = [1, 0, 1, 0]


def test_accuracy_and_squared_error_are_their_textbook_arithmetic() -> None:
    """Right on the first and the last; a lower threshold also finds the third."""
    assert accuracy(P, Y) == 2 / 4
    assert accuracy(P, Y, threshold=0.35) == 3 / 4
    assert mse(P, Y) == pytest.approx((0.1**2 + 0.8**2 + 0.6**2 + 0.3**2) / 4)
    assert mse([1.0, 2.5], [3.0, 2.0]) == (2.0**2 + 0.5**2) / 2


def test_calibration_error_by_width_is_the_weighted_gap_of_each_bin() -> None:
    """Two bins: mean 0.35 against a share of 1/2, and 0.85 against 1/2; each holds half of the pairs."""
    assert calibration_error(P, Y, bins=2) == pytest.approx(0.5 * abs(0.35 - 0.5) + 0.5 * abs(0.85 - 0.5))
    assert calibration_error([1.0, 0.0], [1, 0], bins=15) == 0.0


def test_calibration_error_by_mass_puts_equal_shares_of_pairs_in_each_bin() -> None:
    """All in one bin by width; by mass the lower two against 1 and the upper two against 0."""
    p, y = [0.51, 0.52, 0.53, 0.54], [1, 1, 0, 0]
    assert calibration_error(p, y, bins=2, by="width") == pytest.approx(abs(0.525 - 0.5))
    assert calibration_error(p, y, bins=2, by="mass") == pytest.approx(0.5 * (1 - 0.515) + 0.5 * (0.535 - 0))


def test_equal_probabilities_stay_in_one_bin_whatever_their_order() -> None:
    """Split over bins, a constant would look badly calibrated or not by the order of the pairs."""
    assert calibration_error([0.5] * 30, [1] * 15 + [0] * 15, by="mass") == 0.0


def test_a_constant_at_the_base_rate_is_calibrated_and_has_no_skill() -> None:
    """Why the calibration error is never shown alone."""
    y = np.array([1] * 30 + [0] * 70)
    constant = np.full(100, 0.3)
    assert brier_skill(constant, y) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(constant, y) == pytest.approx(0.0, abs=1e-12)
    assert brier_skill(y, y) == 1.0
    assert brier_skill(1 - y, y) < 0.0
    assert np.isnan(brier_skill([0.5], [1]))


@pytest.mark.parametrize("by", ["width", "mass"])
def test_a_perfect_predictor_has_a_small_calibration_error_and_a_skewed_one_a_large_one(by: str) -> None:
    """Labels drawn from the probabilities themselves, 3,664 pairs: about 0.02 by chance; off by 0.15: seen."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 0.8, size=3664)
    y = (rng.random(3664) < p).astype(int)
    assert 0.005 < calibration_error(p, y, by=by) < 0.035  # type: ignore[arg-type]
    assert calibration_error(p + 0.15, y, by=by) == pytest.approx(0.15, abs=0.03)  # type: ignore[arg-type]


def test_the_pair_evaluation_agrees_with_the_single_figures() -> None:
    """Precision 1/2, recall 1/2, hence F1 1/2; the rest is the functions above."""
    found = evaluate_pairs(P, Y, ["a", "a", "b", "b"])
    assert (found.n_pairs, found.n_queries, found.base_rate) == (4, 2, 0.5)
    assert found.accuracy.estimate == accuracy(P, Y)
    assert (found.precision.estimate, found.recall.estimate, found.f1.estimate) == (1 / 2, 1 / 2, 1 / 2)
    assert found.brier.estimate == pytest.approx(mse(P, Y))
    assert found.brier_skill.estimate == pytest.approx(brier_skill(P, Y))
    assert (found.ece_width, found.ece_mass) == (calibration_error(P, Y), calibration_error(P, Y, by="mass"))


def test_the_intervals_draw_whole_queries() -> None:
    """Pairs that repeat within a query add no certainty: ten copies of each leave the interval as wide as it was."""
    rng = np.random.default_rng(6)
    p, y, q = rng.uniform(size=200), rng.integers(0, 2, size=200), [f"q{i}" for i in range(200)]
    once = evaluate_pairs(p, y, q).brier
    copied = evaluate_pairs(np.repeat(p, 10), np.repeat(y, 10), [i for i in q for _ in range(10)]).brier
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_a_predictor_that_never_says_relevant_has_no_precision() -> None:
    """Undefined is nan, not 0 and not a crash; recall and F1 are 0."""
    found = evaluate_pairs([0.1, 0.2, 0.3, 0.1], [1, 0, 1, 0], ["a", "a", "b", "b"])
    assert np.isnan(found.precision.estimate)
    assert (found.recall.estimate, found.f1.estimate) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("p", "y", "q"),
    [
        ([1.1, 0.0], [1, 0], ["a", "b"]),
        ([float("nan"), 0.0], [1, 0], ["a", "b"]),
        ([0.5, 0.5], [2, 0], ["a", "b"]),
        ([0.5], [1, 0], ["a", "b"]),
        ([0.5, 0.5], [1, 0], ["a"]),
        ([0.5, 0.5], [1, 1], ["a", "b"]),
        ([], [], []),
    ],
)
def test_what_is_no_probability_or_no_label_is_refused(p: list[float], y: list[int], q: list[str]) -> None:
    """Outside [0, 1], nan, a graded label, lengths that differ, one class alone, and nothing at all."""
    with pytest.raises(ValueError, match=r"probabilit|label|query id"):
        evaluate_pairs(p, y, q)
