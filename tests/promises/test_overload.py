"""B1, B2, B5 and B6: more is asked than can be answered. Words or encoder sleep, so that the capacity is known."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest

from tests.app.server import Served, served
from tests.bench.open_loop import Plan, constant, offer_apart
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.load import Answer, Load, p99_ms, searches
from tests.promises.running import metric, rss_mb
from tests.promises.versions import Pair

DEADLINE_MS = 250.0
_GRACE_MS = 20.0
_WORKERS = 2


@contextmanager
def slow_service(pair: Pair, *arguments: str, **environment: str) -> Iterator[Served]:
    """One process with two workers and no cache, `--words-ms` or `--encoder-ms` as told."""
    command = ["tests.promises.staged_app", "--bundles", str(pair.root), *arguments]
    with served(pair.root, command=command, AISLE_WORKERS=str(_WORKERS), AISLE_CACHE_MB="0", **environment) as service:
        yield service


def offered(
    service: Served, rate: float, seconds: float, deadline_ms: float = DEADLINE_MS, retries: int = 0
) -> list[Answer]:
    """What became of a constant rate, with a deadline."""
    with Load(service.address, rate, body=_within(deadline_ms), retries=retries) as load:
        time.sleep(seconds)
    return load.answers


def timed(service: Served, rate: float, seconds: float) -> list[Answer]:
    """The same by the generator that costs least, in a process of its own; it keeps no headers."""
    parts = urlsplit(service.address)
    due = constant(rate, seconds)
    requests = [_request(parts.netloc, number, DEADLINE_MS) for number in range(len(due))]
    probe = f"GET /livez HTTP/1.1\r\nhost: {parts.netloc}\r\n\r\n".encode()
    outcome = offer_apart(Plan(parts.hostname or "", parts.port or 0, requests, due, probe))
    if outcome.late:
        print(f"the generator was late by {outcome.lag_p99_ms:.0f} ms at {rate:.0f}/s")
    return [
        Answer(number, at, at + lag / 1e6, at + latency / 1e6, int(status))
        for number, (at, lag, latency, status) in enumerate(
            zip(due, outcome.lag_us, outcome.latency_us, outcome.status, strict=True)
        )
    ]


def goodput(answers: Sequence[Answer], seconds: float) -> float:
    """Answers in time, a second."""
    return sum(answer.status == 200 and answer.ms <= DEADLINE_MS + _GRACE_MS for answer in answers) / seconds


def _within(deadline_ms: float) -> Callable[[int], dict[str, Any]]:
    return lambda number: {**searches(number), "timeout_ms": deadline_ms}


@dataclass(frozen=True)
class Size:
    """Overload as a multiple of the capacity, and for how long."""

    load: float
    seconds: float
    probe_s: float
    least: float
    timed: bool = True


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(4, 6, 1.5, 0.9, timed=False), id="fast"),
        pytest.param(Size(4, 60, 6, 0.9), id="4 C", marks=pytest.mark.deep),
        pytest.param(Size(10, 60, 6, 0.8), id="10 C", marks=pytest.mark.deep),
    ],
)
def test_overload_is_shed_and_work_is_not(pair: Pair, promise: Promise, size: Size) -> None:
    """Whoever is accepted is answered in time, whoever is not is told at once, and nobody hears nothing."""
    bar = f"{size.load:g} C for {size.seconds:g} s: every rejection 429, none without an answer"
    if not size.timed:
        bar += "; Retry-After on each"
    else:
        bar += f"; goodput ≥ {size.least:.0%} of C, p99 in time, rejections ≤ 5 ms, RSS + ≤ 50 MB, calm ≤ 5 s after"
    with promise("B1", bar) as found, slow_service(pair, "--words-ms", "10") as service:
        offered(service, 100, 1)  # warms up
        offer = timed if size.timed else offered
        peak = max(goodput(offer(service, rate, size.probe_s), size.probe_s) for rate in (150, 180, 210))
        calm = offer(service, peak / 2, size.probe_s)
        memory, before = rss_mb(service), metric(service.address, "aisle_refused_total")
        answers = offer(service, size.load * peak, size.seconds)
        grown = rss_mb(service) - memory
        after = offer(service, peak / 2, 5 + size.probe_s if size.timed else 1)
        accepted = [answer for answer in answers if answer.status == 200]
        rejected = [answer for answer in answers if answer.status == 429]
        late = [answer for answer in accepted if answer.ms > DEADLINE_MS + _GRACE_MS]
        reached = goodput(answers, size.seconds) / peak
        told_ms = float(np.percentile([1e3 * (answer.done - answer.sent) for answer in rejected] or [0], 99))
        calmed = p99_ms([answer for answer in after if answer.due > after[0].due + 5] or after)
        moved = metric(service.address, "aisle_refused_total") - before
        others = len(answers) - len(accepted) - len(rejected)
        found.figure = (
            f"{size.load:g} C of {peak:.0f}/s: goodput {reached:.0%} of C, accepted p99 {p99_ms(answers):.0f} ms, "
            f"{len(late)} late, rejections p99 {told_ms:.1f} ms, {others} neither, RSS +{grown:.0f} MB, "
            f"p99 {p99_ms(calm):.0f} ms before and {calmed:.0f} ms after"
        )
        found.control = f"{len(rejected):,} of {len(answers):,} rejected"
        found.metric = f"aisle_refused_total +{moved:.0f}"
        unanswered = [answer for answer in answers if answer.status not in (200, 429, 504)]
        assert not unanswered, {answer.problem for answer in unanswered}
        assert metric(service.address, "aisle_work_after_expiry_total") == 0
        assert size.timed or all(int(answer.headers.get("retry-after", 0)) >= 1 for answer in rejected)
        assert moved == len(rejected) > len(answers) / 4, "it was no overload"
        if size.timed:
            assert not others, "accepted, and then not answered in time"
            assert reached >= size.least
            assert p99_ms(answers) <= DEADLINE_MS + _GRACE_MS
            assert max(answer.done - answer.sent for answer in answers) * 1e3 <= 3 * DEADLINE_MS
            assert told_ms <= 5
            assert grown <= 50
            assert calmed <= 1.5 * p99_ms(calm) + 5


@pytest.mark.parametrize("seconds", forms(4.0, 30.0))
def test_a_storm_of_retries_ends_with_its_cause(pair: Pair, promise: Promise, seconds: float) -> None:
    """2 C of clients that ask three times more at once; then 0.6 C of the same."""
    calm_s = max(2.0, min(10.0, seconds))
    with (
        promise("B2", "≥ 99 % success within 10 s of a retry storm") as found,
        slow_service(pair, "--words-ms", "10") as service,
    ):
        peak = goodput(offered(service, 210, 2.0), 2.0)
        before = metric(service.address, "aisle_refused_total")
        storm = offered(service, 2 * peak, seconds, retries=3)
        moved = metric(service.address, "aisle_refused_total") - before
        calm = offered(service, 0.6 * peak, calm_s, retries=3)
        last = calm[len(calm) // 2 :]
        success = sum(answer.status == 200 for answer in last) / len(last)
        tries = sum(answer.tries for answer in storm) / len(storm)
        found.figure = f"{success:.1%} of {len(last)} answered in the second half of {calm_s:.0f} s after the storm"
        found.control = (
            f"in the storm {tries:.1f} tries a request, {sum(a.status == 200 for a in storm) / len(storm):.0%} answered"
        )
        found.metric = f"aisle_refused_total +{moved:.0f}"
        assert success >= 0.99
        assert tries > 1.3 and moved, "nobody had to try again"
        assert not [answer.failure for answer in [*storm, *calm] if answer.failure]


@pytest.mark.parametrize("clients", forms(200, 1000))
def test_work_that_nobody_waits_for_is_not_done(pair: Pair, promise: Promise, clients: int) -> None:
    """Clients that leave while they stand in the queue."""
    with (
        promise("B5", "≥ 95 % of the encoder's work skipped, in-flight gauge 0 within 1 s") as found,
        slow_service(pair, "--encoder-ms", "50", AISLE_MAX_WAITING="5000", AISLE_TIMEOUT_MS="60000") as service,
    ):
        connections = [_asking(service.address, number) for number in range(clients)]
        _until(lambda: metric(service.address, "aisle_http_requests_in_flight") >= 0.8 * clients)
        runs = metric(service.address, "aisle_test_encoder_runs_total")
        queued = metric(service.address, "aisle_queue_waiting", priority="search")
        for one in connections:
            one.close()
        left = time.monotonic()
        _until(lambda: metric(service.address, "aisle_http_requests_in_flight") <= 1)  # the scrape itself
        quiet_s = time.monotonic() - left
        _until(lambda: metric(service.address, "aisle_queue_waiting", priority="search") == 0)
        time.sleep(0.2)
        done = metric(service.address, "aisle_test_encoder_runs_total") - runs
        skipped = metric(service.address, "aisle_tickets_skipped_total", reason="abandoned")
        found.figure = (
            f"{1 - done / queued:.1%} of {queued:.0f} queued runs skipped, nothing in flight after {quiet_s:.2f} s"
        )
        found.control = f"{runs:.0f} of {clients} had been run before they left; {done:.0f} after"
        found.metric = f"aisle_tickets_skipped_total{{reason=abandoned}} {skipped:.0f}"
        assert queued >= clients / 2, "they did not wait"
        assert done <= 0.05 * queued
        assert quiet_s <= 1.0
        assert skipped >= 0.95 * queued


@pytest.mark.parametrize("count", forms(500, 10_000))
def test_deadlines_are_kept_and_no_work_begins_after_them(
    pair: Pair, promise: Promise, seed: int, count: int, request: pytest.FixtureRequest
) -> None:
    """20 to 300 ms, at four fifths of what the default tier can do."""
    draw = random.Random(seed)
    limits = [draw.uniform(20, 300) for _ in range(count)]
    timed = request.node.get_closest_marker("deep") is not None
    bar = "100 % answered" + (" within timeout + 20 ms" if timed else "") + ", 0 runs of the encoder begun too late"
    with promise("B6", bar) as found, slow_service(pair, "--encoder-ms", "10") as service:
        rate = 0.8 * _WORKERS / 0.0115
        body = lambda number: {**searches(number), "timeout_ms": limits[number % count]}  # noqa: E731
        with Load(service.address, rate, body=body) as load:
            load.until(lambda: len(load.answers) >= count, patience_s=120)
        over = [answer.ms - limits[answer.number % count] for answer in load.answers]
        late = sum(ms > 20 for ms in over)
        by_own_clock = sum(_took_ms(answer) > limits[answer.number % count] + 20 for answer in load.answers)
        begun = metric(service.address, "aisle_work_after_expiry_total")
        degraded = metric(service.address, "aisle_degraded_total")
        statuses = sorted({answer.status for answer in load.answers})
        found.figure = (
            f"{len(over):,} answered ({statuses}), {late} late by more than 20 ms, the latest by {max(over):.0f} ms; "
            f"{by_own_clock} late by the service's own clock, {begun:.0f} begun too late"
        )
        found.control = f"{sum(limit < 40 for limit in limits)} had less than 40 ms"
        found.metric = f"aisle_degraded_total {degraded:.0f}"
        assert not [answer.failure for answer in load.answers if answer.failure]
        assert set(statuses) <= {200, 429, 504}
        assert begun == 0
        if timed:
            assert late == 0


def _took_ms(answer: Answer) -> float:
    """What the service says that it took, which leaves out whatever kept the client or the machine."""
    return float(orjson.loads(answer.body)["took_ms"]) if answer.status == 200 else 0.0


def _request(host: str, number: int, deadline_ms: float) -> bytes:
    raw = json.dumps({**searches(number), "timeout_ms": deadline_ms}).encode()
    head = f"POST /v1/search HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


def _asking(address: str, number: int) -> socket.socket:
    """A connection with a search under way."""
    parts = urlsplit(address)
    one = socket.create_connection((parts.hostname or "", parts.port or 0))
    one.sendall(_request(parts.netloc, number, 60_000))
    return one


def _until(holds: Callable[[], bool], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
