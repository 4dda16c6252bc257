"""Tune the served ranking to judgements: how deep the legs look, from which dense score on, the weights, the links.

One thing is moved at a time and only for a gain beyond doubt (coordinate ascent: Metzler and Croft 2007). What the
whole procedure is worth is measured out-of-fold: it runs again on four fifths of the queries and is judged on the rest,
and that is compared, paired, with what is served. So a lucky choice on the way shows as no gain at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.search.features import NAMES
from app.search.rerank import Profile, Ranking
from app.search.searcher import Searcher
from models.blend import (
    FAST,
    Examined,
    examine,
    fit_fast_link,
    fit_profile_link,
    fit_ranking,
    fit_weights,
    run_of,
    with_fast,
)
from models.out_of_fold import FOLDS, SEED
from models.relevance import Comparison, Gain, Qrels, Queries, Run, compare_all, evaluate, query_folds

METRICS = ("ndcg@10", "recall@100")
DEPTHS = (100, 200, 400)  # less, and a page that may be asked for would lie beyond the result set
FLOOR_STEPS = (-0.1, -0.05, 0.05, 0.1)
_DOUBT = 3.0  # standard errors of a paired difference: a move of the reach must gain more
_LOSS = 2.0  # and may not lose as much as this of the other metric
_MARGIN = 0.005  # a shallower search must not lose more than this of either metric at its lower bound
_LEVEL = 0.05
Numbers = npt.NDArray[np.float64]
Values = Mapping[str, Mapping[str, float]]


class Reach(NamedTuple):
    """What a profile's legs may bring: products a leg, and the least dense score."""

    depth: int
    floor: float


