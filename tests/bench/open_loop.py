"""An open-loop load generator: all times of sending are fixed beforehand, and latency counts from them.

A closed loop asks its next question when the last one was answered, so while a server stalls it does not ask the
questions that the stall would have hit, and its percentiles hide the stall (coordinated omission: Gil Tene, "How NOT to
Measure Latency", 2013). Here request i is due at `due_s[i]` whatever became of the others. One that cannot be sent in
time, because the generator is late or every connection is taken, still counts from then.

One thread, ready bytes, keep-alive sockets, one request under way on each. It shares the cores with the server, so it
does as little as Python allows while it runs: latencies go into the histogram afterwards.
"""

from __future__ import annotations

import gc
import pickle
import select
import selectors
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
NO_ANSWER = 0
"""Stands for the status of a request that was not answered before the run ended."""
LATE_MS = 5.0
"""A generator whose own lag has a p99 above this measures itself; a run's figures then say so."""
_LONGEST_US = 600_000_000
_CHUNK = 1 << 16
_BURST = 16  # sends between two looks at what came back: after a stall hundreds are due at once
_HEAD_START_S = 0.02
_START_UP_S = 60.0
Seconds = npt.NDArray[np.float64]


def constant(rate: float, seconds: float) -> Seconds:
    """Times of sending at `rate` a second, evenly spaced."""
    return np.arange(round(rate * seconds)) / rate


def poisson(rate: float, seconds: float, seed: int = 0) -> Seconds:
    """Times of sending of a Poisson process that brought as many: such arrivals, given their number, are uniform."""
    return np.sort(np.random.default_rng(seed).uniform(0.0, seconds, round(rate * seconds)))


@dataclass(frozen=True)
class Plan:
    """What is sent where and when: request i is `requests[i % len(requests)]` at `due_s[i]` seconds, ascending.

    Every connection sends `greeting` once before the clock starts: a server may close a connection that stays silent.
    `grace_s` after the last is due, what has not been answered counts as NO_ANSWER."""

    host: str
    port: int
    requests: Sequence[bytes]
    due_s: Seconds
    greeting: bytes
    connections: int = 512
    grace_s: float = 2.0


@dataclass(frozen=True)
class Outcome:
    """One entry a request, in order of `due_s`: `latency_us` from when it was due to the last byte of its answer (or to
    the end of the run), `lag_us` from when it was due to when it was sent, and whether it `waited` for a connection.
    `cpu_s` is what the generator's process took, user and system, from the first due time to the end at `seconds`.
    `began_s` is when the clock started, by `perf_counter`, which the processes of a machine share on Linux."""

    due_s: Seconds
    latency_us: npt.NDArray[np.int64]
    lag_us: npt.NDArray[np.int64]
    status: npt.NDArray[np.int16]
    waited: npt.NDArray[np.bool_]
    cpu_s: float
    seconds: float
    began_s: float

    @property
    def statuses(self) -> dict[int, int]:
        """How often each status came."""
        return dict(sorted(Counter(self.status.tolist()).items()))

    @property
    def answered(self) -> float:
        """Share of the requests that were answered 200."""
        return float(np.mean(self.status == 200))

    @property
    def rate(self) -> float:
        """Answers of 200 a second, from the first due time to the last answer."""
        return float(np.count_nonzero(self.status == 200) / self.seconds)

    @property
    def lag_p99_ms(self) -> float:
        """p99 of how late the generator itself sent: without requests that waited for a connection, which is time that
        the server took."""
        own = self.lag_us[~self.waited]
        return float(np.percentile(own, 99)) / 1e3 if len(own) else 0.0

    @property
    def late(self) -> bool:
        """Whether the generator did not keep up, so that latencies are in part its own."""
        return self.lag_p99_ms > LATE_MS

    @property
    def cpu_us(self) -> float:
        """Processor time of the generator a request, in microseconds."""
        return self.cpu_s / len(self.due_s) * 1e6

    def histogram(self) -> Any:
        """HdrHistogram in microseconds, three significant digits, of all but refusals: a request without an answer
        counts with the time that it waited in vain. Needs the bench extra."""
        from hdrh.histogram import HdrHistogram

        histogram = HdrHistogram(1, _LONGEST_US, 3)
        counted = self.latency_us[(self.status == 200) | (self.status == NO_ANSWER)]
        for value, count in zip(*np.unique(counted.clip(1, _LONGEST_US), return_counts=True), strict=True):
            histogram.record_value(int(value), int(count))
        return histogram


def offer(plan: Plan) -> Outcome:
    """Run the plan in this process. Raises OSError where the server cannot be reached."""
    run = _Run(plan)
    gc.collect()
    gc.disable()  # a collection would make sends late
    try:
        return run.outcome()
    finally:
        gc.enable()
        run.close()


def offer_apart(plan: Plan) -> Outcome:
    """Run the plan in a process of its own, which ends with it. Raises subprocess.SubprocessError where it fails."""
    command = [sys.executable, "-c", "from tests.bench.open_loop import serve_one; serve_one()"]
    limit = float(plan.due_s[-1]) + plan.grace_s + _START_UP_S
    done = subprocess.run(
        command, input=pickle.dumps(plan), stdout=subprocess.PIPE, cwd=ROOT, timeout=limit, check=True
    )
    outcome: Outcome = pickle.loads(done.stdout)
    return outcome


