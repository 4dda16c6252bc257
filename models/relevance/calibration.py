"""From a raw score to the probability of relevance: a logistic link (Platt 1999), fitted on judged pairs.

The link is strictly increasing, so it never reorders a result: only the two numbers ``slope`` and ``intercept`` go into
a bundle. (In float64 it is flat where the probability is within 1e-16 of 0 or 1; order by the raw score.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEAST_SLOPE = 1e-3  # per standard deviation of the raw score: increasing, and all but flat
_L2 = 1e-6
_MAX_STEPS = 100


@dataclass(frozen=True)
class Link:
    """Probability = sigmoid(slope · raw + intercept), slope > 0.

    ``loss`` is the mean log loss, in nats, on the ``n_pairs`` pairs that it was fitted on.
    """

    slope: float
    intercept: float
    loss: float
    n_pairs: int

    def __post_init__(self) -> None:
        """Raises ValueError on a slope that would flatten or turn the order round."""
        if not (np.isfinite(self.slope) and self.slope > 0.0 and np.isfinite(self.intercept)):
            raise ValueError(f"need a positive slope and a finite intercept, not {self.slope} and {self.intercept}")

    def __call__(self, raw: ArrayLike) -> Floats:
        """Probabilities of raw scores, shape kept."""
        return _sigmoid(self.slope * np.asarray(raw, dtype=np.float64) + self.intercept)


def fit_link(raw: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Link:
    """Fit the link on raw scores [n] and labels [n] in [0, 1] by weighted logistic regression (Newton's method).

    A tiny ridge keeps the slope finite where the scores separate the labels. Where the scores do not rise with the
    labels the best increasing link is all but flat, and that is what comes back. Raises ValueError on lengths that
    differ, values that are not finite, labels outside [0, 1], negative weights, or labels that are all 0 or all 1.
    """
    x, y, w = _checked(raw, labels, weights)
    centre = float(np.sum(w * x))
    scale = float(np.sqrt(np.sum(w * (x - centre) ** 2)))
    if scale <= 1e-12 * max(1.0, abs(centre)):
        scale = 1.0  # one score for every pair: the slope is not determined, and the floor is taken
    z = (x - centre) / scale
    slope, intercept = _newton(z, y, w, free_slope=True)
    if slope < LEAST_SLOPE:
        # The loss is convex, so the constrained optimum lies on the bound.
        slope, intercept = _newton(z, y, w, free_slope=False)
    return Link(
        slope=slope / scale,
        intercept=intercept - slope * centre / scale,
        loss=_log_loss(slope * z + intercept, y, w),
        n_pairs=len(x),
    )


def _newton(z: Floats, y: Floats, w: Floats, free_slope: bool) -> tuple[float, float]:
    """Minimise log loss + ridge · slope² over (slope, intercept), or over the intercept at the least slope."""
    design = np.stack([z, np.ones_like(z)], axis=1)
    ridge = np.array([_L2 if free_slope else 0.0, 0.0])
    free = np.array([free_slope, True])
    base = float(np.sum(w * y))
    theta = np.array([0.0 if free_slope else LEAST_SLOPE, np.log(base / (1.0 - base))])

    def objective(at: Floats) -> float:
        return _log_loss(design @ at, y, w) + 0.5 * float(np.sum(ridge * at * at))

    now = objective(theta)
    for _ in range(_MAX_STEPS):
        p = _sigmoid(design @ theta)
        gradient = (design.T @ (w * (p - y)) + ridge * theta)[free]
        if float(np.max(np.abs(gradient))) <= 1e-10:
            break
        curvature = design.T @ (design * (w * p * (1.0 - p))[:, None]) + np.diag(ridge)
        # The trace of damping keeps it solvable where rounding leaves no curvature at all.
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)] + 1e-12 * np.eye(int(free.sum())), gradient)
        while (then := objective(theta - step)) > now and float(np.max(np.abs(step))) > 1e-12:
            step *= 0.5
        if then >= now:
            break  # as low as float64 can tell
        theta, now = theta - step, then
    return float(theta[0]), float(theta[1])


def _log_loss(logits: Floats, y: Floats, w: Floats) -> float:
    return float(np.sum(w * (np.logaddexp(0.0, logits) - y * logits)))


def _sigmoid(logits: Floats) -> Floats:
    # exp of a negative number only: it cannot overflow.
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0.0, 1.0, small) / (1.0 + small), dtype=np.float64)


def _checked(raw: ArrayLike, labels: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    x, y = np.asarray(raw, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or not x.shape == y.shape == w.shape:
        raise ValueError(f"need one score, label and weight per pair, found shapes {x.shape}, {y.shape}, {w.shape}")
    if not (np.all(np.isfinite(x)) and np.all((y >= 0.0) & (y <= 1.0)) and np.all(np.isfinite(w) & (w >= 0.0))):
        raise ValueError("raw scores must be finite, labels in [0, 1], and weights finite and not negative")
    total = float(np.sum(w))
    if not total > 0.0 or not 0.0 < float(np.sum(w * y)) < total:
        raise ValueError("a link needs relevant and irrelevant pairs")
    return x, y, w / total
