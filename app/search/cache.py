"""The cache of answers and query vectors, in two levels.

    local_answer / local_vector      first level, this process: microseconds
    fetch                            second level, Redis: one round trip, bounded, never an error
    put                              first level now, Redis in the background

A key holds everything that its value depends on (the served version among it), so a value never becomes wrong and
nothing is ever invalidated; the time to live bounds only how long an unused one is held. Whatever is read begins a new
life, in Redis too, so that a hot entry never ends under those who ask for it.

All of it is for one event loop's thread: there are no locks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.metrics import CACHE
from app.search.cache_entry import (
    MAX_ENTRY_BYTES,
    Kind,
    answer_key,
    frozen_vector,
    redis_key,
    unseal,
    vector_key,
    vector_of,
    vector_payload,
)
from app.search.cache_local import LocalLevel
from app.search.cache_redis import RedisLevel
from app.types import Floats

__all__ = ["Cache", "answer_key", "vector_key"]

# An answer takes some 10 KB, a vector 1.5 KB: a quarter for vectors remembers more queries than there are answers,
# so a new version of the catalogue, which outdates every answer, still finds its vectors.
_VECTOR_SHARE = 4


class Cache:
    """Two levels over answers (bytes) and vectors (float32 [d]); `open` before use, `close` in the end.

    `local_bytes` bounds the first level (0 switches it off), `redis_url` names the second (None: there is none).
    Raises ValueError for an address that is not one of Redis and for a time to live that is not positive.
    """

    def __init__(
        self,
        local_bytes: int,
        redis_url: str | None,
        ttl_s: float,
        *,
        redis_timeout_s: float = 0.015,
        breaker_threshold: int = 3,
        breaker_retry_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if ttl_s <= 0:
            raise ValueError(f"a time to live must be positive, not {ttl_s} s")
        vector_bytes = local_bytes // _VECTOR_SHARE
        self._answers: LocalLevel[bytes] = LocalLevel("answer", local_bytes - vector_bytes, ttl_s, clock)
        self._vectors: LocalLevel[Floats] = LocalLevel("vector", vector_bytes, ttl_s, clock)
        self._redis: RedisLevel | None = None
        if redis_url is not None:
            self._redis = RedisLevel(
                redis_url,
                ttl_s=ttl_s,
                timeout_s=redis_timeout_s,
                breaker_threshold=breaker_threshold,
                breaker_retry_s=breaker_retry_s,
            )

    @property
    def shared(self) -> bool:
        """Whether there is a second level, which takes a moment to ask."""
        return self._redis is not None

    @property
    def breaker_open(self) -> bool:
        """Whether Redis is being skipped after repeated failures."""
        return self._redis is not None and self._redis.breaker.is_open

    async def open(self) -> None:
        """Starts the tasks that speak with Redis. Redis itself need not be there, now or later."""
        if self._redis is not None:
            self._redis.open()

    async def close(self) -> None:
        """Stops the tasks, closes the connections and empties the first level. Writes still queued are dropped."""
        if self._redis is not None:
            await self._redis.close()
        self._answers.clear()
        self._vectors.clear()

    def local_answer(self, key: bytes) -> bytes | None:
        """The answer, if the first level has it."""
        return self._answers.get(key)

    def local_vector(self, key: bytes) -> Floats | None:
        """The vector (read-only, float32 [d]), if the first level has it."""
        return self._vectors.get(key)

    async def fetch(self, answer_key: bytes | None, vector_key: bytes | None) -> tuple[bytes | None, Floats | None]:
        """What Redis has of the two, in one round trip, kept in the first level too.

        Never raises (but for the caller's own cancellation) and never takes longer than the timeout of Redis; while
        Redis is skipped, absent or not configured, it answers (None, None) at once.
        """
        if self._redis is None:
            return None, None
        names = [] if answer_key is None else [redis_key("answer", answer_key)]
        if vector_key is not None:
            names.append(redis_key("vector", vector_key))
        stored = await self._redis.get(names)
        if stored is None:
            return None, None
        answer = self._received_answer(answer_key, stored[0]) if answer_key is not None else None
        vector = self._received_vector(vector_key, stored[-1]) if vector_key is not None else None
        return answer, vector

    def put(
        self, answer_key: bytes | None, answer: bytes | None, vector_key: bytes | None, vector: Floats | None
    ) -> None:
        """Keeps what is given (a pair with None is left out). A vector with a value that is not finite is not kept."""
        if answer_key is not None and answer is not None:
            self._answers.put(answer_key, answer, len(answer))
            self._send("answer", answer_key, answer)
        if vector_key is not None and vector is not None:
            kept = frozen_vector(vector)
            if kept is not None:
                self._vectors.put(vector_key, kept, kept.nbytes)
                if self._redis is not None:
                    self._send("vector", vector_key, vector_payload(kept))

    def _send(self, kind: Kind, key: bytes, payload: bytes) -> None:
        if self._redis is not None and len(payload) <= MAX_ENTRY_BYTES:
            self._redis.put_later(kind, key, payload)

    def _renew(self, kind: Kind, key: bytes) -> None:
        if self._redis is not None:
            self._redis.renew_later(kind, key)

    def _received_answer(self, key: bytes, stored: bytes | None) -> bytes | None:
        answer = None if stored is None else unseal("answer", key, stored)
        if answer is not None:
            self._renew("answer", key)
            self._answers.put(key, answer, len(answer))
        _count_received("answer", stored, answer is not None)
        return answer

    def _received_vector(self, key: bytes, stored: bytes | None) -> Floats | None:
        payload = None if stored is None else unseal("vector", key, stored)
        vector = None if payload is None else vector_of(payload)
        if vector is not None:
            self._renew("vector", key)
            self._vectors.put(key, vector, vector.nbytes)
        _count_received("vector", stored, vector is not None)
        return vector


_RECEIVED = {
    kind: {event: CACHE.labels(kind, "redis", event) for event in ("hit", "miss", "corrupt")}
    for kind in ("answer", "vector")
}


def _count_received(kind: Kind, stored: bytes | None, opened: bool) -> None:
    event = "miss" if stored is None else "hit" if opened else "corrupt"
    _RECEIVED[kind][event].inc()
