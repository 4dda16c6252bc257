"""From a raw score to the probability of relevance: a logistic link (Platt 1999), fitted on judged pairs.

The link is strictly increasing, so it never reorders a result: ``slope`` and ``intercept`` go into a bundle, and the
weights of what is known of the query as a whole, which moves all of its probabilities together. (In float64 it is flat
where the probability is within 1e-16 of 0 or 1; order by the raw score.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEAST_SLOPE = 1e-3  # per standard deviation of the raw score: increasing, and all but flat
_L2 = 1e-6
_L2_COVARIATES = 2e-2
_MAX_STEPS = 100


@dataclass(frozen=True)
class Link:
    """Probability = sigmoid(slope · raw + covariates · weights + intercept), slope > 0.

    ``loss`` is the mean log loss, in nats, on the ``n_pairs`` pairs that it was fitted on.
    """

    slope: float
    intercept: float
    loss: float
    n_pairs: int
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError on a slope that would flatten or turn the order round."""
        if not (np.isfinite(self.slope) and self.slope > 0.0 and np.isfinite([self.intercept, *self.weights]).all()):
            raise ValueError(f"need a positive slope and a finite intercept, not {self.slope} and {self.intercept}")

    def __call__(self, raw: ArrayLike, covariates: ArrayLike | None = None) -> Floats:
        """Probabilities of raw scores, shape kept; `covariates` [..., k] where the link was fitted with some."""
        logits = self.slope * np.asarray(raw, dtype=np.float64) + self.intercept
        if self.weights:
            logits = logits + np.asarray(covariates, dtype=np.float64) @ np.array(self.weights)
        return _sigmoid(logits)


def fit_link(
    raw: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, covariates: ArrayLike | None = None
) -> Link:
    """Fit the link on raw scores [n] and labels [n] in [0, 1] by weighted logistic regression (Newton's method).

    `covariates` [n, k] are further columns, such as what is known of a pair's query, with a ridge that lets a few dozen
    queries say only what they say clearly.

    A tiny ridge keeps the slope finite where the scores separate the labels. Where the scores do not rise with the
    labels the best increasing link is all but flat, and that is what comes back. Raises ValueError on lengths that
    differ, values that are not finite, labels outside [0, 1], negative weights, or labels that are all 0 or all 1.
    """
    x, y, w = _checked(raw, labels, weights)
    centre = float(np.sum(w * x))
    scale = float(np.sqrt(np.sum(w * (x - centre) ** 2)))
    if scale <= 1e-12 * max(1.0, abs(centre)):
        scale = 1.0  # one score for every pair: the slope is not determined, and the floor is taken
    others, means, spreads = _standardised(covariates, w)
    design = np.column_stack([(x - centre) / scale, others, np.ones_like(x)])
    theta = _newton(design, y, w, free_slope=True)
    if theta[0] < LEAST_SLOPE:
        # The loss is convex, so the constrained optimum lies on the bound.
        theta = _newton(design, y, w, free_slope=False)
    slope, of_others = float(theta[0]) / scale, theta[1:-1] / spreads
    return Link(
        slope=slope,
        intercept=float(theta[-1]) - slope * centre - float(of_others @ means),
        loss=_log_loss(design @ theta, y, w),
        n_pairs=len(x),
        weights=tuple(float(weight) for weight in of_others),
    )


def _standardised(covariates: ArrayLike | None, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns of mean 0 and spread 1, and what they were: [n, k], [k], [k]. A constant column comes back as 0."""
    columns = np.zeros((len(w), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    if columns.ndim != 2 or len(columns) != len(w) or not np.isfinite(columns).all():
        raise ValueError(f"need one row of finite covariates per pair, found shape {columns.shape}")
    means = w @ columns
    spreads = np.sqrt(w @ (columns - means) ** 2)
    spreads[spreads <= 1e-12] = np.inf
    return (columns - means) / spreads, means, spreads


def _newton(design: Floats, y: Floats, w: Floats, free_slope: bool) -> Floats:
    """Minimise log loss + ½ Σ ridge · θ² over θ = (slope, covariates' weights, intercept), or at the least slope."""
    ridge = np.full(design.shape[1], _L2_COVARIATES)
    ridge[0], ridge[-1] = _L2 if free_slope else 0.0, 0.0
    free = np.ones(design.shape[1], dtype=np.bool_)
    free[0] = free_slope
    base = float(np.sum(w * y))
    theta = np.zeros(design.shape[1])
    theta[0], theta[-1] = 0.0 if free_slope else LEAST_SLOPE, np.log(base / (1.0 - base))

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
        step = np.zeros(len(theta))
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)] + 1e-12 * np.eye(int(free.sum())), gradient)
        while (then := objective(theta - step)) > now and float(np.max(np.abs(step))) > 1e-12:
            step *= 0.5
        if then >= now:
            break  # as low as float64 can tell
        theta, now = theta - step, then
    return theta


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
