"""How many searches a second the service answers in time, beside what its kernels alone could, in one interleaved run.

    python -m tests.bench.bench_load --bundles bundles [--seconds 6] [--json]

An open loop offers a constant rate over keep-alive loopback sockets (tests/bench/open_loop.py). *Saturated* is the
highest rate, found by bisection, at which p99 from the intended time of sending is at most 50 ms and at least 99 % are
answered 200 in the tier that was asked for. "Uncached": the cache is on and misses, because no text is asked twice.

The headline is saturated / kernels alone: the kernels of the same searches, one thread a core, in a process of their
own (tests/bench/kernel_rate.py), in turns with the service, three turns, medians. Cached answers stand beside a bare
FastAPI route that returns as many bytes, in as many processes. The generator shares the cores; what it took of them is
in the figures. Absolute figures belong to the machine, the ratios to aisle; it must be quiet. Takes 40 to 65 × SECONDS
and some 45 more."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from app.runtime.cores import usable_cores
from tests.bench.bisection import Bisection
from tests.bench.kernel_rate import kernels_apart
from tests.bench.load_report import PLOT, plot, report
from tests.bench.open_loop import Outcome, Plan, Seconds, constant, offer_apart, poisson
from tests.bench.queries import distinct_texts
from tests.bench.wire import Client, server

ROOT = Path(__file__).parents[2]
PROFILES = ("default", "fast")
BOUND_MS, LEAST_ANSWERED = 50.0, 0.99
CONNECTIONS = 512  # twice what the service lets wait: its refusals, not a lack of sockets, must end the load
_TRIES = 2
_PROBES = (5, 3, 3)  # of each turn; the later ones only look around what was found before
_AROUND = (0.92, 1.1)
_CACHED_PROBES = 7
_CACHED_BRACKET = (1500.0, 9000.0)
_LIGHT, _POISSON = 0.25, 0.8  # of the saturated rate
_WARM_UP_RATE, _WARM_UP_S = 200.0, 2.0
_STRAY = 0.01  # share of a run's answers that may come from where they should not
_AGAIN = "a warm up"
_COUNTED = {
    "degraded": r"aisle_degraded_total\{.*\}",
    "hits": r'aisle_cache_events_total\{(?=.*event="hit")(?=.*kind="answer").*\}',
    "shared": r"aisle_single_flight_shared_total",
}
Figures = dict[str, Any]
Kernels = Callable[[str, float], Any]


@dataclass(frozen=True)
class Run:
    """One load and what came of it; rates a second, latencies from the intended time of sending. `shares` are of all
    requests: answered 200, degraded, cached. `generator` holds how late it sent (p99), whether that was too late to
    trust the latencies, how many requests waited for a connection, and what it took of all cores."""

    target: str
    arrivals: str
    offered: float
    answered: float
    statuses: dict[int, int]
    shares: dict[str, float]
    latency_ms: dict[str, float]
    generator: dict[str, float | bool]
    passed: bool


@dataclass
class Target:
    """What load is offered to, and every run so far. `requests(n)` are n requests of POST; `greeting` opens each
    connection. `counts` reads the service's own counters, where it has any."""

    name: str
    address: str
    requests: Callable[[int], list[bytes]]
    greeting: bytes
    counts: Callable[[], dict[str, float]] = dict
    runs: list[Run] = field(default_factory=list)

    def offer(self, rate: float, seconds: float, arrivals: Callable[[float, float], Seconds] = constant) -> Run:
        """One run at `rate`."""
        parts, due_s = urlsplit(self.address), arrivals(rate, seconds)
        plan = Plan(parts.hostname or "", parts.port or 0, self.requests(len(due_s)), due_s, self.greeting, CONNECTIONS)
        before = self.counts()
        outcome = offer_apart(plan)
        counted = {name: count - before[name] for name, count in self.counts().items()}
        run = _run(self.name, arrivals.__name__, rate, outcome, counted)
        self.runs.append(run)
        return run

    def search(self, bisection: Bisection, probes: int, seconds: float) -> float:
        """The highest rate that passed, of so many probes; one that fails is tried once more, as a machine that stands
        still for 60 ms fails any rate."""
        for _ in range(probes):
            bisection.tell(any(self.offer(bisection.rate, seconds).passed for _ in range(_TRIES)))
        return bisection.best


def _run(name: str, arrivals: str, rate: float, outcome: Outcome, counted: dict[str, float]) -> Run:
    histogram, count = outcome.histogram(), len(outcome.due_s)
    latency_ms = {
        f"p{share:g}": round(histogram.get_value_at_percentile(share) / 1e3, 3) for share in (50, 90, 99, 99.9)
    }
    latency_ms["max"] = round(histogram.get_max_value() / 1e3, 3)
    degraded = counted.get("degraded", 0.0) / count
    cached = (counted.get("hits", 0.0) + counted.get("shared", 0.0)) / count
    own_tier = outcome.answered - degraded
    return Run(
        target=name,
        arrivals=arrivals,
        offered=round(rate, 1),
        answered=round(outcome.rate, 1),
        statuses=outcome.statuses,
        shares={"answered": round(outcome.answered, 4), "degraded": round(degraded, 4), "cached": round(cached, 4)},
        latency_ms=latency_ms,
        generator={
            "lag_p99_ms": round(outcome.lag_p99_ms, 3),
            "late": outcome.late,
            "waited": round(float(outcome.waited.mean()), 4),
            "cpu_us": round(outcome.cpu_us, 1),
            "cpu_share": round(outcome.cpu_s / outcome.seconds / usable_cores(), 4),
        },
        passed=own_tier >= LEAST_ANSWERED and latency_ms["p99"] <= BOUND_MS,
    )


