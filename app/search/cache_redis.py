"""The second level of the cache: Redis, which may be absent, slow, full or wrong at any time.

    callers ──▶ asks ──▶ reader task ──▶ one connection     MGET of all that wait, one round trip at a time
    put_later ▶ queue ─▶ writer task ──▶ one connection     pipelined SET … PX, and PEXPIRE of what was read

Callers never touch a connection. A caller who is cancelled leaves only a future behind, so the reply meant for one
cannot be read as another's (redis-py #2624, #2665), and a round that fails closes its connection.

The reader also keeps the circuit breaker: after `breaker_threshold` failed rounds in a row nobody asks Redis any more,
and the reader alone tries it once in `breaker_retry_s` until it answers in time.

All of it is for one event loop's thread: there are no locks.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.metrics import CACHE, REDIS_BREAKER_OPEN, REDIS_ERRORS
from app.search.cache_entry import Kind, redis_key, seal
from app.search.cache_link import InvalidReply, Link, ReplyError, cause_of

# Bounds of one round trip and of the queue of writes: large enough never to matter in health.
_ASKS_A_ROUND = 32
_WRITES_A_ROUND = 64
_BYTES_A_ROUND = 1 << 18
_QUEUE_ENTRIES = 1024
_QUEUE_BYTES = 8 << 20
# From this part of the timeout on, an answer is late: one caller goes on waiting for it, the others go without.
_LATE_SHARE = 0.2
# Nobody waits for a write, so it may take longer than a read.
_WRITE_TIMEOUT_S = 0.25
# Spreads the expiry of entries written at the same time, such as those of a warm-up.
_TTL_JITTER = 0.1
_PROBE_KEY = b"aisle:1:probe"


class RedisLevel:
    """Reads and writes stored entries by name. Not one method raises for anything that Redis does."""

    def __init__(
        self, url: str, *, ttl_s: float, timeout_s: float, breaker_threshold: int, breaker_retry_s: float
    ) -> None:
        self.breaker = Breaker(breaker_threshold)
        self._timeout_s = timeout_s
        self._retry_s = breaker_retry_s
        self._reading = Link(url)
        self._asks: list[_Ask] = []
        self._in_flight: list[_Ask] = []
        self._sent_at = 0.0
        self._asked = asyncio.Event()
        self._writer = _Writer(Link(url), ttl_s, self.breaker)
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Starts the reader and the writer; they connect when there is something to do."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._read(), name="cache reader"),
                asyncio.create_task(self._writer.run(), name="cache writer"),
            ]

    async def close(self) -> None:
        """Stops both tasks, lets waiting callers go with nothing, and closes the connections."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._release()
        await self._reading.drop()
        await self._writer.close()

    async def get(self, names: Sequence[bytes]) -> Sequence[bytes | None] | None:
        """The stored bytes by name, None for one that is absent; None in all when Redis gave no answer in time."""
        if not self._tasks or not names:
            return None
        if self.breaker.is_open or self._is_late():
            _count_errors("breaker_open" if self.breaker.is_open else "late")
            return None
        loop = asyncio.get_running_loop()
        ask = _Ask(names, loop.time(), loop.create_future())
        self._asks.append(ask)
        self._asked.set()
        return await ask.reply

    def put_later(self, kind: Kind, key: bytes, payload: bytes) -> None:
        """Queues a write, or drops and counts it when the queue is full or Redis is being skipped."""
        if self._tasks:
            self._writer.put(_Write(kind, key, payload))

    def renew_later(self, kind: Kind, key: bytes) -> None:
        """Queues a new life for an entry that was read."""
        if self._tasks:
            self._writer.put(_Write(kind, key, None))

    def _is_late(self) -> bool:
        # Redis answers in a tenth of a millisecond. Joining callers who wait for a late answer, or the one who tries
        # Redis again after a failure, could only lose time: so a hang costs some `breaker_threshold` calls, not all
        # that come meanwhile.
        if self.breaker.failures > 0:
            return bool(self._in_flight or self._asks)
        waited = asyncio.get_running_loop().time() - self._sent_at
        return bool(self._in_flight) and waited > self._timeout_s * _LATE_SHARE

    async def _read(self) -> None:
        while True:
            if self.breaker.is_open:
                await self._probe()
            else:
                await self._asked.wait()
                await self._round()

    async def _round(self) -> None:
        """One MGET for those who wait and have not left, within the timeout of the first of them."""
        self._in_flight = [ask for ask in self._asks[:_ASKS_A_ROUND] if not ask.reply.done()]
        del self._asks[:_ASKS_A_ROUND]
        if not self._asks:
            self._asked.clear()
        if not self._in_flight:
            return
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        deadline = self._in_flight[0].asked_at + self._timeout_s
        # A turn later than that: a loop that stood still takes replies that came meanwhile.
        late = loop.call_later(self._timeout_s * _LATE_SHARE, loop.call_soon, self._let_all_but_one_go)
        try:
            values = await self._mget([name for ask in self._in_flight for name in ask.names], deadline)
        except Exception as error:  # noqa: BLE001  whatever came, no caller may be left waiting
            _count_errors(cause_of(error), self._release())
            self.breaker.failed()
        else:
            self.breaker.succeeded()
            self._answer(values)
        finally:
            late.cancel()
        self._in_flight = []

    async def _mget(self, names: Sequence[bytes], deadline: float) -> list[bytes | None]:
        (values,) = await self._reading.ask([(b"MGET", *names)], deadline)
        if isinstance(values, ReplyError):
            raise values
        if not isinstance(values, list) or len(values) != len(names):
            await self._reading.drop()
            raise InvalidReply("the reply is not one value for each key")
        return [value if isinstance(value, bytes) else None for value in values]

    def _answer(self, values: list[bytes | None]) -> None:
        start = 0
        for ask in self._in_flight:
            end = start + len(ask.names)
            if not ask.reply.done():
                ask.reply.set_result(values[start:end])
            start = end

    def _let_all_but_one_go(self) -> None:
        """So that a hang costs `breaker_threshold` calls a timeout, however many had come within the same moment."""
        waiting = [ask for ask in (*self._in_flight, *self._asks) if not ask.reply.done()]
        for ask in waiting[1:]:
            ask.reply.set_result(None)
        _count_errors("late", len(waiting[1:]))  # nobody may be left: the timer can be a turn behind its round

    def _release(self) -> int:
        """Lets all who wait go with nothing; how many they were."""
        waiting = [ask for ask in (*self._in_flight, *self._asks) if not ask.reply.done()]
        for ask in waiting:
            ask.reply.set_result(None)
        self._asks.clear()
        self._asked.clear()
        return max(1, len(waiting))

    async def _probe(self) -> None:
        await asyncio.sleep(self._retry_s)
        try:
            # The command that callers need, not PING, which works where reading is forbidden. It has to connect too.
            await self._mget([_PROBE_KEY], asyncio.get_running_loop().time() + 2 * self._timeout_s)
        except Exception:  # noqa: BLE001  the task must live on
            _count_errors("probe")
        else:
            self.breaker.succeeded()


