"""Every worker stands still, again and again: the loop stays free, the queue bounded, and nothing locks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest

from app import metrics
from app.runtime.batcher import MOST_GIVEN_UP
from tests.app import faults
from tests.conftest import Client
from tests.ledger import Entry, Promise

_WAITING = 64
_STALL_S = 2.0


def _value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


class _Probes:
    """/livez every 10 ms, and the longest queue seen meanwhile."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.struck = 0
        self.refused = 0.0
        self.longest = 0.0

    async def run(self, http: httpx.AsyncClient) -> None:
        while True:
            started = time.perf_counter()
            assert (await http.get("/livez")).status_code == 200
            self.ms.append((time.perf_counter() - started) * 1e3)
            self.longest = max(self.longest, _value("aisle_queue_waiting", priority="search"))
            await asyncio.sleep(0.01)


async def _rounds(bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch, count: int) -> _Probes:
    """In each, whoever works at searches stands still for two seconds under a hundred searches a second, and four
    hundred that come at once."""
    probes, statuses = _Probes(), Counter[int]()
    refused = _value("aisle_refused_total", reason="queue_full")
    async with client(bundles, workers=2, max_waiting=_WAITING) as http:
        watching = asyncio.create_task(probes.run(http))

        async def ask(text: str) -> None:
            response = await http.post("/v1/search", json={"query": text, "timeout_ms": 500})
            statuses[response.status_code] += 1

        for number in range(count):
            with faults.searcher_fault(monkeypatch, "search", lambda fault: fault.released.wait(_STALL_S)) as fault:
                fault.on = True
                started = time.monotonic()
                flood = [asyncio.create_task(ask(f"steel mug {number} {one}")) for one in range(200)]
                while time.monotonic() - started < _STALL_S:
                    flood.append(asyncio.create_task(ask(f"folding lamp {number} {len(flood)}")))
                    await asyncio.sleep(0.01)
                assert fault.struck >= 2, "the fault did not happen"
                probes.struck += fault.struck
            await asyncio.gather(*flood)
            answer = await http.post("/v1/search", json={"query": f"quiet kettle {number}", "timeout_ms": 5000})
            assert answer.status_code == 200 and answer.json()["hits"], "a round left something locked"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert (await http.get("/readyz")).status_code == 200
    assert set(statuses) <= {200, 429, 503, 504} and statuses[429] > 0 and statuses[200] > 0, statuses
    assert _value("aisle_refused_total", reason="queue_full") > refused
    assert 0 < probes.longest <= _WAITING
    probes.refused = _value("aisle_refused_total", reason="queue_full") - refused
    return probes


def _tell(found: Entry, probes: _Probes, count: int) -> None:
    found.figure = (
        f"{count} rounds: {len(probes.ms):,} probes, p99 {np.percentile(probes.ms, 99):.1f} ms, most "
        f"{max(probes.ms):.0f} ms; at most {probes.longest:.0f} of {_WAITING} waited; each round's last search answered"
    )
    found.control = f"{probes.struck} calls stood still for {_STALL_S:g} s"
    found.metric = f"aisle_refused_total{{reason=queue_full}} +{probes.refused:.0f}"


async def test_stalls_of_every_worker_leave_the_loop_free_and_nothing_locked(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch, promise: Promise
) -> None:
    """Two rounds, counted: probes answered, queue bounded, no 500, and all is well afterwards."""
    with promise("B8", "2 rounds: queue bounded, no deadlock, /livez answered throughout") as found:
        probes = await _rounds(tiny_bundles, client, monkeypatch, 2)
        _tell(found, probes, 2)
        assert len(probes.ms) > 100 and max(probes.ms) < _STALL_S * 1e3 / 2


@pytest.mark.deep
async def test_a_hundred_stalls_of_every_worker(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch, promise: Promise
) -> None:
    """And p99 of /livez is at most 50 ms."""
    with promise("B8", "100 rounds: queue bounded, no deadlock, /livez p99 ≤ 50 ms") as found:
        probes = await _rounds(tiny_bundles, client, monkeypatch, 100)
        _tell(found, probes, 100)
        assert float(np.percentile(probes.ms, 99)) <= 50.0


@pytest.mark.promise(
    "B8",
    "/readyz 503 while eight hang, 200 after; the words answer",
    control="the workers were held",
    metric="aisle_workers_replaced_total, aisle_ready",
)
async def test_eight_that_hang_take_the_process_out_of_readiness_until_they_come_back(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/readyz gives the reason, the gauge follows, and the words still answer."""
    monkeypatch.setattr("app.runtime.batcher._LOOK_S", 0.01)
    monkeypatch.setattr("app.runtime.batcher.STUCK_S", 0.15)
    monkeypatch.setattr("app.search.service._SHOWN_EVERY_S", 0.02)
    replaced = _value("aisle_workers_replaced_total")
    async with client(tiny_bundles, workers=1) as http:

        async def until(status: int) -> str:
            async with asyncio.timeout(20):
                number = 0
                while (answer := await http.get("/readyz")).status_code != status:
                    number += 1
                    await http.post("/v1/search", json={"query": f"steel mug {number}", "timeout_ms": 50})
            reason: str = answer.json()["status"]
            return reason

        with faults.searcher_fault(monkeypatch, "search", lambda fault: fault.released.wait(30)) as fault:
            fault.on = True
            assert await until(503) == "workers_stuck"
            async with asyncio.timeout(5):
                while _value("aisle_ready") != 0:
                    await asyncio.sleep(0.01)
            assert _value("aisle_workers_replaced_total") - replaced == MOST_GIVEN_UP <= fault.struck
            assert (await http.get("/livez")).status_code == 200
            answer = await http.post("/v1/search", json={"query": "folding lamp", "timeout_ms": 100})
            assert (answer.status_code, answer.json()["tier"]) == (200, "words")
        assert await until(200) == "ready"