def serve_one() -> None:
    """A plan from standard input, its outcome to standard output."""
    pickle.dump(offer(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)


def whole(data: bytes) -> int | None:
    """Status of an answer that is there in full, else None. Raises ValueError without a content-length in lower case,
    as uvicorn writes it: looking for more would cost more than all the rest."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    at = data.find(b"\r\ncontent-length: ", 0, end)
    if at < 0:
        raise ValueError(f"no content-length: {data[:end]!r}")
    length = int(data[at + 18 : data.find(b"\r", at + 18)])
    return int(data[9:12]) if len(data) >= end + 4 + length else None


class _Connection:
    """A socket; `at` is the request under way, or -1."""

    __slots__ = ("at", "got", "socket")

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.at = -1
        self.got = b""

    def greet(self, request: bytes) -> None:
        """One exchange, its answer unread but for its end."""
        self.socket.sendall(request)
        data = b""
        while whole(data) is None:
            more = self.socket.recv(_CHUNK)
            if not more:
                raise ConnectionError("the server closed a connection at its greeting")
            data += more


class _Run:
    """One plan under way."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._count = count = len(plan.due_s)
        self._selector = selectors.DefaultSelector()
        self._free: deque[_Connection] = deque()  # in turn, so that none falls silent for long
        self._latency, self._lag = [-1.0] * count, [-1.0] * count
        self._status, self._waited = [NO_ANSWER] * count, [False] * count
        self._sent = self._done = 0
        self._blocked = -1.0  # whatever was due by then had to wait for a connection
        for _ in range(plan.connections):
            self._open(plan.greeting)

    def outcome(self) -> Outcome:
        """Send and receive until everything is answered or the grace is over."""
        used = getrusage(RUSAGE_SELF)
        begin = perf_counter() + _HEAD_START_S
        self._due = (self._plan.due_s + begin).tolist()
        until = self._due[-1] + self._plan.grace_s
        while self._done < self._count and perf_counter() < until:
            self._send_due()
            self._receive(self._idle_s(until))
        end = perf_counter()
        took = getrusage(RUSAGE_SELF)
        cpu_s = took.ru_utime + took.ru_stime - used.ru_utime - used.ru_stime
        due = np.array(self._due)
        return Outcome(
            due_s=self._plan.due_s,
            latency_us=_microseconds(self._latency, end - due),
            lag_us=_microseconds(self._lag, end - due),
            status=np.array(self._status, dtype=np.int16),
            waited=np.array(self._waited) | (np.arange(self._count) >= self._sent),
            cpu_s=cpu_s,
            seconds=end - begin,
            began_s=begin,
        )

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def _idle_s(self, until: float) -> float:
        """Seconds in which only an answer can bring something to do."""
        next_at = until if self._sent == self._count or not self._free else self._due[self._sent]
        return next_at - perf_counter()

    def _send_due(self) -> None:
        for _ in range(_BURST):
            now = perf_counter()
            if self._sent == self._count or self._due[self._sent] > now:
                return
            if not self._free:
                self._blocked = now
                return
            self._send(self._free.popleft(), now)

    def _send(self, connection: _Connection, now: float) -> None:
        at = connection.at = self._sent
        self._sent += 1
        due = self._due[at]
        self._lag[at] = now - due
        self._waited[at] = due <= self._blocked
        try:
            connection.socket.send(self._plan.requests[at % len(self._plan.requests)])
        except OSError:
            self._replace(connection)

    def _receive(self, idle_s: float) -> None:
        if idle_s > 0:
            # Not the selector's own timeout, which is in whole milliseconds: a send would be as late.
            select.select([self._selector], [], [], idle_s)
        for key, _ in self._selector.select(0):
            self._read(key.data)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        at = connection.at
        if not data or at < 0:
            self._replace(connection)
            return
        if connection.got:
            data = connection.got + data
        status = whole(data)
        if status is None:
            connection.got = data
            return
        self._latency[at] = perf_counter() - self._due[at]
        self._status[at] = status
        self._done += 1
        connection.at, connection.got = -1, b""
        self._free.append(connection)

    def _replace(self, connection: _Connection) -> None:
        """A connection that the server closed; the request under way on it stays without an answer."""
        if connection.at >= 0:
            self._done += 1
        else:
            self._free.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open()

    def _open(self, greeting: bytes | None = None) -> None:
        connection = _Connection(self._plan.host, self._plan.port)
        if greeting is not None:
            connection.greet(greeting)
        connection.socket.setblocking(False)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._free.append(connection)


def _microseconds(measured: list[float], least: Seconds) -> npt.NDArray[np.int64]:
    """Whole microseconds; `least`, in seconds, where nothing was measured."""
    values = np.array(measured)
    return np.round(np.where(values < 0, least, values) * 1e6).astype(np.int64)
