"""aisle pareto: how broadly the index is read, how deep the legs look, how the service runs, under a goal for the p99.

Beside `aisle tune`, which asks what ranks best whatever it takes, this asks what that may cost. It needs no judgements,
and is named after what it prints: the Pareto front of quality over time, from which it takes one setting.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import BadInput, NotFound
from app.index.bundle import BundleStore
from app.runtime.cores import usable_cores
from app.runtime.interpreter import settled
from app.search.searcher import Searcher
from app.search.versions import Encoders, Served, load
from models import pareto, serving
from models.gate import Judgements, Limits
from models.pareto import FOUND, KEPT, NDCG, PREFERENCES, ROUNDS, Bounds, Point, Setting
from models.relevance import Gain, Interval, JudgementError, Qrels, Queries, Table
from models.report.pareto import pareto_page
from models.serving import Loaded, Serving
from scripts.judged import load_judgements
from scripts.output import Output
from scripts.publish import add_gate_arguments, check_gate_arguments, publish_through_gate
from scripts.reseal import reseal
from scripts.stored import add_bundle_arguments, store_of

_REFUSED = 3
_SHARE_OF_CORES = 0.25
_LEAST_NDCG = 0.99
_LEAST_DEPTH = 10
Told = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser, version=False)
    parser.add_argument("--queries", type=Path, required=True, help="what is searched for: query_id<TAB>text")
    parser.add_argument("--qrels", type=Path, help="grades; with them nDCG@10 decides, without them the top ten kept")
    parser.add_argument(
        "--duplicates", choices=("refuse", "last", "max"), default="refuse", help="a pair that is graded differently"
    )
    parser.add_argument("--relevant-at", type=float, default=2.0, help="least grade that is relevant (default: 2)")
    parser.add_argument("--sample", type=int, default=400, metavar="N", help="at most so many queries (default: 400)")
    bounds = parser.add_argument_group("goal and floors", "where no setting keeps to them, none is taken (exit code 3)")
    bounds.add_argument(
        "--p99-ms", type=float, required=True, help="most milliseconds of a search, alone and under load; no socket"
    )
    bounds.add_argument(
        "--least-recall",
        type=float,
        default=Limits.recall,
        help=f"of the exact 100 nearest, the share that the dense leg must bring (default: {Limits.recall:g})",
    )
    bounds.add_argument(
        "--least-ndcg",
        type=float,
        help=f"of the best nDCG@10 of all settings, the share to keep (default: {_LEAST_NDCG:g})",
    )
    bounds.add_argument(
        "--prefer",
        choices=PREFERENCES,
        default="quality",
        help="of what keeps to them: the quickest that cannot be told apart from the best, or simply the quickest "
        "(default: quality)",
    )
    tried = parser.add_argument_group("what is tried")
    tried.add_argument(
        "--depths",
        type=_numbers,
        default=(),
        help="products a leg, such as 100,200,400 (the default); a page further on than a leg or two is refused",
    )
    tried.add_argument("--breadths", type=_numbers, default=(), help="nprobe or efSearch, such as 64,128,256")
    tried.add_argument("--rounds", type=int, default=ROUNDS, help=f"times each query is timed (default: {ROUNDS})")
    tried.add_argument(
        "--rate", type=float, help="searches a second of the load (default: a quarter of what the cores could do)"
    )
    tried.add_argument("--seconds", type=float, default=2.0, help="of load at a time (default: 2)")
    tried.add_argument("--no-load", action="store_true", help="leave processes, threads and batches as they are")
    parser.add_argument("--no-publish", action="store_true", help="make and verify the version, but do not serve it")
    parser.add_argument("--html", type=Path, help="write a page with the drawing and the tables")
    add_gate_arguments(parser)


@dataclass(frozen=True)
class _Choice:
    """What was found; `point` is None where nothing keeps to goal and floors."""

    points: Sequence[Point]
    point: Point | None
    loads: dict[Setting, tuple[Loaded, ...]]
    way: Loaded | None
    reason: str


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Load → quality of every setting → the race → the load → a new version where something moves → gate → publish."""
    _check(arguments)
    store = store_of(arguments)
    version = store.current()
    if version is None:
        raise NotFound(f"nothing is published in {store.folder}")
    served = load(store, version, Encoders("auto"))
    queries, qrels = _asked(arguments, output)
    gain = Gain(relevant_at=arguments.relevant_at)
    points = _points(arguments, served.searcher, queries, qrels, gain, output)
    bounds = Bounds(arguments.p99_ms, arguments.least_recall, None if qrels is None else arguments.least_ndcg)
    choice = _chosen(arguments, served, points, bounds, list(queries.values()), output)
    value = _told(version, served.searcher, queries, qrels, bounds, arguments, choice)
    moved = _moved(served, choice)
    new = None
    if choice.point is not None and moved:
        new = _sealed(store, served, choice, value, queries, qrels, gain)
    value = {"version": new, "published": False, **value}
    tables = _tables(served.searcher, choice, bounds)
    if arguments.html:
        arguments.html.write_text(_page(new, version, served.searcher, choice, tables, value), encoding="utf-8")
    head = f"version {version}, {served.searcher.vectors.kind}, {len(queries)} queries"
    text = "\n\n".join([head, *(f"{title}\n{one.text()}" for title, one in tables.items()), choice.reason])
    if choice.point is None:
        output.result({**value, "error": choice.reason, "exit_code": _REFUSED}, text)
        output.say(f"aisle: refused: {choice.reason}")
        return _REFUSED
    text += f"\n{new or version}: " + (", ".join(moved) if moved else "nothing moves, the present version stays")
    if new is None or arguments.no_publish:
        output.result(value, text)
        return 0
    gated = publish_through_gate(store, new, arguments)
    return gated.tell(output, {**value, "published": gated.published}, text)


