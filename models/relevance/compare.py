"""Is one run better than another, and how sure are we? Intervals and paired tests over queries.

Queries differ far more than rankers do, so two runs are only ever compared query by query: the paired randomisation
(sign-flip) test (Fisher 1935; for retrieval Smucker, Allan and Carterette 2007) for the p-value, and the percentile
bootstrap over queries (Efron 1979; Sakai 2006) for the interval. Several comparisons at once are corrected after Holm
1979. All of it is seeded and repeatable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.relevance.metrics import Evaluation

Floats = NDArray[np.float64]

RESAMPLES = 10_000
PERMUTATIONS = 100_000
EXACT_UP_TO = 16  # 2^16 sign patterns are fewer than the permutations we would draw
TIE = 1e-12  # below this a difference is rounding of the same value
_CHUNK_CELLS = 2_000_000  # rows drawn at a time x queries: bounds the memory at about 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval (95 % unless asked otherwise)."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A candidate against a baseline on one metric; every difference is candidate - baseline.

    ``p`` is two-sided; ``p_holm`` is ``p`` corrected for the other comparisons made together with it.
    """

    baseline: str
    candidate: str
    metric: str
    n_queries: int
    baseline_mean: float
    candidate_mean: float
    difference: Interval
    p: float
    p_holm: float
    wins: int
    ties: int
    losses: int


def bootstrap_interval(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the (weighted) mean of per-query values, shape [n_queries].

    With ``weights`` (say, pairs per query) the mean over pairs is estimated, yet whole queries are drawn, since the
    pairs of a query stand or fall together. Raises ValueError on no values, on shapes that differ, or if the weights
    are negative or all 0.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0 or x.shape != w.shape:
        raise ValueError(f"need one value and one weight per query, found shapes {x.shape} and {w.shape}")
    if np.any(w < 0) or not np.any(w > 0):
        raise ValueError("weights must not be negative, and not all 0")
    columns = np.stack([x * w, w], axis=1)
    return bootstrap_statistic(
        columns, lambda sums: sums[:, 0] / sums[:, 1], resamples=resamples, level=level, seed=seed
    )


def bootstrap_statistic(
    columns: Floats,
    statistic: Callable[[Floats], Floats],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of any statistic that is a function of sums over queries.

    ``columns`` is [n_queries, c]; ``statistic`` maps sums [m, c] to values [m]. A resample in which it is not defined
    (nan, say the F1 where nothing was predicted) is left out. Raises ValueError on a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    rng = np.random.default_rng(seed)
    n = len(columns)
    drawn = np.concatenate([_query_counts(rng, rows, n) @ columns for rows in _chunks(resamples, n)])
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = float(statistic(columns.sum(axis=0, keepdims=True))[0])
        values = statistic(drawn)
    tail = (1.0 - level) / 2.0
    defined = values[np.isfinite(values)]
    if not len(defined):
        return Interval(estimate, float("nan"), float("nan"))
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(estimate, float(low), float(high))


def randomisation_p(differences: ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Two-sided p of the paired randomisation test on per-query differences, shape [n_queries].

    If neither ranker is better, each difference is as likely with the other sign. Exact over all sign patterns for up
    to 16 queries that differ at all; beyond that ``(1 + extreme) / (1 + permutations)``, which is never 0 (Phipson and
    Smyth 2010).
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[np.abs(d) > TIE]  # flipping the sign of no difference changes nothing
    n = len(d)
    if n == 0:
        return 1.0
    observed = abs(d.sum()) - TIE * np.abs(d).sum()
    if n <= EXACT_UP_TO:
        patterns = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(_flipped(patterns, d) >= observed))
    rng = np.random.default_rng(seed)
    extreme = sum(int(np.sum(_flipped(_bits(rng, rows, n), d) >= observed)) for rows in _chunks(permutations, n))
    return (1 + extreme) / (1 + permutations)


def compare(
    baseline: Evaluation,
    candidate: Evaluation,
    metric: str,
    *,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations in pairs. Raises ValueError unless queries, gain and judged_only are the same."""
    if baseline.query_ids != candidate.query_ids:
        raise ValueError(f"{baseline.name!r} and {candidate.name!r} were evaluated on different queries")
    if (baseline.gain, baseline.judged_only) != (candidate.gain, candidate.judged_only):
        raise ValueError(f"{baseline.name!r} and {candidate.name!r} were evaluated by different rules")
    d = candidate.values[metric] - baseline.values[metric]
    p = randomisation_p(d, permutations=permutations, seed=seed)
    wins, losses = int(np.sum(d > TIE)), int(np.sum(d < -TIE))
    return Comparison(
        baseline=baseline.name,
        candidate=candidate.name,
        metric=metric,
        n_queries=len(d),
        baseline_mean=baseline.mean(metric),
        candidate_mean=candidate.mean(metric),
        difference=bootstrap_interval(d, resamples=resamples, seed=seed),
        p=p,
        p_holm=p,
        wins=wins,
        ties=len(d) - wins - losses,
        losses=losses,
    )


def compare_all(
    baseline: Evaluation,
    candidates: Sequence[Evaluation],
    metrics: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Every candidate against one baseline on every metric, the p-values corrected together after Holm."""
    made = [
        compare(baseline, candidate, metric, permutations=permutations, resamples=resamples, seed=seed)
        for candidate in candidates
        for metric in metrics
    ]
    adjusted = holm([comparison.p for comparison in made])
    return [replace(comparison, p_holm=float(p)) for comparison, p in zip(made, adjusted, strict=True)]


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down correction: adjusted p-values, shape [m], in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def intervals(evaluation: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0) -> Mapping[str, Interval]:
    """Each metric's mean with its bootstrap interval over queries."""
    return {
        metric: bootstrap_interval(values, resamples=resamples, seed=seed)
        for metric, values in evaluation.values.items()
    }


def _chunks(total: int, width: int) -> Iterator[int]:
    """Row counts that sum to ``total``, each small enough that rows x width stays within bounds."""
    size = max(1, _CHUNK_CELLS // max(width, 1))
    for start in range(0, total, size):
        yield min(size, total - start)


def _query_counts(rng: np.random.Generator, rows: int, n: int) -> Floats:
    """How often each of n queries was drawn in each of ``rows`` resamples, [rows, n]."""
    drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _bits(rng: np.random.Generator, rows: int, n: int) -> NDArray[np.uint8]:
    """Fair coin flips, [rows, n]; eight from each random byte."""
    return np.unpackbits(rng.integers(256, size=(rows, (n + 7) // 8), dtype=np.uint8), axis=1, count=n)


def _flipped(patterns: NDArray[np.integer], d: Floats) -> Floats:
    """|Σ ±d| under each sign pattern of 0 and 1, [rows]."""
    return np.asarray(np.abs(2.0 * (patterns.astype(np.float64) @ d) - d.sum()), dtype=np.float64)
