"""A1, A2 and A5: a Redis that dies or hangs under load costs hits and no search; a hot entry that ends costs a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest

from tests.app.server import Served, served
from tests.bench.wire import Client
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.load import Answer, Load, capacity, failed, p99_ms, searches
from tests.promises.running import metric
from tests.promises.versions import Pair
from tests.redis_server import RedisServer

_QUERIES = 100  # distinct ones, so that Redis has hits to give
_BACK_S = 5.0
_THRESHOLD = 3
_CAUSES = ("timeout", "connection", "reply", "breaker_open", "late", "write", "probe")


@dataclass(frozen=True)
class Size:
    """`third_s` of health, of the fault and of what comes after; `rate` 0: half of what the machine can do."""

    third_s: float
    rate: float
    least: int
    timed: bool


def _repeated(number: int) -> dict[str, object]:
    return searches(number % _QUERIES)


def _patient(number: int) -> dict[str, object]:
    """The same where only what can be counted is held to a bar: a busy machine may be late, and need not shed them."""
    return {**_repeated(number), "timeout_ms": 20_000}


def _errors(service: Served) -> dict[str, float]:
    return {cause: metric(service.address, "aisle_redis_errors_total", cause=cause) for cause in _CAUSES}


class _Probe:
    """What /readyz said, while the load goes on: over one connection, as the load's clock shares the interpreter."""

    def __init__(self, service: Served) -> None:
        self._client = Client(service.address)
        self._raw = f"GET /readyz HTTP/1.1\r\nhost: {urlsplit(service.address).netloc}\r\n\r\n".encode()
        self.statuses: set[int] = set()

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.statuses.add(int(self._client.exchange(self._raw)[0].split()[1]))
            time.sleep(0.1)

    def close(self) -> None:
        self._client.close()


def _without_cache(pair: Pair, rate: float, seconds: float) -> float:
    with served(pair.root, AISLE_PROCESSES="1", AISLE_PROVIDER="cpu", AISLE_CACHE_MB="0") as service:
        with Load(service.address, rate, body=_repeated) as load, closing(_Probe(service)) as probe:
            probe.wait(seconds)
        return p99_ms(load.answers)


def _cached(answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status == 200 and orjson.loads(answer.body)["cached"]]


@pytest.mark.parametrize("size", forms(Size(1.5, 120, 500, timed=False), Size(20.0, 0, 10_000, timed=True)))
@pytest.mark.parametrize("fault", ["killed", "hung"])
def test_a_redis_that_fails_under_load_costs_hits_and_no_search(
    pair: Pair, redis_server: RedisServer, promise: Promise, fault: str, size: Size
) -> None:
    """SIGKILL or SIGSTOP after a third of the time, back after two thirds. The first cache level is off."""
    name, allowed_ms = ("A1", 5.0) if fault == "killed" else ("A2", 2.0)
    begin, end = {
        "killed": (redis_server.kill, redis_server.start),
        "hung": (redis_server.hang, redis_server.resume),
    }[fault]
    bar = f"0 failed of ≥ {size.least:,}, hits back and breaker closed ≤ 5 s after, /readyz 200 throughout"
    if size.timed:
        bar += f"; p99 meanwhile ≤ without cache + {allowed_ms:.0f} ms"
    if fault == "hung":
        bar += f"; at most {_THRESHOLD} calls pay a timeout"
    environment = {"AISLE_REDIS_URL": redis_server.url, "AISLE_CACHE_MB": "0", "AISLE_PROCESSES": "1"}
    with promise(name, bar) as found, served(pair.root, AISLE_PROVIDER="cpu", **environment) as service:
        rate = size.rate or capacity(service.address) / 2
        third_s = max(size.third_s, size.least / rate / 3)
        plain_ms = _without_cache(pair, rate, third_s) if size.timed else 0.0
        probe = _Probe(service)
        try:
            with Load(service.address, rate, body=_repeated if size.timed else _patient) as load:
                probe.wait(third_s)
                before, failed_at = _errors(service), time.monotonic()
                begin()
                probe.wait(third_s)
                moved = {cause: count - before[cause] for cause, count in _errors(service).items()}
                opened = metric(service.address, "aisle_redis_breaker_open")
                back_at = time.monotonic()
                end()
                closed_s = _until(lambda: metric(service.address, "aisle_redis_breaker_open") == 0, back_at)
                probe.wait(max(third_s, 2.5))
        finally:
            probe.close()
            if redis_server.running:
                redis_server.resume()
        answers = load.answers
        while_out = [answer for answer in answers if failed_at + 1 <= answer.due < back_at]
        hits = _cached(answers)
        resumed = min((answer.done for answer in hits if answer.sent > back_at), default=float("inf")) - back_at
        healthy = sum(answer.done < failed_at for answer in hits)
        out_ms = p99_ms(while_out)
        found.figure = (
            f"Redis {fault}: {len(answers):,} at {rate:.0f}/s, {failed(answers) or '0 failed'}, p99 meanwhile "
            f"{out_ms:.1f} ms" + (f" ({plain_ms:.1f} without a cache)" if size.timed else "")
            + f", {moved['timeout']:.0f} paid a timeout, breaker closed after {closed_s:.1f} s, "
            f"hits after {resumed:.1f} s"
        )  # fmt: skip
        found.control = f"{healthy:,} hits before, {len(_cached(while_out))} meanwhile; breaker open {opened:.0f}"
        found.metric = "aisle_redis_errors_total " + ", ".join(f"{cause} +{n:.0f}" for cause, n in moved.items() if n)
        assert not failed(answers), failed(answers)
        assert len(answers) >= size.least
        assert probe.statuses == {200}
        assert healthy and not _cached(while_out), "the fault did not happen"
        assert opened == 1 and moved["breaker_open"] > 0
        assert moved["connection" if fault == "killed" else "timeout"] > 0
        assert closed_s <= _BACK_S and resumed <= _BACK_S
        if fault == "hung":
            assert moved["timeout"] <= _THRESHOLD
        if size.timed:
            assert out_ms <= plain_ms + allowed_ms


