"""Two curves as numbers: precision over recall, and how often a probability comes true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.relevance import Gain, Qrels, Run
from models.relevance.metrics import JudgedRanking
from models.relevance.pointwise import BINS

Floats = NDArray[np.float64]

RECALL: Floats = np.linspace(0.0, 1.0, 101)
_ROUNDING = 1e-12


def precision_recall(qrels: Qrels, run: Run, gain: Gain, *, judged_only: bool = False) -> Floats:
    """Interpolated precision at each level of `RECALL`, the mean over the queries with something relevant, [101].

    At a level it is the highest precision at that recall or beyond, and 0 where the run never gets there (Manning,
    Raghavan and Schütze 2008, 8.4). Raises ValueError if no query has a relevant product.
    """
    curves = []
    for query_id, grades in qrels.items():
        judged = JudgedRanking.of((product for product, _ in run.get(query_id, ())), grades, gain, judged_only)
        if judged.n_relevant:
            curves.append(_interpolated(judged))
    if not curves:
        raise ValueError("no query has a relevant product")
    return np.asarray(np.mean(curves, axis=0), dtype=np.float64)


def _interpolated(ranking: JudgedRanking) -> Floats:
    ranks = np.flatnonzero(ranking.relevant) + 1
    hits = np.arange(1, len(ranks) + 1)
    best = np.maximum.accumulate((hits / ranks)[::-1])[::-1]
    first = np.searchsorted(hits / ranking.n_relevant, RECALL - _ROUNDING)  # the hit that reaches each level
    return np.append(best, 0.0)[first]


@dataclass(frozen=True)
class Bin:
    """The pairs whose probability lies in [low, high), the last bin with its upper end."""

    low: float
    high: float
    pairs: int
    mean_probability: float
    share_relevant: float


def reliability(probabilities: Floats, labels: Floats, bins: int = BINS) -> list[Bin]:
    """The bins of equal width that hold any pair: the very ones over which `calibration_error` sums."""
    which = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    return [
        Bin(
            low=int(b) / bins,
            high=(int(b) + 1) / bins,
            pairs=int(np.count_nonzero(which == b)),
            mean_probability=float(np.mean(probabilities[which == b])),
            share_relevant=float(np.mean(labels[which == b])),
        )
        for b in np.unique(which)
    ]
