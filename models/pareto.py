"""What a search takes and what it finds, at each breadth of the dense index and each depth of the legs.

Quality is measured at every setting; it is the same at any time of day. Latency is not: the settings take turns, query
by query and in an order drawn anew for each, so that whatever else the machine does meets all of them alike. Whoever is
dominated by many after two rounds, or four, is measured no further (successive halving: Jamieson and Talwalkar
2016), at most half of them each time.

The front is over the p50, which noise moves least; the goal is for the p99.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.index.dense import EF_SEARCH, NPROBE, FaissIndex
from app.index.lexical import LexicalQuery
from app.search import retrieve
from app.search.fuse import choose
from app.search.job import SearchJob
from app.search.rerank import Ranking
from app.search.searcher import Searcher
from app.types import Floats, Rows, SearchRequest
from models.blend import FAST
from models.relevance import Gain, Interval, Qrels, Run, evaluate
from models.tuning import DEPTHS

BREADTHS = {NPROBE: (16, 32, 64, 128, 208, 320, 512), EF_SEARCH: (64, 128, 256, 512, 1024)}
FOUND, KEPT, NDCG, RECALL = "dense recall@100", "top ten kept", "ndcg@10", "recall@100"
"""Shares of the exact scan's 100 nearest that the dense leg brings, and of the unrestricted search's top ten that are
still there; and the judged metrics."""
ROUNDS = 8
PREFERENCES = ("quality", "speed")
_TOP, _NEAREST = 10, 100
_RESAMPLES = 500
_DOUBT = 2.0  # standard errors of a paired difference
_MARGIN = 0.005  # what cannot be told apart from the best may not lose more of its mean either
Numbers = npt.NDArray[np.float64]


class Setting(NamedTuple):
    """Products a leg may bring; lists or nodes that an unfiltered search reads (0: the index has no such number)."""

    depth: int
    breadth: int


@dataclass(frozen=True)
class Point:
    """One setting: its measures, each per query [queries], and milliseconds of searches [rounds, queries]."""

    setting: Setting
    quality: Mapping[str, Numbers]
    times: Numbers

    @property
    def decisive(self) -> str:
        """The measure that counts: judgements where there are any."""
        return NDCG if NDCG in self.quality else KEPT

    def mean(self, measure: str) -> float:
        return float(self.quality[measure].mean())

    @property
    def p50(self) -> float:
        return float(np.percentile(self.times, 50))

    @property
    def p99(self) -> float:
        return float(np.percentile(self.times, 99))

    def p99_interval(self) -> Interval:
        """95 % bootstrap interval over queries, each with all its rounds."""
        random = np.random.default_rng(0)
        queries = self.times.shape[1]
        drawn = [np.percentile(self.times[:, random.integers(queries, size=queries)], 99) for _ in range(_RESAMPLES)]
        return Interval(self.p99, *np.percentile(drawn, (2.5, 97.5)).tolist())

    def dominates(self, other: Point) -> bool:
        """As quick and as good, and better in one of the two: the p50, and both the dense leg's recall and the decisive
        measure."""
        own = (-self.p50, self.mean(FOUND), self.mean(self.decisive))
        its = (-other.p50, other.mean(FOUND), other.mean(other.decisive))
        return all(a >= b for a, b in zip(own, its, strict=True)) and own != its


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a setting must keep to: p99 in milliseconds at most; of the exact 100 nearest, and of the best nDCG@10 that
    any setting has, at least such shares (None: any nDCG)."""

    p99_ms: float
    recall: float
    ndcg: float | None = None

    def missed(self, point: Point, points: Iterable[Point]) -> dict[str, float]:
        """By how much of each bound the point misses it, where it does: 0.5 of the goal is half as much again."""
        wanted = {"p99": (point.p99, self.p99_ms, 1.0), FOUND: (point.mean(FOUND), self.recall, -1.0)}
        if self.ndcg is not None:
            wanted[NDCG] = (point.mean(NDCG), self.ndcg * max(one.mean(NDCG) for one in points), -1.0)
        off = {name: sign * (value - bound) / bound for name, (value, bound, sign) in wanted.items() if bound}
        return {name: by for name, by in off.items() if by > 0}


def index_of(searcher: Searcher) -> FaissIndex:
    """The version's dense index. Raises ValueError for a searcher over several, as changes make it."""
    if not isinstance(searcher.vectors, FaissIndex):
        raise ValueError("only a version as it was built can be tuned")
    return searcher.vectors


