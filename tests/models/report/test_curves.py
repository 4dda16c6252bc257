"""Curves against values by hand and against the figures that they must agree with."""

from __future__ import annotations

import numpy as np
import pytest

from models.relevance import Gain, Qrels, Run, calibration_error
from models.report.curves import RECALL, precision_recall, reliability


def test_interpolated_precision_is_the_best_at_that_recall_or_beyond() -> None:
    """Hits at ranks 1 and 4 of three relevant: 1 up to a third, 0.5 up to two thirds, then never reached."""
    qrels = Qrels({"q": {"a": 3.0, "b": 3.0, "c": 3.0, "x": 0.0}, "nothing relevant": {"a": 0.0}})
    run = Run.from_order({"q": ["a", "x", "unjudged", "b"]})
    curve = precision_recall(qrels, run, Gain())
    expected = np.where(RECALL <= 1 / 3, 1.0, np.where(RECALL <= 2 / 3, 0.5, 0.0))
    np.testing.assert_allclose(curve, expected)
    only = precision_recall(qrels, run, Gain(), judged_only=True)
    assert only[50] == pytest.approx(2 / 3)


def test_the_curve_is_a_mean_over_queries_and_falls() -> None:
    """An unanswered query counts with 0; a perfect one with 1 throughout, its full recall included."""
    qrels = Qrels({"q1": {"a": 3.0, "b": 2.0}, "q2": {"a": 3.0}})
    np.testing.assert_allclose(precision_recall(qrels, Run.from_order({"q1": ["a", "b"]}), Gain()), 0.5)
    with pytest.raises(ValueError, match="no query has a relevant product"):
        precision_recall(Qrels({"q": {"a": 0.0}}), Run({}), Gain())


def test_the_bins_hold_every_pair_and_sum_to_the_calibration_error() -> None:
    """The diagram draws the very bins of the figure beside it; a probability of 1 is in the last one."""
    rng = np.random.default_rng(0)
    probabilities = np.append(rng.uniform(0, 1, 500), [0.0, 1.0])
    labels = (rng.uniform(0, 1, 502) < probabilities**2).astype(np.float64)
    bins = reliability(probabilities, labels)
    assert sum(one.pairs for one in bins) == 502
    assert all(one.low <= one.mean_probability <= one.high for one in bins)
    gaps = sum(one.pairs * abs(one.mean_probability - one.share_relevant) for one in bins) / 502
    assert gaps == pytest.approx(calibration_error(probabilities, labels))
    assert len(reliability(np.array([0.5]), np.array([1.0]))) == 1
