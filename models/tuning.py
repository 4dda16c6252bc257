"""Fit a version's ranking to a shop's judgements: weights, depth, links; and the evidence that it is worth it.

Nothing is taken on trust: weights are taken over only where they rank better out-of-fold, beyond doubt, than what is
served; a depth is lowered only where nothing is lost that could be told from chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from app.search.features import NAMES
from app.search.rerank import Profile, Ranking
from app.search.searcher import Searcher
from models.blend import FAST, Examined, examine, fit_fast_link, fit_weights, ranking_of, run_of, with_fast
from models.out_of_fold import FOLDS, SEED, folded, run_over
from models.relevance import Comparison, Gain, Qrels, Queries, Run, compare_all, evaluate

DEPTHS = (50, 100, 200, 400)
METRICS = ("ndcg@10", "recall@100")
_WORTH_NOTHING = 0.003
"""Lower bounds above minus this are not worth twice the depth."""


@dataclass(frozen=True)
class Tuned:
    """The ranking to serve (None: nothing to gain) and why. `weights` compares tuned with present weights
    out-of-fold, `depths` each depth with the deepest."""

    ranking: Ranking | None
    moved: dict[str, tuple[float, float]]
    depth: tuple[int, int]
    weights: tuple[Comparison, ...]
    depths: tuple[Comparison, ...]

    def evidence(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {
            "moved": {name: {"from": before, "to": after} for name, (before, after) in self.moved.items()},
            "depth": {"from": self.depth[0], "to": self.depth[1]},
            "out_of_fold": [_figures(one) for one in self.weights],
            "depths": [_figures(one) for one in self.depths],
            "folds": FOLDS,
            "seed": SEED,
        }


def tune(
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels,
    gain: Gain,
    *,
    calibrated: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> Tuned:
    """`calibrated`: the version's links were fitted to these very judgements already. Raises ValueError for judgements
    that teach nothing. `progress` is told of steps done, of len(DEPTHS) + 2."""
    present = searcher.ranking.profiles["default"]
    examined = examine(searcher, queries, qrels)
    fitted = fit_weights(examined, examined, qrels, gain)
    tuned = run_over(searcher, examined, folded(examined, queries, qrels, gain), "default")
    against = _compared(qrels, run_of(searcher, examined, examined, present, "served"), {"tuned": tuned}, gain)
    progress(1)
    better = fitted != present.weights and against[0].difference.low > 0
    weights = fitted if better else present.weights
    depth, depths = _depth(searcher, queries, qrels, gain, replace(present, weights=weights), progress)
    moved = {
        name: (before, after)
        for name, before, after in zip(NAMES, present.weights, weights, strict=True)
        if before != after
    }
    if not moved and depth == present.depth and calibrated:
        return Tuned(None, {}, (depth, depth), against, depths)
    ranking = _deep(ranking_of(weights, examined, examined, gain), depth)
    if FAST in searcher.ranking.profiles:
        kept, searcher.ranking = searcher.ranking, with_fast(ranking)
        try:
            ranking = fit_fast_link(searcher, queries, qrels, gain)
        finally:
            searcher.ranking = kept
    progress(1)
    return Tuned(ranking, moved, (present.depth, depth), against, depths)


def _depth(
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels,
    gain: Gain,
    profile: Profile,
    progress: Callable[[int], None],
) -> tuple[int, tuple[Comparison, ...]]:
    """The least depth that loses nothing against the deepest, on either metric."""
    kept, runs = searcher.ranking, {}
    try:
        for depth in DEPTHS:
            searcher.ranking = Ranking({**kept.profiles, "default": replace(profile, depth=depth)})
            examined: dict[str, Examined] = examine(searcher, queries, qrels)
            runs[f"depth {depth}"] = run_of(searcher, examined, examined, profile, f"depth {depth}")
            progress(1)
    finally:
        searcher.ranking = kept
    deepest = runs.pop(f"depth {DEPTHS[-1]}")
    made = _compared(qrels, deepest, runs, gain)
    for depth in DEPTHS[:-1]:
        own = [one for one in made if one.candidate == f"depth {depth}"]
        if all(one.difference.low >= -_WORTH_NOTHING for one in own):
            return depth, made
    return DEPTHS[-1], made


def _deep(ranking: Ranking, depth: int) -> Ranking:
    return Ranking({name: replace(one, depth=depth) for name, one in ranking.profiles.items()})


def _compared(qrels: Qrels, baseline: Run, candidates: dict[str, Run], gain: Gain) -> tuple[Comparison, ...]:
    base = evaluate(qrels, baseline, metrics=METRICS, gain=gain)
    found = []
    for name, run in candidates.items():
        run.name = name
        found.append(evaluate(qrels, run, metrics=METRICS, gain=gain))
    return tuple(compare_all(base, found, METRICS))


def _figures(one: Comparison) -> dict[str, Any]:
    return {
        "candidate": one.candidate,
        "baseline": one.baseline,
        "metric": one.metric,
        "means": [one.candidate_mean, one.baseline_mean],
        "difference": [one.difference.estimate, one.difference.low, one.difference.high],
        "p": one.p_holm,
    }