def present(searcher: Searcher) -> Setting:
    """The setting that the version has."""
    depth = searcher.ranking.profiles["default"].depth
    return Setting(depth, index_of(searcher).reads(depth))


def settings_of(searcher: Searcher, depths: Sequence[int] = (), breadths: Sequence[int] = ()) -> tuple[Setting, ...]:
    """The present setting and all combinations of the depths and breadths (default: DEPTHS and BREADTHS). Two numbers
    that come to the same reading, as those do that are less than a depth needs, are one."""
    index = index_of(searcher)
    found = {present(searcher)}
    for depth in depths or DEPTHS:
        if index.parameter is None:
            found.add(Setting(depth, 0))
        else:
            found |= {Setting(depth, index.read_to(one).reads(depth)) for one in breadths or BREADTHS[index.parameter]}
    return tuple(sorted(found))


def at(searcher: Searcher, setting: Setting) -> Searcher:
    """The version under a setting. The depth is that of the default profile and of the tier that stands in for it; legs
    that answer alone have nobody to make up for what they no longer bring, and keep theirs."""
    other = copy(searcher)
    other.ranking = Ranking(
        {
            name: replace(one, depth=setting.depth) if name in ("default", FAST) else one
            for name, one in searcher.ranking.profiles.items()
        }
    )
    if setting.breadth:
        other.vectors = index_of(searcher).read_to(setting.breadth)
    return other


