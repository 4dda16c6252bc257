"""How good a predicted probability of relevance is, pair by pair.

A small calibration error alone says little: predicting the base rate for every pair is perfectly calibrated and
useless. So it is always shown beside the Brier skill score, which is 0 for that predictor and 1 for a perfect one
(Brier 1950; Murphy 1973). Pairs of one query are not independent, so the intervals draw whole queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.relevance.compare import RESAMPLES, Interval, bootstrap_statistic

Floats = NDArray[np.float64]

BINS = 15


@dataclass(frozen=True)
class PairEvaluation:
    """Pointwise figures over n_pairs pairs of n_queries queries; those with an interval carry it.

    ``brier`` is the mean squared error of the probabilities; ``ece_width`` and ``ece_mass`` the expected calibration
    error over 15 bins of equal width and of equal mass. ``precision``, ``recall`` and ``f1`` are of the relevant class
    at the threshold.
    """

    n_pairs: int
    n_queries: int
    base_rate: float
    accuracy: Interval
    precision: Interval
    recall: Interval
    f1: Interval
    brier: Interval
    brier_skill: Interval
    ece_width: float
    ece_mass: float


def accuracy(probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> float:
    """Share of pairs whose predicted class (probability ≥ threshold) is their label."""
    p, y = _checked(probabilities, labels)
    return float(np.mean((p >= threshold) == (y == 1.0)))


def mse(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Mean squared error, of grades as of probabilities. Raises ValueError on shapes that differ or are empty."""
    x, t = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.shape != t.shape or x.size == 0:
        raise ValueError(f"need as many predictions as targets, and one at least; found shapes {x.shape} and {t.shape}")
    return float(np.mean((x - t) ** 2))


def brier_skill(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """1 - Brier / Brier of the labels' own base rate; 0 for that constant, nan if all labels are equal."""
    p, y = _checked(probabilities, labels)
    base = float(np.mean(y))
    reference = base * (1.0 - base)
    return 1.0 - mse(p, y) / reference if reference else float("nan")


def calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = BINS, by: Literal["width", "mass"] = "width"
) -> float:
    """Expected calibration error: the mean over pairs of |mean probability - share relevant| of their bin.

    Bins are of equal width over [0, 1] (Naeini et al. 2015), or of equal mass, in which equal probabilities stay
    together. Even a perfect predictor does not reach 0 on a finite sample. Raises ValueError on fewer than 1 bin, a
    probability outside [0, 1], or labels other than 0 and 1.
    """
    p, y = _checked(probabilities, labels)
    if bins < 1:
        raise ValueError(f"need at least one bin, not {bins}")
    if by == "width":
        which = np.minimum((p * bins).astype(np.int64), bins - 1)
    elif by == "mass":
        # The first place of a value among the sorted ones: ties share it, hence a bin, in whatever order they came.
        which = np.searchsorted(np.sort(p), p) * bins // len(p)
    else:
        raise ValueError(f"bins are by 'width' or by 'mass', not {by!r}")
    gaps = np.bincount(which, weights=p - y, minlength=bins)
    return float(np.sum(np.abs(gaps))) / len(p)


def evaluate_pairs(
    probabilities: ArrayLike,
    labels: ArrayLike,
    query_ids: Sequence[str],
    *,
    threshold: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairEvaluation:
    """All pointwise figures of probabilities [n] against labels 0/1 [n], the pairs belonging to ``query_ids`` [n].

    Raises ValueError on lengths that differ, a probability outside [0, 1], or labels other than 0 and 1, or all equal.
    """
    p, y = _checked(probabilities, labels)
    if len(query_ids) != len(p):
        raise ValueError(f"need a query id per pair, found {len(query_ids)} for {len(p)} pairs")
    if y.min() == y.max():
        raise ValueError("all labels are equal: nothing to predict")
    said = (p >= threshold).astype(np.float64)
    per_pair = np.stack([np.ones_like(y), y, said, said * y, (said == y).astype(np.float64), (p - y) ** 2], axis=1)
    names, owner = np.unique(np.asarray(query_ids), return_inverse=True)
    columns = np.zeros((len(names), per_pair.shape[1]))
    np.add.at(columns, owner, per_pair)

    def interval(name: str) -> Interval:
        return bootstrap_statistic(columns, _STATISTICS[name], resamples=resamples, seed=seed)

    return PairEvaluation(
        n_pairs=len(p),
        n_queries=len(names),
        base_rate=float(np.mean(y)),
        accuracy=interval("accuracy"),
        precision=interval("precision"),
        recall=interval("recall"),
        f1=interval("f1"),
        brier=interval("brier"),
        brier_skill=interval("brier_skill"),
        ece_width=calibration_error(p, y, by="width"),
        ece_mass=calibration_error(p, y, by="mass"),
    )


# Each from the sums over pairs: 0 pairs, 1 relevant, 2 predicted relevant, 3 both, 4 right, 5 squared error.
_STATISTICS = {
    "accuracy": lambda s: s[:, 4] / s[:, 0],
    "precision": lambda s: s[:, 3] / s[:, 2],
    "recall": lambda s: s[:, 3] / s[:, 1],
    "f1": lambda s: 2.0 * s[:, 3] / (s[:, 1] + s[:, 2]),
    "brier": lambda s: s[:, 5] / s[:, 0],
    "brier_skill": lambda s: 1.0 - s[:, 5] * s[:, 0] / (s[:, 1] * (s[:, 0] - s[:, 1])),
}


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or len(p) == 0:
        raise ValueError(f"need one probability and one label per pair, found shapes {p.shape} and {y.shape}")
    if not np.all((p >= 0.0) & (p <= 1.0)):  # refuses nan as well
        raise ValueError("probabilities must lie in [0, 1]")
    if not np.all((y == 0.0) | (y == 1.0)):
        raise ValueError("labels must be 0 or 1")
    return p, y
