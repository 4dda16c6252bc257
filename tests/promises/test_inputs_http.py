"""Malformed HTTP never hurts: mutated requests over a socket to the real service, and what proxies disagree on."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.server import Served, served
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.raw_http import DESYNC, SOUND, mutated, told

_GROWTH_MB = 20.0
_AT_ONCE = 64


@pytest.fixture(scope="module")
def service(tiny_bundles: Path) -> Iterator[Served]:
    """The real service over the tiny bundle, in one process of its own."""
    with served(tiny_bundles, AISLE_PROCESSES="1", AISLE_WORKERS="1") as running:
        yield running


def _port(service: Served) -> int:
    return int(service.address.rpartition(":")[2])


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _counted(service: Served) -> float:
    lines = httpx.get(f"{service.address}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("aisle_http_requests_total{"))


async def _fuzz(service: Served, numbers: range) -> Counter[int]:
    """Statuses of all that was answered; after each part the service is still alive and well."""
    seen: Counter[int] = Counter()
    for start in range(numbers.start, numbers.stop, _AT_ONCE):
        part = numbers[start - numbers.start : start - numbers.start + _AT_ONCE]
        for one in await asyncio.gather(*(told(_port(service), mutated(n), patience_s=0.15) for n in part)):
            assert not [status for status in one.statuses if status >= 500 and status != 504], one
            seen.update(one.statuses)
        assert service.process.poll() is None, "".join(service.lines)
    sound = await told(_port(service), SOUND, patience_s=2.0)
    assert sound.statuses == (200,)
    return seen


@pytest.mark.parametrize("count", forms(1_500, 10_000))
async def test_mutated_requests_find_no_server_error(service: Served, promise: Promise, count: int) -> None:
    """No 5xx, alive, and no more memory than before."""
    with promise("S2", f"{count:,} mutated requests: alive, 0 5xx, RSS + ≤ {_GROWTH_MB:.0f} MB") as found:
        await _fuzz(service, range(1_000_000, 1_000_400))  # what is made once is there: code paths, label children
        counted, before = _counted(service), rss_mb(service.process.pid)
        seen = await _fuzz(service, range(count))
        grown, moved = rss_mb(service.process.pid) - before, _counted(service) - counted
        found.figure = f"{count:,} mutated requests: alive, 0 5xx, RSS +{grown:.1f} MB"
        found.control = f"answers by status: {dict(sorted(seen.items()))}"
        found.metric = f"aisle_http_requests_total +{moved:.0f}"
        assert grown <= _GROWTH_MB
        assert {200, 400, 404, 405, 431} <= seen.keys(), "the fault did not happen"
        assert moved > 0, "the metric did not move"
        log = "".join(service.lines)
        assert "Traceback" not in log, log[log.index("Traceback") - 200 :][:2_000]


@pytest.mark.promise(
    "S2",
    "400 and closed, nothing smuggled is answered",
    control="sound requests in a row are all answered, on a connection that stays",
)
@pytest.mark.parametrize("name", DESYNC)
async def test_what_proxies_may_read_otherwise_is_refused_and_the_connection_shut(service: Served, name: str) -> None:
    """One 400 and the end: what follows on the connection is never taken for a request. (The control: a sound request
    is answered on a connection that stays.)"""
    found = await told(_port(service), DESYNC[name], patience_s=3.0)
    assert (found.statuses, found.closed) == ((400,), True), found


async def test_a_request_without_a_version_is_answered_once(service: Served) -> None:
    """As HTTP/0.9 had it, where a connection is for one request: what follows is not read."""
    found = await told(_port(service), b"GET /livez\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", patience_s=3.0)
    assert (found.statuses, found.closed) == ((200,), True)


async def test_what_comes_behind_a_sound_request_and_is_no_http_ends_the_connection(service: Served) -> None:
    """In the middle of the first one's answer: told once, closed, and nothing in the log."""
    for _ in range(20):
        found = await told(_port(service), SOUND.replace(b"mug", b"cup") + b"\x00\x01 nonsense\r\n\r\n", patience_s=3.0)
        assert found.closed and found.statuses in ((400,), (200, 400), (200,)), found
    assert "Traceback" not in "".join(service.lines)


async def test_a_sound_connection_stays_open(service: Served) -> None:
    """The control of the above: three requests in a row on one connection, three answers."""
    found = await told(_port(service), SOUND * 3, patience_s=0.5)
    assert (found.statuses, found.closed) == ((200, 200, 200), False)
