"""Figures of what was fitted to the very judgements that measure it: fitted on four fifths, judged on the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.search.rerank import Ranking
from app.search.searcher import Searcher
from models.blend import Examined, fit_ranking, run_of, with_fast
from models.relevance import Gain, Qrels, Run, query_folds

FOLDS = 5
SEED = 0
Rankings = Sequence[tuple[Ranking, tuple[str, ...]]]


def folded(
    examined: Mapping[str, Examined], texts: Mapping[str, str], qrels: Qrels, gain: Gain, seed: int = SEED
) -> list[tuple[Ranking, tuple[str, ...]]]:
    """Per fold: the ranking fitted without its queries, and its queries."""
    folds = query_folds(texts, FOLDS, seed)
    return [(with_fast(fit_ranking(examined, fold.train, qrels, gain)), fold.test) for fold in folds]


def run_over(
    searcher: Searcher,
    examined: Mapping[str, Examined],
    rankings: Rankings,
    name: str,
    *,
    judged_only: bool = False,
) -> Run:
    """The run of a profile, each query under the ranking that is given for it."""
    ranked: dict[str, Any] = {}
    for ranking, query_ids in rankings:
        shape = ranking.profiles[name]
        ranked.update(run_of(searcher, examined, query_ids, shape, name, judged_only=judged_only))
    return Run(ranked, name)