def _check(arguments: argparse.Namespace) -> None:
    check_gate_arguments(arguments)
    for name in ("least_recall", "least_ndcg"):
        share = getattr(arguments, name)
        if share is not None and not 0 <= share <= 1:
            raise BadInput(f"--{name.replace('_', '-')} is a share, 0 to 1")
    if min(arguments.depths, default=_LEAST_DEPTH) < _LEAST_DEPTH:
        raise BadInput(f"--depths: a page of ten would lie beyond less than {_LEAST_DEPTH}")
    if arguments.least_ndcg is not None and arguments.qrels is None:
        raise BadInput("--least-ndcg needs --qrels")
    if arguments.least_ndcg is None and arguments.qrels is not None:
        arguments.least_ndcg = _LEAST_NDCG
    for name in ("p99_ms", "rate", "seconds", "sample", "rounds"):
        number = getattr(arguments, name)
        if number is not None and not (math.isfinite(number) and number > 0):
            raise BadInput(f"--{name.replace('_', '-')} must be greater than 0")


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(one) for one in text.split(","))
    if not all(1 <= one <= 10_000 for one in numbers):
        raise ValueError(text)
    return numbers


def _asked(arguments: argparse.Namespace, output: Output) -> tuple[Queries, Qrels | None]:
    """The queries, of which at most --sample are drawn; with grades only those that have some."""
    if arguments.qrels is None:
        queries, qrels = Queries.load(arguments.queries), None
    else:
        queries, qrels = load_judgements(arguments, output)
        queries = Queries({query_id: queries[query_id] for query_id in queries if query_id in qrels})
        if not queries:
            raise BadInput("none of the queries has judgements")
    ids = sorted(queries)
    if len(ids) > arguments.sample:
        output.say(f"{arguments.sample:,} of {len(ids):,} queries are taken")
        ids = sorted(np.random.default_rng(0).choice(ids, arguments.sample, replace=False).tolist())
    if not ids:
        raise JudgementError(f"{arguments.queries}: no queries")
    drawn = Queries({query_id: queries[query_id] for query_id in ids})
    return drawn, None if qrels is None else qrels.restrict(drawn)


def _points(
    arguments: argparse.Namespace,
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels | None,
    gain: Gain,
    output: Output,
) -> tuple[Point, ...]:
    settings = pareto.settings_of(searcher, arguments.depths, arguments.breadths)
    with output.progress(f"quality of {len(settings)} settings", unit="queries", total=len(queries)) as tick:
        measured = pareto.qualities(searcher, settings, queries, qrels, gain, tick)
    with output.progress("timing", unit="rounds", total=arguments.rounds) as tick, settled():
        return pareto.race(searcher, measured, list(queries.values()), arguments.rounds, tick)


