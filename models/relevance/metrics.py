"""How good a run is: one value per query and metric, aligned on query ids, so that two runs can be compared in pairs.

Metrics are named ``ndcg@10``, ``mrr@10``, ``map``, ``map@100``, ``precision@10``, ``recall@100``, ``f1@10`` and
``judged@10``; without ``@k`` the whole ranking counts (precision then divides by its length). A product is relevant
from `Gain.relevant_at` on. Unjudged products count as irrelevant, or are taken out of the ranking first
(``judged_only``). Queries without a relevant product can only score 0 for everybody: they are left out of every metric,
and listed.

nDCG: Järvelin and Kekäläinen 2002, with the exponential gain of Burges et al. 2005. Average precision as in trec_eval:
divided by the number of relevant products, also with a cut-off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.relevance.judgements import Qrels
from models.relevance.run import Run

Floats = NDArray[np.float64]

DEFAULT_METRICS = ("ndcg@10", "mrr@10", "map", "precision@10", "recall@10", "f1@10", "recall@100")


@dataclass(frozen=True)
class Gain:
    """What a grade is worth: 2^(grade - shift) - 1 or grade - shift, at least 0; relevant from ``relevant_at`` on."""

    kind: Literal["exp", "linear"] = "exp"
    shift: float = 0.0
    relevant_at: float = 2.0

    def __post_init__(self) -> None:
        """Raises ValueError on an unknown kind, or if a product could be relevant and yet worth nothing."""
        if self.kind not in ("exp", "linear"):
            raise ValueError(f"gain kind must be 'exp' or 'linear', not {self.kind!r}")
        if not self.relevant_at > max(self.shift, 0.0):
            raise ValueError(f"relevant_at {self.relevant_at} must be above 0 and above the shift {self.shift}")

    def of(self, grades: Floats) -> Floats:
        """Gains of grades, shape kept."""
        above = np.maximum(grades - self.shift, 0.0)
        return np.asarray(np.exp2(above) - 1.0 if self.kind == "exp" else above, dtype=np.float64)


@dataclass(frozen=True)
class JudgedRanking:
    """One query's ranking seen through its judgements, in ranking order; ``ideal`` are the gains of the best order."""

    gains: Floats
    relevant: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    ideal: Floats
    n_relevant: int

    @classmethod
    def of(
        cls, product_ids: Iterable[str], grades: Mapping[str, float], gain: Gain, judged_only: bool
    ) -> JudgedRanking:
        """Judge a ranking; unjudged products get gain 0, or are dropped."""
        ids = [i for i in product_ids if i in grades] if judged_only else list(product_ids)
        judged = np.array([i in grades for i in ids], dtype=np.bool_)
        ranked = np.array([grades.get(i, 0.0) for i in ids], dtype=np.float64)
        everything = np.fromiter(grades.values(), dtype=np.float64, count=len(grades))
        return cls(
            gains=np.where(judged, gain.of(ranked), 0.0),  # a negative shift must not pay for the unjudged
            relevant=judged & (ranked >= gain.relevant_at),
            judged=judged,
            ideal=np.sort(gain.of(everything))[::-1],
            n_relevant=int(np.count_nonzero(everything >= gain.relevant_at)),
        )


def _dcg(gains: Floats) -> float:
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))


def ndcg(ranking: JudgedRanking, k: int | None) -> float:
    """Discounted gain of the first k over that of the best k judged products."""
    return _dcg(ranking.gains[:k]) / _dcg(ranking.ideal[:k])


def reciprocal_rank(ranking: JudgedRanking, k: int | None) -> float:
    """1 / rank of the first relevant product among the first k; 0 if there is none."""
    hits = np.flatnonzero(ranking.relevant[:k])
    return 1.0 / float(hits[0] + 1) if len(hits) else 0.0


def average_precision(ranking: JudgedRanking, k: int | None) -> float:
    """Sum of the precisions at the relevant ranks among the first k, over the number of relevant products."""
    ranks = np.flatnonzero(ranking.relevant[:k]) + 1
    return float(np.sum(np.arange(1, len(ranks) + 1) / ranks)) / ranking.n_relevant


def precision(ranking: JudgedRanking, k: int | None) -> float:
    """Share of relevant products in the first k; a ranking shorter than k is not excused."""
    return float(np.count_nonzero(ranking.relevant[:k])) / (k or max(len(ranking.relevant), 1))


