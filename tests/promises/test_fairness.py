"""B3 and B4: bulk work and long queries stand behind short searches, not before them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.app.server import Served, served
from tests.bench.open_loop import Outcome, Plan, constant, offer_apart
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.keep_alive import KeepAlive, request
from tests.promises.load import capacity, searches
from tests.promises.running import metric
from tests.promises.versions import Pair

_LONG = 20  # one in so many is long
_PAIRS = "aisle_rescored_pairs_total"
_SETTLES_S = 0.2
_PAIRS_A_SLICE = 50  # an item of these is one slice
_LONG_TEXT = " ".join(f"wireless waterproof folding {number}" for number in range(28))  # far beyond 64 tokens


def _short(number: int) -> dict[str, Any]:
    return {**searches(number), "timeout_ms": 5000}


def _mixed(number: int) -> dict[str, Any]:
    """One in twenty is long."""
    return _short(number) | ({} if number % _LONG else {"query": f"{_LONG_TEXT} {number}"})


@dataclass(frozen=True)
class Size:
    """Clients that rescore; rounds of so many blocks of so many seconds, every second one beside bulk work, at a rate
    of searches (0: half of what the machine can do)."""

    clients: int
    rounds: int
    blocks: int
    seconds: float
    rate: float
    timed: bool


def _outcome(service: Served, rate: float, seconds: float, body: Callable[[int], Any]) -> Outcome:
    """What became of searches at fixed times, by a generator in a process of its own."""
    parts = urlsplit(service.address)
    due = constant(rate, seconds)
    requests = [request("POST", "/v1/search", json.dumps(body(number)).encode()) for number in range(len(due))]
    return offer_apart(Plan(parts.hostname or "", parts.port or 0, requests, due, request("GET", "/livez")))


def _offered(service: Served, rate: float, seconds: float, body: Callable[[int], Any]) -> tuple[Any, Any]:
    """Status and milliseconds of each."""
    outcome = _outcome(service, rate, seconds, body)
    return np.asarray(outcome.status), np.asarray(outcome.latency_us) / 1e3


class _Bulk:
    """Clients that send the largest batch again and again until they are stopped, in the middle of one."""

    def __init__(self, port: int, clients: int) -> None:
        items = [
            {"query": f"steel mug {n}", "candidates": [{"id": f"a{row:03}"} for row in range(_PAIRS_A_SLICE)]}
            for n in range(20)
        ]
        self._sent = request("POST", "/v1/rescore", {"items": items})
        self._port, self._clients = port, clients
        self.statuses: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        asked = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        while not self._stopping.is_set():
            await asyncio.sleep(0.01)
        for one in asked:
            one.cancel()
        for ended in await asyncio.gather(*asked, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError("a client of the bulk work failed") from ended

    async def _ask(self) -> None:
        line = KeepAlive(self._port)
        try:
            while True:
                status, _ = await line.ask(self._sent)
                self.statuses.add(status)
        finally:
            line.close()


@contextmanager
def _bulk(service: Served, clients: int) -> Iterator[_Bulk]:
    running = _Bulk(int(service.address.rpartition(":")[2]), clients)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@dataclass(frozen=True)
class _Block:
    """A part of a round: when, and how many pairs a second the bulk work scored in it (0: there was none)."""

    began_s: float
    ended_s: float
    pairs: float
    statuses: frozenset[int]


def _block(service: Served, clients: int, seconds: float) -> _Block:
    """So many seconds beside so many clients of bulk work."""
    if not clients:
        began = perf_counter()
        time.sleep(seconds)
        return _Block(began, perf_counter(), 0.0, frozenset())
    with _bulk(service, clients) as bulk:
        time.sleep(_SETTLES_S)
        before, began = metric(service.address, _PAIRS), perf_counter()
        time.sleep(seconds - _SETTLES_S)
        ended, scored = perf_counter(), metric(service.address, _PAIRS) - before
    return _Block(began, ended, scored / (ended - began), frozenset(bulk.statuses))


def _round(service: Served, size: Size, rate: float) -> tuple[Outcome, list[_Block]]:
    """Searches at one rate all the time, bulk work in every second block of it."""
    with ThreadPoolExecutor(1) as apart:
        total = (size.blocks * size.seconds) + 2 * _SETTLES_S
        offered = apart.submit(_outcome, service, rate, total, _short)
        searched = metric(service.address, "aisle_searches_total")
        until = perf_counter() + 60
        while metric(service.address, "aisle_searches_total") == searched and perf_counter() < until:
            time.sleep(0.02)
        blocks = [_block(service, size.clients * (number % 2), size.seconds) for number in range(size.blocks)]
        return offered.result(), blocks


def _p99_ms(outcome: Outcome, block: _Block) -> float:
    """Of the searches that were due in the block, without its first moments, in which what went before ends."""
    due = outcome.began_s + outcome.due_s
    inside = (due >= block.began_s + _SETTLES_S) & (due < block.ended_s)
    return float(np.percentile(outcome.latency_us[inside], 99)) / 1e3


@pytest.mark.parametrize("size", forms(Size(2, 1, 2, 1.0, 50, timed=False), Size(8, 5, 10, 2.0, 0, timed=True)))
def test_bulk_rescoring_never_hurts_search(pair: Pair, promise: Promise, size: Size) -> None:
    """Clients with a thousand pairs a request, beside searches at half of what the service can do alone just then. With
    and without take turns of seconds, as a shared machine's speed does not stay for longer; the median is that of the
    pairs of neighbours. A slice that runs already cannot be put aside: the bar allows for its time, taken as its share
    of bulk work alone, with every worker at it."""
    bar = "0 failed searches, bulk work goes on"
    if size.timed:
        bar = "search p99 ≤ 1.5 × and a slice, bulk keeps ≥ 10 %"
    environment = {"AISLE_PROCESSES": "1", "AISLE_PROVIDER": "cpu", "AISLE_CACHE_MB": "0"}
    with promise("B3", bar) as found, served(pair.root, **environment) as service:
        scored = metric(service.address, _PAIRS)
        rates, ratios, plain, slices, shares, wrong, total = [], [], [], [], [], 0, 0
        for _ in range(size.rounds):
            only = _block(service, size.clients, 2 * size.seconds)
            rate = size.rate or capacity(service.address) / 2
            outcome, blocks = _round(service, size, rate)
            p99 = [_p99_ms(outcome, block) for block in blocks]
            rates.append(rate)
            slices.append(1e3 * _PAIRS_A_SLICE / only.pairs)
            ratios += [(beside - slices[-1]) / alone for alone, beside in zip(p99[::2], p99[1::2], strict=True)]
            plain += [beside / alone for alone, beside in zip(p99[::2], p99[1::2], strict=True)]
            shares.append(float(np.mean([block.pairs for block in blocks[1::2]])) / only.pairs)
            wrong, total = wrong + int((outcome.status != 200).sum()), total + len(outcome.status)
            print(f"{rate:.0f}/s, share {shares[-1]:.0%}, slice {slices[-1]:.2f} ms, p99 {np.round(p99, 1)}, {wrong=}")
            assert only.statuses == frozenset().union(*(block.statuses for block in blocks)) == {200}
            assert all(block.pairs for block in blocks[1::2]), "the bulk work did not happen, or it starves"
        moved = metric(service.address, _PAIRS) - scored
        found.figure = (
            f"search at {min(rates):.0f} to {max(rates):.0f}/s, {wrong} of {total:,} failed, "
            f"p99 × {median(ratios):.2f} and a slice of {median(slices):.2f} ms (× {median(plain):.2f} with it; "
            f"of {len(ratios)}) beside bulk rescoring, which keeps {median(shares):.0%}"
        )
        found.control = f"{size.clients} clients with 1,000 pairs a request"
        found.metric = f"{_PAIRS} +{moved:.0f}"
        assert not wrong
        assert moved > 0
        if size.timed:
            assert median(ratios) <= 1.5, ratios
            assert median(shares) >= 0.1, shares


@pytest.mark.deep
def test_long_queries_do_not_hold_up_short_ones(shipped_bundles: Path, promise: Promise) -> None:
    """With the shipped encoder: one in twenty is as long as the encoder reads; in turn with none."""
    environment = {"AISLE_PROCESSES": "1", "AISLE_PROVIDER": "cpu", "AISLE_CACHE_MB": "0"}
    with (
        promise("B4", "5 % long queries: p99 of the short ≤ 1.3 ×") as found,
        served(shipped_bundles, **environment) as service,
    ):
        rate = capacity(service.address) / 2
        ratios, longer, wrong = [], [], 0
        before = metric(service.address, "aisle_searches_total")
        for _ in range(16):  # neighbours of a few seconds: the machine's speed does not stay for longer
            statuses, alone = _offered(service, rate, 2.5, _short)
            more, together = _offered(service, rate, 2.5, _mixed)
            is_long = np.arange(len(together)) % _LONG == 0
            wrong += int((statuses != 200).sum() + (more != 200).sum())
            ratios.append(np.percentile(together[~is_long], 99) / np.percentile(alone[~is_long], 99))
            longer.append(np.median(together[is_long]) / np.median(together[~is_long]))
        found.figure = (
            f"search at {rate:.0f}/s, {wrong} failed, p99 of the short × {median(ratios):.2f} beside 5 % long ones"
        )
        found.control = f"a long one takes {median(longer):.1f} × as long as a short one"
        found.metric = f"aisle_searches_total +{metric(service.address, 'aisle_searches_total') - before:.0f}"
        assert not wrong
        assert median(longer) > 1.2, "they were not long"
        assert median(ratios) <= 1.3, ratios