def _chosen(
    arguments: argparse.Namespace,
    served: Served,
    points: Sequence[Point],
    bounds: Bounds,
    texts: Sequence[str],
    output: Output,
) -> _Choice:
    """The first of the preferred that some way to serve it keeps within the goal under load, too."""
    searcher = served.searcher
    last = pareto.finalists(points)
    preferred = pareto.preferred(last, bounds, arguments.prefer)
    if not preferred:
        near = pareto.nearest(last, bounds)
        off = ", ".join(f"{name} by {by:.1%}" for name, by in bounds.missed(near, last).items())
        reason = f"no setting keeps to {_goal(bounds)}; the nearest, {_name(searcher, near.setting)}, misses {off}"
        return _Choice(points, None, {}, None, reason)
    if arguments.no_load:
        return _Choice(points, preferred[0], {}, None, _reason(searcher, preferred[0], bounds, arguments.prefer))
    rate = arguments.rate or _SHARE_OF_CORES * usable_cores() * 1e3 / preferred[0].p50
    ways = tuple(dict.fromkeys((_present_way(served), *serving.candidates())))
    loads: dict[Setting, tuple[Loaded, ...]] = {}
    for point in preferred:
        total = serving.rounds_of(len(ways))
        with output.progress(
            f"{rate:.0f} searches/s, {_name(searcher, point.setting)}", unit="rounds", total=total
        ) as t:
            name = (arguments.bundles, searcher.collection, searcher.version)
            loads[point.setting] = serving.under_load(name, point.setting, ways, texts, rate, arguments.seconds, t)
        best = serving.chosen(loads[point.setting])
        if best.p99 <= bounds.p99_ms:
            reason = _reason(searcher, point, bounds, arguments.prefer)
            told = f"{reason}; under {rate:.0f} searches/s {best.p99:.2f} ms with {_way(best.serving)}"
            return _Choice(points, point, loads, best, told)
        ways = (best.serving,)  # a cheaper search is served best as a dear one is
    slowest = f"under {rate:.0f} searches/s no setting keeps to {_goal(bounds)}"
    quickest, best = min(((one, serving.chosen(ways)) for one, ways in loads.items()), key=lambda pair: pair[1].p99)
    reason = f"{slowest}; the nearest, {_name(searcher, quickest)} with {_way(best.serving)}, takes {best.p99:.2f} ms"
    return _Choice(points, None, loads, best, reason)


def _reason(searcher: Searcher, point: Point, bounds: Bounds, prefer: str) -> str:
    why = (
        "the quickest"
        if prefer == "speed"
        else f"the quickest that cannot be told apart from the best {point.decisive}"
    )
    p99 = point.p99_interval()
    doubt = ", whose interval reaches beyond the goal" if p99.high > bounds.p99_ms else ""
    return (
        f"{_name(searcher, point.setting)} is {why} of those that keep to {_goal(bounds)}: p99 {point.p99:.2f} ms "
        f"[{p99.low:.2f}, {p99.high:.2f}]{doubt}"
    )


def _goal(bounds: Bounds) -> str:
    ndcg = "" if bounds.ndcg is None else f", {bounds.ndcg:g} of the best {NDCG}"
    return f"p99 {bounds.p99_ms:g} ms, {FOUND} {bounds.recall:g}{ndcg}"


def _name(searcher: Searcher, setting: Setting) -> str:
    parameter = pareto.index_of(searcher).parameter
    return f"depth {setting.depth}" + (f", {parameter} {setting.breadth}" if parameter else "")


def _way(way: Serving) -> str:
    batch = way.max_batch or "chosen by the service"
    return f"processes {way.processes}, workers {way.workers}, batches {batch}"


def _present_way(served: Served) -> Serving:
    """What the version recommends for this machine, else what a service does unless it is told otherwise."""
    kept = served.content.get("serving") or {}
    if {name: kept.get(name) for name in serving.machine()} == serving.machine():
        return Serving(**{name: int(kept[name]) for name in Serving._fields})
    return serving.default()


def _moved(served: Served, choice: _Choice) -> list[str]:
    """What the choice changes, for a person."""
    if choice.point is None:
        return []
    before, after = pareto.present(served.searcher), choice.point.setting
    moved = []
    if before != after:
        moved.append(f"{_name(served.searcher, before)} → {_name(served.searcher, after)}")
    if choice.way is not None and choice.way.serving != (way := _present_way(served)):
        moved.append(f"{_way(way)} → {_way(choice.way.serving)}")
    return moved