def recall(ranking: JudgedRanking, k: int | None) -> float:
    """Share of the relevant products found in the first k."""
    return float(np.count_nonzero(ranking.relevant[:k])) / ranking.n_relevant


def f1(ranking: JudgedRanking, k: int | None) -> float:
    """Harmonic mean of precision and recall at k; 0 if nothing relevant was found."""
    p, r = precision(ranking, k), recall(ranking, k)
    return 2.0 * p * r / (p + r) if p + r else 0.0


def judged_share(ranking: JudgedRanking, k: int | None) -> float:
    """Share of the first k (or of what there is) that anybody judged: how far the other figures can be trusted."""
    head = ranking.judged[:k]
    return float(np.mean(head)) if len(head) else 0.0


METRICS: Mapping[str, Callable[[JudgedRanking, int | None], float]] = {
    "ndcg": ndcg,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "judged": judged_share,
}


@dataclass(frozen=True)
class Evaluation:
    """One run's values.

    ``values[metric]`` is float64 [n_queries], aligned with ``query_ids`` (sorted). ``without_relevant`` are the judged
    queries left out because nothing is relevant; ``unanswered`` the evaluated ones that the run lacks (they score 0);
    ``unjudged`` counts the run's queries that nobody judged (they are ignored).
    """

    name: str
    query_ids: tuple[str, ...]
    values: Mapping[str, Floats]
    gain: Gain
    judged_only: bool
    without_relevant: tuple[str, ...]
    unanswered: tuple[str, ...]
    unjudged: int

    def mean(self, metric: str) -> float:
        """Mean over the queries. Raises KeyError on a metric that was not evaluated."""
        return float(np.mean(self.values[metric]))

    def restrict(self, query_ids: Iterable[str]) -> Evaluation:
        """The same evaluation over a segment. Raises ValueError if none of the evaluated queries is in it."""
        wanted = set(query_ids)
        kept = [i for i, query_id in enumerate(self.query_ids) if query_id in wanted]
        if not kept:
            raise ValueError("the segment holds none of the evaluated queries")
        return Evaluation(
            name=self.name,
            query_ids=tuple(self.query_ids[i] for i in kept),
            values={metric: values[kept] for metric, values in self.values.items()},
            gain=self.gain,
            judged_only=self.judged_only,
            without_relevant=tuple(q for q in self.without_relevant if q in wanted),
            unanswered=tuple(q for q in self.unanswered if q in wanted),
            unjudged=self.unjudged,
        )


def evaluate(
    qrels: Qrels,
    run: Run,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    gain: Gain | None = None,
    judged_only: bool = False,
) -> Evaluation:
    """Score a run against judgements, query by query.

    Every judged query with something relevant counts, also where the run has no answer (0). Raises ValueError on an
    unknown metric and if no query has a relevant product.
    """
    gain = gain or Gain()
    parsed = {metric: parse_metric(metric) for metric in metrics}
    relevant = {q for q in qrels if any(grade >= gain.relevant_at for grade in qrels[q].values())}
    if not relevant:
        raise ValueError(f"no query has a product of grade {gain.relevant_at:g} or more")
    query_ids = tuple(sorted(relevant))
    rankings = [
        JudgedRanking.of((product_id for product_id, _ in run.get(q, ())), qrels[q], gain, judged_only)
        for q in query_ids
    ]
    return Evaluation(
        name=run.name,
        query_ids=query_ids,
        values={metric: np.array([measure(r, k) for r in rankings]) for metric, (measure, k) in parsed.items()},
        gain=gain,
        judged_only=judged_only,
        without_relevant=tuple(sorted(set(qrels) - relevant)),
        unanswered=tuple(q for q in query_ids if q not in run),
        unjudged=sum(q not in qrels for q in run),
    )


def parse_metric(name: str) -> tuple[Callable[[JudgedRanking, int | None], float], int | None]:
    """``"ndcg@10"`` → (ndcg, 10); ``"map"`` → (average_precision, None). Raises ValueError on an unknown name or
    cut-off.
    """
    kind, at, cutoff = name.partition("@")
    if kind not in METRICS:
        raise ValueError(f"unknown metric {name!r}: one of {', '.join(METRICS)}, with or without @k")
    if not at:
        return METRICS[kind], None
    if not (cutoff.isascii() and cutoff.isdigit()) or int(cutoff) < 1:
        raise ValueError(f"the cut-off of {name!r} must be a whole number of at least 1")
    return METRICS[kind], int(cutoff)