def qualities(
    searcher: Searcher,
    settings: Sequence[Setting],
    texts: Mapping[str, str],
    qrels: Qrels | None,
    gain: Gain,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[Setting, dict[str, Numbers]]:
    """By setting and measure, each per query [queries]; NDCG and RECALL with `qrels`, over the queries that something
    is relevant for. `tick` gets 1 for each query.

    Raises ValueError where the default profile does not use the dense leg, and EncoderUnavailable."""
    if not searcher.ranking.profiles["default"].uses_dense:
        raise ValueError("the default profile ranks by words alone")
    versions = {setting: at(searcher, setting) for setting in settings}
    deepest = max(_NEAREST, *(setting.depth for setting in settings))
    exact = index_of(searcher).exact()
    found: dict[Setting, dict[str, list[float]]] = {one: {FOUND: [], KEPT: []} for one in settings}
    ranked: dict[Setting, dict[str, list[str]]] = {one: {} for one in settings}
    for query_id, text in texts.items():
        query = searcher.query(SearchRequest(text))
        words = searcher.words.parse(query.text or "")
        vector = searcher.query_vectors([query.text or ""], query.profile)[0]
        nearest = exact.search(vector, deepest, None)
        whole = at(searcher, Setting(deepest, 0))
        top = set(_ranked(whole, words, vector, *nearest)[:_TOP].tolist())
        scores = nearest[1][:_NEAREST]
        for setting, version in versions.items():
            near = version.vectors.search(vector, setting.depth, None)
            rows = _ranked(version, words, vector, *near)
            # Of products that score alike (one text, many sizes) any will do.
            held = int(np.count_nonzero(near[1][:_NEAREST] >= scores[-1])) if len(scores) else 0
            found[setting][FOUND].append(held / len(scores) if len(scores) else 1.0)
            found[setting][KEPT].append(len(top & set(rows[:_TOP].tolist())) / len(top) if top else 1.0)
            ranked[setting][query_id] = [searcher.catalog.id(int(row)) for row in rows[:_NEAREST]]
        tick(1)
    measured = {one: {name: np.array(values) for name, values in found[one].items()} for one in settings}
    if qrels is not None:
        for setting in settings:
            run = Run.from_order(ranked[setting])
            measured[setting] |= dict(evaluate(qrels, run, metrics=(NDCG, RECALL), gain=gain).values)
    return measured


def _ranked(searcher: Searcher, words: LexicalQuery, vector: Floats, rows: Rows, scores: Floats) -> Rows:
    """The order that the default profile gives the legs' candidates, the dense leg's being given."""
    profile = searcher.ranking.profiles["default"]
    kept = int(np.count_nonzero(scores >= profile.floor))
    near = retrieve.DenseHits(rows[:kept], scores[:kept], cut=kept == profile.depth)
    met = retrieve.NO_LEXICAL_HITS
    if profile.uses_words:
        met = retrieve.lexical(searcher.words, words, profile.depth, None)
    return searcher.rank(choose(met, near).rows, words, vector, profile).rows


def race(
    searcher: Searcher,
    measured: Mapping[Setting, Mapping[str, Numbers]],
    texts: Sequence[str],
    rounds: int = ROUNDS,
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[Point, ...]:
    """Time the settings: whole searches, uncached, one at a time (no socket, no queue). `tick` gets 1 for each round.
    The present setting stays to the end."""
    versions = {setting: at(searcher, setting) for setting in measured}
    times: dict[Setting, list[list[float]]] = {setting: [] for setting in measured}
    racing = list(measured)
    random = np.random.default_rng(0)
    for text in texts:
        for setting in racing:  # warm, so that none of them meets a text or a page for the first time
            _search(versions[setting], text)
    for round_ in range(1, rounds + 1):
        taken: dict[Setting, list[float]] = {setting: [] for setting in racing}
        for text in texts:
            for number in random.permutation(len(racing)):
                taken[racing[number]].append(_search(versions[racing[number]], text))
        for setting, spent in taken.items():
            times[setting].append(spent)
        if 1 < round_ < rounds and round_ & (round_ - 1) == 0:
            points = [Point(setting, measured[setting], np.array(times[setting])) for setting in racing]
            racing = [one.setting for one in halved(points, present(searcher))]
        tick(1)
    return tuple(Point(setting, measured[setting], np.array(times[setting])) for setting in measured)


def _search(searcher: Searcher, text: str) -> float:
    """Milliseconds."""
    started = perf_counter()
    job = SearchJob(searcher, searcher.query(SearchRequest(text)), started)
    searcher.search([job])
    if job.error is not None:
        raise job.error
    return (perf_counter() - started) * 1e3


def halved(points: Sequence[Point], kept: Setting) -> list[Point]:
    """Without those that most others dominate: at most half, none that nobody does, nor the `kept` setting."""
    beaten = {one.setting: sum(other.dominates(one) for other in points) for one in points}
    worst = sorted((one for one in points if one.setting != kept), key=lambda one: -beaten[one.setting])
    out = {one.setting for one in worst[: len(points) // 2] if beaten[one.setting]}
    return [one for one in points if one.setting not in out]


def finalists(points: Iterable[Point]) -> list[Point]:
    """Those that were timed to the end: only they compare."""
    points = list(points)
    most = max(len(one.times) for one in points)
    return [one for one in points if len(one.times) == most]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that nobody dominates, the quickest first."""
    free = [one for one in points if not any(other.dominates(one) for other in points)]
    return sorted(free, key=lambda one: one.p50)


def preferred(points: Sequence[Point], bounds: Bounds, prefer: str) -> list[Point]:
    """Those within the bounds, the choice first; behind it those that may stand in for it where it is too slow under
    load, which are quicker. By `speed` the quickest is chosen; by `quality` the quickest of those that cannot be told
    apart from the best by the decisive measure, paired by query."""
    within = sorted((one for one in points if not bounds.missed(one, points)), key=lambda one: one.p50)
    if not within or prefer == "speed":
        return within[:1]
    best = max(within, key=lambda one: one.mean(one.decisive))
    choice = next(one for one in within if _alike(one, best))
    quicker = [one for one in within if one.p50 < choice.p50]
    return [choice, *sorted(quicker, key=lambda one: -one.mean(one.decisive))]


def _alike(one: Point, best: Point) -> bool:
    lost = best.quality[best.decisive] - one.quality[one.decisive]
    error = float(lost.std(ddof=1)) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
    return bool(lost.mean() <= min(_MARGIN, _DOUBT * error))


def nearest(points: Sequence[Point], bounds: Bounds) -> Point:
    """The one that misses its worst bound by least."""
    return min(points, key=lambda one: max(bounds.missed(one, points).values(), default=0.0))


def told(point: Point, points: Sequence[Point], parameter: str | None) -> dict[str, Any]:
    """A point as a manifest and another program read it."""
    p99 = point.p99_interval()
    breadth = {} if parameter is None else {parameter: point.setting.breadth}
    return {
        "depth": point.setting.depth,
        **breadth,
        **{name: round(point.mean(name), 4) for name in point.quality},
        "p50_ms": round(point.p50, 3),
        "p99_ms": round(point.p99, 3),
        "p99_low_ms": round(p99.low, 3),
        "p99_high_ms": round(p99.high, 3),
        "searches": point.times.size,
        "front": point in points,
    }
