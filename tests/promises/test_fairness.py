"""B3 and B4: bulk work and long queries stand behind short searches, not before them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.app.server import Served, served
from tests.bench.open_loop import Plan, constant, offer_apart
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.keep_alive import KeepAlive, request
from tests.promises.load import capacity, searches
from tests.promises.running import metric
from tests.promises.versions import Pair

_LONG = 20  # one in so many is long
_LONG_TEXT = " ".join(f"wireless waterproof folding {number}" for number in range(28))  # far beyond 64 tokens


def _short(number: int) -> dict[str, Any]:
    return {**searches(number), "timeout_ms": 5000}


def _mixed(number: int) -> dict[str, Any]:
    """One in twenty is long."""
    return _short(number) | ({} if number % _LONG else {"query": f"{_LONG_TEXT} {number}"})


@dataclass(frozen=True)
class Size:
    """Clients that rescore; rounds of so many seconds at a rate of searches, 0: half of what the machine can do."""

    clients: int
    rounds: int
    seconds: float
    rate: float
    timed: bool


def _offered(service: Served, rate: float, seconds: float, body: Callable[[int], Any]) -> tuple[Any, Any]:
    """Status and milliseconds of each, by a generator in a process of its own."""
    parts = urlsplit(service.address)
    due = constant(rate, seconds)
    requests = [request("POST", "/v1/search", json.dumps(body(number)).encode()) for number in range(len(due))]
    outcome = offer_apart(Plan(parts.hostname or "", parts.port or 0, requests, due, request("GET", "/livez")))
    return np.asarray(outcome.status), np.asarray(outcome.latency_us) / 1e3


class _Bulk:
    """Clients that send the largest batch again and again; `pairs` were scored."""

    def __init__(self, port: int, clients: int) -> None:
        items = [
            {"query": f"steel mug {n}", "candidates": [{"id": f"a{row:03}"} for row in range(50)]} for n in range(20)
        ]
        self._sent = request("POST", "/v1/rescore", {"items": items})
        self._port, self._clients = port, clients
        self.pairs = 0
        self._seen: list[tuple[float, int]] = []  # when, and how many by then
        self.statuses: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def rate(self, began: float, ended: float) -> float:
        """Pairs a second between two times."""
        inside = [pairs for at, pairs in self._seen if began <= at <= ended]
        return (inside[-1] - inside[0]) / (ended - began) if inside else 0.0

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(self._clients)))

    async def _ask(self) -> None:
        line = KeepAlive(self._port)
        while not self._stopping.is_set():
            status, _ = await line.ask(self._sent)
            self.statuses.add(status)
            self.pairs += 1000 * (status == 200)
            self._seen.append((time.monotonic(), self.pairs))
        line.close()


@contextmanager
def _bulk(service: Served, clients: int) -> Iterator[_Bulk]:
    running = _Bulk(int(service.address.rpartition(":")[2]), clients)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("size", forms(Size(2, 1, 1.0, 50, timed=False), Size(8, 5, 8.0, 0, timed=True)))
def test_bulk_rescoring_never_hurts_search(pair: Pair, promise: Promise, size: Size) -> None:
    """Clients with a thousand pairs a request, beside searches at half of what the service can do alone."""
    bar = "0 failed searches, bulk work goes on" if not size.timed else "search p99 ≤ 1.5 ×, bulk keeps ≥ 10 %"
    environment = {"AISLE_PROCESSES": "1", "AISLE_PROVIDER": "cpu", "AISLE_CACHE_MB": "0"}
    with promise("B3", bar) as found, served(pair.root, **environment) as service:
        rate = size.rate or capacity(service.address) / 2
        scored = metric(service.address, "aisle_rescored_pairs_total")
        ratios, shares, wrong, total = [], [], 0, 0
        for _ in range(size.rounds):
            with _bulk(service, size.clients) as only:
                time.sleep(size.seconds / 2)
            statuses, alone = _offered(service, rate, size.seconds, _short)
            with _bulk(service, size.clients) as beside:
                more, together = _offered(service, rate, size.seconds, _short)
                ended = time.monotonic()
            wrong += int((statuses != 200).sum() + (more != 200).sum())
            total += len(statuses) + len(more)
            print(
                f"p99 {np.percentile(alone, 99):.1f} ms alone, {np.percentile(together, 99):.1f} ms beside bulk work;"
                f" not 200: {(statuses != 200).sum()} and {(more != 200).sum()}"
            )
            ratios.append(np.percentile(together, 99) / np.percentile(alone, 99))
            # Before the generator's first search, while its process starts, bulk work is alone.
            at_once = beside.rate(ended - size.seconds * 0.9, ended - size.seconds * 0.1)
            shares.append(at_once / (only.pairs / (size.seconds / 2)))
            assert only.statuses == beside.statuses == {200}
            assert beside.pairs, "the bulk work did not happen, or it starves"
        moved = metric(service.address, "aisle_rescored_pairs_total") - scored
        found.figure = (
            f"search at {rate:.0f}/s, {wrong} of {total:,} failed, p99 × {median(ratios):.2f} beside bulk rescoring, "
            f"which keeps {median(shares):.0%} of its throughput"
        )
        found.control = f"{size.clients} clients with 1,000 pairs a request"
        found.metric = f"aisle_rescored_pairs_total +{moved:.0f}"
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
        for _ in range(5):
            statuses, alone = _offered(service, rate, 8.0, _short)
            more, together = _offered(service, rate, 8.0, _mixed)
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
