"""Searches at fixed times from a thread of its own, every answer looked at: a small sibling of tests/bench/open_loop.py
that keeps bodies and headers, opens a connection for each request that finds none free, and says how a request failed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import uvloop

from tests import tiny

PATIENCE_S = 15.0
_MEMBERS = {"request_id", "took_ms", "cached", "version", "tier", "degraded", "calibrated", "corrected"}
_MEMBERS |= {"relaxed", "truncated", "word_matches", "total", "hits", "facets"}
_HIT = {"id", "score", "product", "explanation"}


@dataclass
class Answer:
    """What became of one request; times are of the monotonic clock. `failure` is why it got no whole answer."""

    number: int
    due: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0
    failure: str = ""
    fresh: bool = False
    tries: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ms(self) -> float:
        """From when it was due."""
        return (self.done - self.due) * 1e3

    @property
    def problem(self) -> str:
        """Why it counts as failed: transport, status, or an answer that is not what the schema says. "" where not."""
        if self.failure or self.status != 200:
            return self.failure or f"status {self.status}"
        try:
            found = orjson.loads(self.body)
            whole = found.keys() >= _MEMBERS and all(hit.keys() >= _HIT for hit in found["hits"])
        except (ValueError, AttributeError, TypeError, KeyError):
            return "not the declared schema"
        return "" if whole else "not the declared schema"


Look = Callable[[Answer], None]
Body = Callable[[int], dict[str, Any]]


def searches(number: int) -> dict[str, Any]:
    """A search like no other."""
    rows = _ROWS
    return {"query": f"{rows[number % len(rows)]['title']} {number}", "k": 5}


_ROWS = tiny.products()


class Load:
    """Requests at `rate` a second for as long as the block lasts; `answers` are those that have ended, in that order.

    With a `name` request 7 says that its id is the name and 7; else the service finds one. `look` sees each answer, on
    the load's thread. At most `most` are under way: beyond that a request is left out, and counted in `left_out`, so
    that a rate out of reach makes a closed loop. What was not answered 200 is asked again at once, `retries` times."""

    def __init__(
        self,
        address: str,
        rate: float,
        *,
        body: Body = searches,
        look: Look | None = None,
        path: str = "/v1/search",
        most: int = 2000,
        name: str = "",
        retries: int = 0,
    ) -> None:
        parts = urlsplit(address)
        self._place = (parts.hostname or "", parts.port or 0)
        self._head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        self._rate, self._body, self._look, self._most, self._name = rate, body, look, most, name
        self._retries = retries
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.answers: list[Answer] = []
        self.left_out = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> list[Answer]:
        """Send nothing more, wait for what is under way."""
        self._stopping.set()
        self._thread.join(PATIENCE_S + 10)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.answers

    def until(self, holds: Callable[[], bool], patience_s: float = 30.0, every_s: float = 0.01) -> None:
        """Wait, while it goes on, until something holds."""
        deadline = time.monotonic() + patience_s
        while not holds():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(every_s)

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._send())
        except BaseException as error:
            self.error = error

    async def _send(self) -> None:
        begin = time.monotonic()
        number = 0
        while not self._stopping.is_set():
            due = begin + number / self._rate
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(min(wait, 0.1))
                continue
            if len(self._under_way) >= self._most:
                self.left_out += 1
                await asyncio.sleep(0)
            else:
                task = asyncio.create_task(self._ask(Answer(number, due)))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            number += 1
        if self._under_way:
            await asyncio.wait(self._under_way)
        for _, writer in self._free:
            writer.close()

    async def _ask(self, answer: Answer) -> None:
        for _ in range(1 + self._retries):
            answer.tries += 1
            answer.failure = ""
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._exchange(answer)
            except TimeoutError:
                answer.failure = "no answer"
            except (OSError, EOFError, ValueError) as error:
                answer.failure = type(error).__name__
            if answer.status == 200 and not answer.failure:
                break
        answer.done = time.monotonic()
        self.answers.append(answer)
        if self._look is not None:
            self._look(answer)

    async def _exchange(self, answer: Answer) -> None:
        raw = orjson.dumps(self._body(answer.number))
        own = f"x-request-id: {self._name}{answer.number}\r\n" if self._name else ""
        head = f"{self._head}{own}content-length: {len(raw)}\r\n\r\n"
        answer.sent = time.monotonic()
        while self._free and (self._free[-1][0].at_eof() or self._free[-1][1].is_closing()):
            self._free.pop()[1].close()  # the server has closed it, and said so
        if self._free:
            reader, writer = self._free.pop()
        else:
            answer.fresh = True
            reader, writer = await asyncio.open_connection(*self._place)
        kept = False
        try:
            answer.sent = time.monotonic()
            writer.write(head.encode() + raw)
            await self._read(reader, answer)
            kept = answer.headers.get("connection", "").lower() != "close"
        finally:
            if kept:
                self._free.append((reader, writer))
            else:
                with suppress(OSError):
                    writer.close()

    async def _read(self, reader: asyncio.StreamReader, answer: Answer) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
        }
        answer.status = int(head[0].split()[1])
        answer.body = await reader.readexactly(int(answer.headers["content-length"]))


def failed(answers: Sequence[Answer]) -> list[str]:
    """What went wrong, once each with its count."""
    told = Counter(problem for answer in answers if (problem := answer.problem))
    return [f"{count} × {problem}" for problem, count in told.most_common()]


def p99_ms(answers: Sequence[Answer]) -> float:
    """Of those that were answered 200."""
    return float(np.percentile([answer.ms for answer in answers if answer.status == 200], 99))


def capacity(address: str, seconds: float = 2.0, most: int = 32) -> float:
    """Searches a second that a closed loop of `most` clients brings."""
    with Load(address, 20_000, most=most) as load:
        time.sleep(seconds)
        done = len(load.answers)
    assert not failed(load.answers), failed(load.answers)
    return done / seconds
