"""C5 and C6: clients that hold connections, and more of them than there are descriptors."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.protocol import TimedHttpProtocol
from tests.app.server import Served, served
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.load import Load, failed
from tests.promises.running import members, metric
from tests.promises.versions import Pair

_DEADLINE_S = TimedHttpProtocol.read_within_s
_WRITE_S = TimedHttpProtocol.write_within_s + TimedHttpProtocol.linger_s
_HEAD = b"POST /v1/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n"
_LARGE = b"GET /v1/search?q=steel+mug&k=60&explain=true HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass
class Slow:
    """A connection that sends `drip` now and then, or asks for much and never reads. `closed` is when it was closed."""

    kind: str
    socket: socket.socket
    drip: bytes
    opened: float
    closed: float = 0.0


def _slow(service: Served, kind: str) -> Slow:
    parts = urlsplit(service.address)
    one = socket.socket()
    if kind == "never reading":
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((parts.hostname or "", parts.port or 0))
    first, drip = {
        "slow head": (b"POST /v1/", b"x"),
        "slow body": (_HEAD + b"\r\n{", b" "),
        "never reading": (_LARGE * 400, b""),
    }[kind]
    one.setblocking(False)
    one.send(first)
    return Slow(kind, one, drip, time.monotonic())


def _watch(slow: list[Slow], until: float, answered: Callable[[], float]) -> float:
    """Drip, and see who is closed; who never reads asks on as long as it can, and learns of it by an error. When the
    last of them was answered: from then on the kernel takes no more for them. (What is counted once deadlines are over
    are answers that were given up.)"""
    last, filled = -1.0, time.monotonic()
    filling = slow[0].opened + TimedHttpProtocol.write_within_s - 1
    selector = selectors.DefaultSelector()
    for one in slow:
        if one.drip:
            selector.register(one.socket, selectors.EVENT_READ, one)
    next_drip = 0.0
    while time.monotonic() < until and not all(one.closed for one in slow):
        for key, _ in selector.select(0.05):
            if _ended(key.data):
                selector.unregister(key.fileobj)
        if time.monotonic() >= next_drip:
            next_drip = time.monotonic() + 0.5
            for one in slow:
                _drip(one)
            if time.monotonic() < filling and (count := answered()) != last:
                last, filled = count, time.monotonic()
    selector.close()
    return filled


def _ended(one: Slow) -> bool:
    try:
        if one.socket.recv(4096):
            return False
    except BlockingIOError:
        return False
    except OSError:
        pass
    one.closed = one.closed or time.monotonic()
    return True


def _drip(one: Slow) -> None:
    if one.closed:
        return
    try:
        one.socket.send(one.drip or _LARGE)
    except BlockingIOError:
        pass
    except OSError:
        one.closed = time.monotonic()


@pytest.mark.parametrize("size", forms((60, 60, 20), (1000, 1000, 200)))
def test_slow_clients_are_cut_and_nobody_else_notices(pair: Pair, promise: Promise, size: tuple[int, int, int]) -> None:
    """Slow heads, slow bodies, and clients that never read; searches and the probe go on meanwhile."""
    kinds = ("slow head", "slow body", "never reading")
    limit_s = max(_DEADLINE_S, _WRITE_S) + 1
    with (
        promise("C5", "closed ≤ deadline + 1 s; meanwhile 0 failed, /readyz 200") as found,
        served(pair.root, AISLE_PROCESSES="1", AISLE_PROVIDER="cpu") as service,
    ):
        slow = [_slow(service, kind) for kind, count in zip(kinds, size, strict=True) for _ in range(count)]
        with Load(service.address, 60) as load:
            filled = _watch(
                slow,
                time.monotonic() + limit_s + 15,
                lambda: metric(
                    service.address, "aisle_http_requests_total", method="GET", route="/v1/search", status="200"
                ),
            )
            ready = httpx.get(f"{service.address}/readyz").status_code
        for one in slow:
            one.socket.close()
        open_still = sum(not one.closed for one in slow)
        longest = {
            kind: max((one.closed - one.opened for one in slow if one.kind == kind), default=0) for kind in kinds[:2]
        }
        longest[kinds[2]] = max(one.closed for one in slow if one.kind == kinds[2]) - filled
        timeouts = metric(service.address, "aisle_http_requests_total", status="499")
        wrong = failed(load.answers)
        told = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in longest.items())
        found.figure = (
            f"{len(slow) - open_still} of {len(slow)} closed, at most after: {told}; "
            f"{len(load.answers)} searches: {wrong or '0 failed'}"
        )
        least = min(one.closed - one.opened for one in slow if one.closed)
        found.control = f"the first was closed after {least:.1f} s: they were slow enough"
        found.metric = f"aisle_http_requests_total{{status=499}} {timeouts:.0f}"
        assert not open_still
        assert longest["slow head"] <= _DEADLINE_S + 1 and longest["slow body"] <= _DEADLINE_S + 1
        assert longest["never reading"] <= _WRITE_S + 1.5  # it tries only twice a second
        assert not wrong and ready == 200
        assert least > 5 and timeouts >= size[1]


def test_a_service_without_descriptors_left_recovers(pair: Pair, promise: Promise) -> None:
    """`ulimit -n 256` and 400 connections: it does not end, and answers within 2 s after they have gone."""
    with (
        promise("C6", "no exit; answers again ≤ 2 s after they are closed") as found,
        served(
            pair.root, command=["tests.promises.few_descriptors", "--bundles", str(pair.root)], AISLE_PROVIDER="cpu"
        ) as service,
    ):
        parts = urlsplit(service.address)
        place = (parts.hostname or "", parts.port or 0)
        opened = metric(service.address, "process_open_fds")
        held = []
        for _ in range(400):
            one = socket.create_connection(place, timeout=5)
            one.settimeout(0.5)
            held.append(one)
        answered = sum(_probe(one) for one in held)
        most = len(_descriptors(service))
        refused = 400 - answered
        for one in held:
            one.close()
        closed = time.monotonic()
        seconds = _until_answered(service, closed)
        limit = metric(service.address, "process_max_fds")
        after = metric(service.address, "process_open_fds")
        found.figure = f"answers again {seconds:.2f} s after they were closed, and did not end"
        found.control = f"{answered} of 400 were answered, {refused} were not, at {most} of {limit:.0f} descriptors"
        found.metric = f"process_open_fds {opened:.0f} → {after:.0f}"
        assert service.process.poll() is None
        assert seconds <= 2
        assert limit == 256 and refused, "there were enough"
        assert after <= opened + 5
        assert service.stop() == 0


def _descriptors(service: Served) -> list[str]:
    """Descriptors that are open in the serving process."""
    return os.listdir(f"/proc/{members(service)[0]}/fd")


def _probe(one: socket.socket) -> bool:
    try:
        one.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        return one.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _until_answered(service: Served, since: float) -> float:
    while time.monotonic() < since + 20:
        try:
            answer = httpx.post(f"{service.address}/v1/search", json={"query": f"mug {time.monotonic()}"}, timeout=2)
            if answer.status_code == 200:
                return time.monotonic() - since
        except httpx.HTTPError:
            pass
        time.sleep(0.02)
    return float("inf")
