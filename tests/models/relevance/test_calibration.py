"""The link from raw score to probability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.relevance import Link, brier_skill, calibration_error, fit_link


def _drawn(slope: float, intercept: float, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = rng.normal(3.0, 2.0, size=n)
    return raw, (rng.random(n) < 1 / (1 + np.exp(-(slope * raw + intercept)))).astype(float)


def test_the_link_that_drew_the_labels_is_recovered() -> None:
    """100,000 pairs from slope 0.8 and intercept -2: both come back to within sampling error."""
    raw, labels = _drawn(0.8, -2.0, 100_000)
    link = fit_link(raw, labels)
    assert link.slope == pytest.approx(0.8, abs=0.02)
    assert link.intercept == pytest.approx(-2.0, abs=0.05)
    assert calibration_error(link(raw), labels) < 0.01
    assert brier_skill(link(raw), labels) > 0.2


def test_the_fit_is_the_optimum_of_the_log_loss() -> None:
    """At the optimum the residuals sum to 0, plain and times the score; the loss is that of the definition."""
    raw, labels = _drawn(1.5, 0.3, 2_000, seed=1)
    link = fit_link(raw, labels)
    p = link(raw)
    assert np.mean(p - labels) == pytest.approx(0.0, abs=1e-8)
    assert np.mean((p - labels) * raw) == pytest.approx(0.0, abs=1e-5)  # off by the tiny ridge
    assert link.loss == pytest.approx(-np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p)))
    assert link.n_pairs == 2_000


def test_a_weight_counts_as_copies() -> None:
    """Weight 3 is the pair three times."""
    raw, labels = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0, 1.0])
    weighted = fit_link(raw, labels, [1, 3, 1, 2])
    copied = fit_link([0, 1, 1, 1, 2, 3, 3], [0, 1, 1, 1, 0, 1, 1])
    assert (weighted.slope, weighted.intercept) == pytest.approx((copied.slope, copied.intercept), rel=1e-6)


def test_the_scale_of_the_raw_score_does_not_matter() -> None:
    """Shifted and stretched scores give the same probabilities."""
    raw, labels = _drawn(0.8, -2.0, 500)
    for stretched in (raw * 1e-6, raw * 1e6 - 5e6):
        np.testing.assert_allclose(fit_link(stretched, labels)(stretched), fit_link(raw, labels)(raw), atol=1e-6)


def test_scores_that_fall_with_the_labels_still_get_an_increasing_link() -> None:
    """The best increasing link is then all but flat, at the base rate: it cannot reorder, and it has no skill."""
    raw, labels = _drawn(-1.0, 3.0, 2_000)
    link = fit_link(raw, labels)
    assert link.slope > 0
    assert link(raw) == pytest.approx(np.full(2_000, labels.mean()), abs=0.01)
    assert brier_skill(link(raw), labels) == pytest.approx(0.0, abs=0.01)


def test_one_score_for_every_pair_gives_the_base_rate() -> None:
    """There is nothing to tell the pairs apart by."""
    assert fit_link([2.0, 2.0, 2.0, 2.0], [1, 0, 0, 0])(2.0) == pytest.approx(0.25, abs=1e-6)


def test_scores_that_separate_the_labels_give_a_finite_link() -> None:
    """Without the ridge the slope would run away."""
    link = fit_link([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
    assert np.isfinite(link.slope)
    p = link([1.0, 2.0, 2.5, 3.0, 4.0])
    assert p[1] < 0.05
    assert p[3] > 0.95
    assert p[2] == pytest.approx(0.5, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=4, max_size=40), st.floats(-5, 5))
def test_the_link_never_turns_an_order_round(pairs: list[tuple[float, bool]], extra: float) -> None:
    """Whatever it was fitted on, a higher raw score is never a lower probability."""
    labels = [float(label) for _, label in pairs]
    assume(len(set(labels)) == 2)
    raw = np.array([score for score, _ in pairs])
    link = fit_link(raw, labels)
    ordered = np.sort(np.append(raw, extra))
    assert link.slope > 0
    assert np.all(np.diff(link(ordered)) >= 0)


def test_extreme_scores_do_not_overflow() -> None:
    """The probability saturates quietly."""
    with np.errstate(all="raise", under="ignore"):
        assert Link(1.0, 0.0, 0.0, 1)([-1e6, 0.0, 1e6]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("raw", "labels", "weights"),
    [
        ([1.0, 2.0], [1, 1], None),
        ([1.0, 2.0], [0, 0], None),
        ([1.0, float("nan")], [0, 1], None),
        ([1.0, 2.0], [0, 2], None),
        ([1.0, 2.0], [0, 1], [1, -1]),
        ([1.0, 2.0], [0, 1], [1, 0]),
        ([1.0], [0, 1], None),
        ([], [], None),
    ],
)
def test_pairs_that_determine_no_link_are_refused(
    raw: list[float], labels: list[float], weights: list[float] | None
) -> None:
    """One class alone, also by weight, or values that are none."""
    with pytest.raises(ValueError, match=r"relevant|finite|shapes"):
        fit_link(raw, labels, weights)


def test_a_link_that_is_not_increasing_cannot_be_made() -> None:
    """Neither read from a bundle nor by hand."""
    for slope in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive slope"):
            Link(slope, 0.0, 0.0, 1)