def measure(bundles: Path, seconds: float) -> Figures:
    """Every figure by name; all runs under "runs"."""
    figures: Figures = {"seconds": seconds, "cores": usable_cores(), "load_average_before": os.getloadavg()[0]}
    runs: list[Run] = []
    with (
        kernels_apart(bundles) as kernels,
        server("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0") as address,
    ):
        for profile in PROFILES:
            target = uncached(address, profile)
            figures[profile] = saturated(target, profile, kernels, seconds)
            runs += target.runs
        size = len(_ask(address, _search(address, _AGAIN)))
        as_many = ("--processes", str(usable_cores()))
        with server("tests.bench.bare_app", "--bytes", str(size), *as_many) as bare_address:
            cached, bare = _cached(address), _bare(bare_address)
            figures["cached"] = beside_bare(cached, bare, seconds / 2)
        runs += cached.runs + bare.runs
    figures["runs"] = [asdict(run) for run in runs]
    return figures


def saturated(target: Target, profile: str, kernels: Kernels, seconds: float) -> Figures:
    """Kernels, service, kernels, service, kernels, service: rates a second of each turn, and the median of their
    ratios, which one disturbed turn does not move."""
    target.offer(_WARM_UP_RATE, _WARM_UP_S)
    target.runs.clear()
    alone: list[Any] = []
    found: list[float] = []
    for probes in _PROBES:
        alone.append(kernels(profile, seconds))
        last = next((rate for rate in reversed(found) if rate), 0.0)
        low, high = (share * last for share in _AROUND) if last else (0.3 * alone[-1].rate, alone[-1].rate)
        found.append(target.search(Bisection(low, high), probes, seconds))
    if median(found):
        target.offer(_LIGHT * median(found), seconds / 2)
        target.offer(_POISSON * median(found), seconds, poisson)
    _insist(target, cached=False)
    ratios = [rate / kernel.rate for rate, kernel in zip(found, alone, strict=True)]
    return {
        "saturated": round(median(found), 1),
        "saturated_turns": [round(rate, 1) for rate in found],
        "kernels": round(median(one.rate for one in alone), 1),
        "kernels_turns": [round(one.rate, 1) for one in alone],
        "kernels_cpu_share": [round(one.cpu_share, 3) for one in alone],
        "ratio_to_kernels": round(median(ratios), 3),
        "ratio_turns": [round(ratio, 3) for ratio in ratios],
    }


def beside_bare(cached: Target, bare: Target, seconds: float) -> Figures:
    """Saturated rates of cached answers and of the bare route, run by run in turns."""
    sides = [(cached, Bisection(*_CACHED_BRACKET)), (bare, Bisection(*_CACHED_BRACKET))]
    for _ in range(_CACHED_PROBES):
        for target, bisection in sides:
            bisection.tell(target.offer(bisection.rate, seconds).passed)
    _insist(cached, cached=True)
    ours, theirs = (bisection.best for _, bisection in sides)
    return {
        "saturated": round(ours, 1),
        "bare": round(theirs, 1),
        "ratio_to_bare": round(ours / theirs, 3) if theirs else 0.0,
    }


def _insist(target: Target, *, cached: bool) -> None:
    for run in target.runs:
        stray = run.shares["answered"] - run.shares["cached"] if cached else run.shares["cached"]
        if stray > _STRAY:
            raise RuntimeError(f"{stray:.1%} of the answers {'missed' if cached else 'came from'} the cache")


def uncached(address: str, profile: str) -> Target:
    """Searches none of which is asked twice."""
    texts = distinct_texts()

    def requests(count: int) -> list[bytes]:
        asked = list(islice(texts, count))
        if len(asked) < count:
            raise RuntimeError("no distinct texts are left; use fewer --seconds")
        return [_search(address, text, profile) for text in asked]

    return Target(profile, address, requests, _request(address, "GET", "/livez"), lambda: _counts(address))


def _cached(address: str) -> Target:
    """One search, asked again and again, which the service has answered before."""
    request = _search(address, _AGAIN)
    return Target("cached", address, lambda _: [request], _request(address, "GET", "/livez"), lambda: _counts(address))


def _bare(address: str) -> Target:
    """The same requests for the bare route."""
    request = _search(address, _AGAIN)
    return Target("bare", address, lambda _: [request], request)


def _search(address: str, text: str, profile: str = "default") -> bytes:
    return _request(address, "POST", "/v1/search", {"query": text, "k": 10, "profile": profile})


def _request(address: str, method: str, path: str, body: object = None) -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: {urlsplit(address).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


def _ask(address: str, request: bytes) -> bytes:
    """The body of the answer, over a connection for this alone: one that is kept would have to be kept alive."""
    client = Client(address)
    try:
        return client.exchange(request)[1]
    finally:
        client.close()


def _counts(address: str) -> dict[str, float]:
    """The service's own counters: degraded searches (by reason, so at least as many), answers from the cache, and those
    that shared a search under way."""
    text = _ask(address, _request(address, "GET", "/metrics")).decode()
    return {name: _sum(pattern, text) for name, pattern in _COUNTED.items()}


def _sum(pattern: str, text: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.seconds)
    try:
        plot(figures, PLOT)
    except ImportError:
        print("no plot: matplotlib is not installed (the bench extra)", file=sys.stderr)
    print(json.dumps(figures) if arguments.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
