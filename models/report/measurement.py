"""What one evaluation found, whole: the text, the JSON and the page are three views of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.relevance import (
    Comparison,
    Evaluation,
    PairEvaluation,
    Qrels,
    Run,
    Table,
    compare_all,
    evaluate_pairs,
    evaluation_table,
)

HEADLINE = "ndcg@10"
COMPARED = (HEADLINE, "recall@100")
SIGNIFICANT = 0.05
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """Runs over judged queries.

    ``runs`` and ``evaluations`` [r] are aligned: the random order, the legs, and the profile in question, by
    ``profile``. ``note`` says in a clause what the version had seen of the judgements. ``probabilities`` and ``labels``
    [n] are of the judged pairs, and ``pair_queries`` [n] are their queries; out of fold each pair is there ``repeats``
    times, under as many partitions into folds, because one partition alone is a matter of luck.
    """

    version: str
    profile: str
    out_of_fold: bool
    note: str
    texts: Mapping[str, str]
    qrels: Qrels
    runs: tuple[Run, ...]
    evaluations: tuple[Evaluation, ...]
    probabilities: Floats
    labels: Floats
    pair_queries: tuple[str, ...]
    repeats: int = 1

    @property
    def candidate(self) -> Evaluation:
        """The profile's figures."""
        return next(one for one in self.evaluations if one.name == self.profile)

    @property
    def legs(self) -> tuple[Evaluation, ...]:
        """What the profile is held against."""
        return tuple(one for one in self.evaluations[1:] if one.name != self.profile)

    @property
    def better_leg(self) -> Evaluation:
        """The leg that is harder to beat."""
        return max(self.legs, key=lambda leg: leg.mean(HEADLINE))

    @cached_property
    def table(self) -> Table:
        """Every run's figures with their intervals."""
        return evaluation_table(self.evaluations)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The profile against each leg."""
        return tuple(one for leg in self.legs for one in compare_all(leg, [self.candidate], COMPARED))

    @cached_property
    def pairs(self) -> PairEvaluation | None:
        """The probabilities of the judged pairs against their labels; None where those are all alike, as of clicks."""
        if not len(self.labels) or self.labels.min() == self.labels.max():
            return None
        return evaluate_pairs(self.probabilities, self.labels, self.pair_queries)

    @property
    def verdict(self) -> str:
        """The headline: the profile against each leg, by the corrected p of the paired test."""
        made = [one for one in self.comparisons if one.metric == HEADLINE]
        parts = [(what, [one.baseline for one in made if _finding(one) == what]) for what in _FINDINGS]
        told = [f"{what} {' and '.join(legs)}" for what, legs in parts if legs]
        return f"{self.profile} {' and '.join(told)}."


_BETTER, _WORSE, _ALIKE = _FINDINGS = ("ranks better than", "ranks worse than", "cannot be told apart from")


def _finding(one: Comparison) -> str:
    if one.p_holm >= SIGNIFICANT:
        return _ALIKE
    return _BETTER if one.difference.estimate > 0 else _WORSE