class Breaker:
    """Opens after `threshold` failures in a row, closes on a success."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self.is_open = False
        self.failures = 0

    def failed(self) -> None:
        """Counts a failure."""
        self.failures += 1
        if self.failures >= self._threshold and not self.is_open:
            self.is_open = True
            REDIS_BREAKER_OPEN.set(1)

    def succeeded(self) -> None:
        """Forgets the failures."""
        self.failures = 0
        if self.is_open:
            self.is_open = False
            REDIS_BREAKER_OPEN.set(0)


class _Ask(NamedTuple):
    """A caller's wish: the names, when it came (loop time), and the future that its caller awaits."""

    names: Sequence[bytes]
    asked_at: float
    reply: asyncio.Future[Sequence[bytes | None] | None]


class _Write(NamedTuple):
    """An entry to keep, or, without a payload, one to keep for longer."""

    kind: Kind
    key: bytes
    payload: bytes | None


class _Writer:
    """Sends queued entries, many in one round trip; an entry that cannot be sent is dropped, never tried again."""

    def __init__(self, link: Link, ttl_s: float, breaker: Breaker) -> None:
        self._link = link
        self._ttl_ms = ttl_s * 1000
        self._breaker = breaker
        self._queue: deque[_Write] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()

    def put(self, write: _Write) -> None:
        full = len(self._queue) >= _QUEUE_ENTRIES or self._queued_bytes + _size(write) > _QUEUE_BYTES
        if full or self._breaker.is_open:
            _count_write(write, "dropped")
            return
        self._queue.append(write)
        self._queued_bytes += _size(write)
        self._queued.set()

    async def run(self) -> None:
        while True:
            await self._queued.wait()
            await self._send(self._take())

    async def close(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self._queued.clear()
        await self._link.drop()

    def _take(self) -> list[_Write]:
        taken: list[_Write] = []
        size = 0
        while self._queue and len(taken) < _WRITES_A_ROUND and size < _BYTES_A_ROUND:
            taken.append(self._queue.popleft())
            size += _size(taken[-1])
        self._queued_bytes -= size
        if not self._queue:
            self._queued.clear()
        return taken

    async def _send(self, writes: Sequence[_Write]) -> None:
        replies: Sequence[Any] = ()
        if not self._breaker.is_open:
            try:
                deadline = asyncio.get_running_loop().time() + _WRITE_TIMEOUT_S
                replies = await self._link.ask([self._command(write) for write in writes], deadline)
            except Exception:  # noqa: BLE001  the task must live on
                _count_errors("write")
        _count_errors("reply", sum(isinstance(reply, ReplyError) for reply in replies))
        for write, reply in zip(writes, replies or [None] * len(writes), strict=True):
            _count_write(write, "stored" if reply == b"OK" else "dropped")

    def _command(self, write: _Write) -> tuple[bytes | int, ...]:
        lifetime = max(1, int(self._ttl_ms * random.uniform(1 - _TTL_JITTER, 1 + _TTL_JITTER)))
        name = redis_key(write.kind, write.key)
        if write.payload is None:
            return b"PEXPIRE", name, lifetime
        return b"SET", name, seal(write.kind, write.key, write.payload), b"PX", lifetime


def _size(write: _Write) -> int:
    return len(write.payload or b"")


def _count_write(write: _Write, event: str) -> None:
    if write.payload is not None:
        CACHE.labels(write.kind, "redis", event).inc()


def _count_errors(cause: str, calls: int = 1) -> None:
    if calls:
        REDIS_ERRORS.labels(cause).inc(calls)