def _told(
    version: str,
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels | None,
    bounds: Bounds,
    arguments: argparse.Namespace,
    choice: _Choice,
) -> Told:
    """The evidence, as a manifest keeps it."""
    parameter = pareto.index_of(searcher).parameter
    last = pareto.finalists(choice.points)
    free = pareto.front(last)
    return {
        "before": version,
        "queries": queries.digest,
        "qrels": None if qrels is None else qrels.digest,
        "goal": {"p99_ms": bounds.p99_ms, "least_recall": bounds.recall, "least_ndcg": bounds.ndcg},
        "prefer": arguments.prefer,
        "machine": serving.machine(),
        "chosen": None if choice.point is None else pareto.told(choice.point, free, parameter),
        "reason": choice.reason,
        "settings": [pareto.told(one, free, parameter) for one in choice.points],
        "load": {
            _name(searcher, setting): [one.to_json() for one in loaded] for setting, loaded in choice.loads.items()
        },
    }


def _sealed(
    store: BundleStore,
    served: Served,
    choice: _Choice,
    value: Told,
    queries: Queries,
    qrels: Qrels | None,
    gain: Gain,
) -> str:
    """The version under the chosen setting, with the evidence; judgements are left to its gate where it has none."""
    assert choice.point is not None
    searcher = pareto.at(served.searcher, choice.point.setting)
    dense = {**(served.content.get("dense") or {}), **pareto.index_of(searcher).parameters}
    told: Told = {"dense": dense, "pareto": value}
    if choice.way is not None:
        told["serving"] = serving.machine() | choice.way.serving._asdict()
    return reseal(store, searcher, told, None if qrels is None else Judgements(queries, qrels, gain))


def _tables(searcher: Searcher, choice: _Choice, bounds: Bounds) -> dict[str, Table]:
    """Settings by p50, then the ways to serve."""
    parameter = pareto.index_of(searcher).parameter
    last = pareto.finalists(choice.points)
    free, here = pareto.front(last), pareto.present(searcher)
    measures = list(choice.points[0].quality)
    rows: list[tuple[Any, ...]] = []
    for point in sorted(choice.points, key=lambda one: one.p50):
        marks = [
            name
            for name, holds in (
                ("choice", point is choice.point),
                ("present", point.setting == here),
                ("front", point in free),
                ("dropped", point not in last),
            )
            if holds
        ]
        setting = (point.setting.depth, *((point.setting.breadth,) if parameter else ()))
        figures = (*(point.mean(name) for name in measures), point.p50, point.p99_interval(), point.times.size)
        kept = "" if bounds.missed(point, last) else "yes"
        rows.append((*setting, *figures, kept, ", ".join(marks)))
    columns = ("depth", *((parameter,) if parameter else ()), *measures, "p50 ms", "p99 ms", "searches", "kept", "")
    tables = {"settings, the quickest first; kept: goal and floors": Table(columns, tuple(rows))}
    for setting, loaded in choice.loads.items():
        ways: list[tuple[Any, ...]] = []
        for one in sorted(loaded, key=lambda way: (-len(way.times), way.p99)):
            batch = str(one.serving.max_batch or "auto")
            spread = Interval(one.p99, min(one.p99s), max(one.p99s))
            mark = "" if one is not choice.way else "choice" if choice.point else "nearest"
            ways.append((one.serving.processes, one.serving.workers, batch, one.p50, spread, len(one.times), mark))
        head = ("processes", "workers", "max batch", "p50 ms", "p99 ms [least, most]", "rounds", "")
        tables[f"{_name(searcher, setting)} under load"] = Table(head, tuple(ways))
    return tables


def _page(
    new: str | None, version: str, searcher: Searcher, choice: _Choice, tables: dict[str, Table], value: Told
) -> str:
    free = pareto.front(pareto.finalists(choice.points))
    drawings = {}
    for measure in dict.fromkeys((FOUND, choice.points[0].decisive, KEPT)):
        drawings[measure] = [
            (
                _name(searcher, one.setting),
                one.p50,
                one.mean(measure),
                "chosen" if one is choice.point else "front" if one in free else "dominated",
            )
            for one in choice.points
        ]
    title = f"Speed and quality: {version} → {new}" if new else f"Speed and quality: {version} stays"
    facts = {name: json.dumps(value[name]) for name in ("goal", "machine", "queries", "qrels")}
    return pareto_page(title, choice.reason, drawings, tables, facts)