def _until(holds: Callable[[], bool], since: float) -> float:
    """Seconds from `since` until it holds."""
    while not holds():
        assert time.monotonic() < since + 20, "it did not come about"
        time.sleep(0.02)
    return time.monotonic() - since


@dataclass(frozen=True)
class Hot:
    """For how long one query is asked, and how long its answer is kept."""

    seconds: float
    ttl_s: float
    timed: bool


@pytest.mark.parametrize("size", forms(Hot(4.0, 1.0, timed=False), Hot(60.0, 5.0, timed=True)))
def test_a_hot_entry_never_ends_under_those_who_ask(pair: Pair, promise: Promise, size: Hot) -> None:
    """One query, two hundred times a second, for many times its time to live; another is left alone for as long."""
    command = ["tests.promises.staged_app", "--bundles", str(pair.root), "--encoder-ms", "10"]
    bar = "made at most twice for each time to live, 0 failed"
    if size.timed:
        bar += "; no second with p99 > 2 × baseline"
    with promise("A5", bar) as found, served(pair.root, command=command, AISLE_CACHE_TTL_S=str(size.ttl_s)) as service:
        runs = lambda: metric(service.address, "aisle_test_encoder_runs_total")  # noqa: E731
        before = runs()
        with Load(service.address, 20, body=lambda number: _patient(1 + number % 2)) as left_alone:
            time.sleep(0.5)
        assert len(_cached(left_alone.answers)) == len(left_alone.answers) - 2
        made = runs()
        with Load(service.address, 200, body=lambda number: _repeated(0) if size.timed else _patient(0)) as load:
            time.sleep(size.seconds)
        more = runs() - made  # the golden queries' among them
        hot = len(load.answers) - len(_cached(load.answers))
        answers = load.answers[100:]  # the first has to be made
        seconds: dict[int, list[float]] = {}
        for answer in answers:
            seconds.setdefault(int(answer.due - answers[0].due), []).append(answer.ms)
        whole = [float(np.percentile(ms, 99)) for ms in seconds.values() if len(ms) >= 150]
        baseline, worst = float(np.median(whole)), max(whole)
        with Load(service.address, 20, body=lambda number: _patient(1)) as again:
            time.sleep(0.2)
        ended = runs() - made - more
        found.figure = (
            f"a hot entry of {size.ttl_s:g} s for {size.seconds:g} s: made {hot} times, "
            f"{failed(load.answers) or '0 failed'}; p99 of a second {baseline:.1f} ms, of the worst {worst:.1f} ms"
        )
        found.control = (
            f"what was left alone ended: {ended:.0f} run to make it again, {made - before:.0f} for two before"
        )
        found.metric = f"aisle_test_encoder_runs_total +{more:.0f}"
        assert not failed(load.answers), failed(load.answers)
        assert 1 <= hot <= 2 * size.seconds / size.ttl_s and more >= 1
        assert made - before >= 2 and ended >= 1 and not _cached(again.answers[:1])
        if size.timed:
            assert worst <= 2 * baseline