@dataclass(frozen=True, slots=True)
class Move:
    """One number of the default profile that tuning changed."""

    what: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The ranking fitted to all the queries, and the out-of-fold evidence for it: tuned − present, by METRICS."""

    ranking: Ranking
    moves: tuple[Move, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def better(self) -> bool:
        """Something moved, one metric gains beyond doubt (paired, Holm-corrected) and none loses so."""
        gained = any(one.p_holm < _LEVEL and one.difference.low > 0 for one in self.comparisons)
        return bool(self.moves) and gained and all(one.difference.high >= 0 for one in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        return {
            "better": self.better,
            "moves": [asdict(move) for move in self.moves],
            "comparisons": [asdict(one) for one in self.comparisons],
            "folds": FOLDS,
            "seed": SEED,
        }


def tune(
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels,
    gain: Gain,
    *,
    fitted: bool,
    judged_only: bool = False,
    tick: Callable[[int], None] = lambda _: None,
) -> Tuned:
    """Tune on all the judged queries, and on each four fifths of them for the evidence; `tick` gets 1 for each of the
    FOLDS + 1 times. `fitted` says that the served ranking was fitted to these very judgements: then it, too, is held
    against them out-of-fold, fitted again at its own reach.

    Raises ValueError for too few queries for the folds, and for judgements that teach nothing (`fit_profile_link`)."""
    shop = _Shop(searcher, queries, qrels, gain, judged_only=judged_only)
    present = searcher.ranking.profiles["default"]
    before, after = {}, {}
    for fold in query_folds(queries, FOLDS, SEED):
        old = shop.fitted(shop.present, fold.train) if fitted else searcher.ranking
        before.update(shop.ranked(old.profiles["default"], fold.test))
        after.update(shop.ranked(shop.tuned(fold.train).profiles["default"], fold.test))
        tick(1)
    judged = [
        evaluate(qrels, Run(ranked, name), metrics=METRICS, gain=gain, judged_only=judged_only)
        for name, ranked in (("present", before), ("tuned", after))
    ]
    ranking = shop.tuned(tuple(queries))
    if FAST in searcher.ranking.profiles:
        ranking = fit_fast_link(_with(searcher, with_fast(ranking)), queries, qrels, gain)
    tick(1)
    whole = Ranking({**searcher.ranking.profiles, **ranking.profiles})
    moves = _moves(present, whole.profiles["default"])
    return Tuned(whole, tuple(moves), tuple(compare_all(judged[0], [judged[1]], METRICS, seed=SEED)))


class _Shop:
    """The judged queries as the searcher retrieves them, at any reach; each reach is retrieved once."""

    def __init__(self, searcher: Searcher, queries: Queries, qrels: Qrels, gain: Gain, *, judged_only: bool) -> None:
        default = searcher.ranking.profiles["default"]
        self.present = Reach(default.depth, default.floor)
        self._searcher, self._queries, self._qrels, self._gain = searcher, queries, qrels, gain
        self._judged_only = judged_only
        self._examined: dict[Reach, dict[str, Examined]] = {}
        self._values: dict[tuple[Reach, tuple[float, ...]], Values] = {}

    def ranked(self, profile: Profile, query_ids: Iterable[str]) -> dict[str, list[tuple[str, float]]]:
        """What the profile answers, by query."""
        run = run_of(self._searcher, self._at(Reach(profile.depth, profile.floor)), query_ids, profile, profile.name)
        return {query_id: list(ranked) for query_id, ranked in run.items()}

    def fitted(self, reach: Reach, query_ids: Sequence[str]) -> Ranking:
        """Weights and links from the given queries alone. Only the default profile takes the reach: a leg that answers
        by itself, as the words do when the encoder fails, has nobody to make up for what it no longer brings."""
        profiles = dict(fit_ranking(self._at(reach), query_ids, self._qrels, self._gain).profiles)
        for name, one in profiles.items():
            if name == "default":
                profiles[name] = replace(one, depth=reach.depth, floor=reach.floor)
                continue
            old = self._searcher.ranking.profiles.get(name, one)
            kept = replace(one, depth=old.depth, floor=old.floor)
            own = self._at(Reach(old.depth, old.floor))
            profiles[name] = replace(kept, link=fit_profile_link(own, query_ids, kept, self._gain))
        return Ranking(profiles)

    def tuned(self, query_ids: Sequence[str]) -> Ranking:
        """The whole procedure on the given queries: weights, floor, depth, then weights and links where that ends."""
        weights = fit_weights(self._at(self.present), query_ids, self._qrels, self._gain)
        reach = self.present
        reach = self._best(
            reach, [Reach(reach.depth, round(reach.floor + by, 6)) for by in FLOOR_STEPS], weights, query_ids
        )
        reach = self._best(reach, [Reach(depth, reach.floor) for depth in DEPTHS], weights, query_ids)
        for depth in DEPTHS:
            if depth < reach.depth and self._costs_nothing(Reach(depth, reach.floor), reach, weights, query_ids):
                reach = Reach(depth, reach.floor)
                break
        return self.fitted(reach, query_ids)

    def _best(
        self, present: Reach, others: Iterable[Reach], weights: tuple[float, ...], query_ids: Sequence[str]
    ) -> Reach:
        """Of the reaches that are better than the present one beyond doubt, the one that gains most; else this one."""
        gains = {}
        for reach in others:
            differences = self._differences(reach, present, weights, query_ids)
            if any(_gained(one) for one in differences) and not any(_gained(-one, _LOSS) for one in differences):
                gains[reach] = sum(float(one.mean()) for one in differences)
        return max(gains, key=gains.__getitem__) if gains else present

    def _costs_nothing(
        self, reach: Reach, present: Reach, weights: tuple[float, ...], query_ids: Sequence[str]
    ) -> bool:
        """No metric loses significantly, nor could it lose more than the margin: few queries prove no saving."""
        return all(
            len(one) > 1 and not _gained(-one, _LOSS) and one.mean() - _LOSS * _error(one) >= -_MARGIN
            for one in self._differences(reach, present, weights, query_ids)
        )

    def _differences(
        self, reach: Reach, present: Reach, weights: tuple[float, ...], query_ids: Sequence[str]
    ) -> list[Numbers]:
        """Per metric, reach − present over the queries that something is relevant for."""
        new, old = self._measured(reach, weights), self._measured(present, weights)
        return [
            np.array([new[metric][one] - old[metric][one] for one in query_ids if one in new[metric]])
            for metric in METRICS
        ]

    def _measured(self, reach: Reach, weights: tuple[float, ...]) -> Values:
        """By metric and query."""
        known = self._values.get((reach, weights))
        if known is None:
            default = self._searcher.ranking.profiles["default"]
            profile = replace(default, depth=reach.depth, floor=reach.floor, weights=weights)
            run = Run(self.ranked(profile, self._queries), "default")
            found = evaluate(self._qrels, run, metrics=METRICS, gain=self._gain, judged_only=self._judged_only)
            known = {
                metric: dict(zip(found.query_ids, values.tolist(), strict=True))
                for metric, values in found.values.items()
            }
            self._values[reach, weights] = known
        return known

    def _at(self, reach: Reach) -> dict[str, Examined]:
        examined = self._examined.get(reach)
        if examined is None:
            profiles = self._searcher.ranking.profiles
            default = replace(profiles["default"], depth=reach.depth, floor=reach.floor)
            searcher = _with(self._searcher, Ranking({**profiles, "default": default}))
            examined = self._examined[reach] = examine(searcher, self._queries, self._qrels)
        return examined


def _with(searcher: Searcher, ranking: Ranking) -> Searcher:
    """The same version under another ranking."""
    other = copy(searcher)
    other.ranking = ranking
    return other


def _gained(difference: Numbers, doubt: float = _DOUBT) -> bool:
    """Whether the mean is further above 0 than `doubt` of its standard errors."""
    return len(difference) > 1 and bool(difference.mean() > doubt * _error(difference))


def _error(difference: Numbers) -> float:
    return float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _moves(present: Profile, tuned: Profile) -> list[Move]:
    pairs = [
        ("depth", present.depth, tuned.depth),
        ("floor", present.floor, tuned.floor),
        *zip(NAMES, present.weights, tuned.weights, strict=True),
    ]
    return [Move(what, float(old), float(new)) for what, old, new in pairs if old != new]
