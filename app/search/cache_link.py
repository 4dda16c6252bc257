"""One connection to Redis, and the only place that knows redis-py: its errors leave here as causes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio.connection import Connection, ConnectionPool, parse_url
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, InvalidResponse, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError as ReplyError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["InvalidReply", "Link", "ReplyError", "cause_of"]

InvalidReply = InvalidResponse

_GRACE_S = 0.005


class Link:
    """A connection for one task. Connects when it is needed; after any doubt about its replies it starts afresh."""

    def __init__(self, url: str) -> None:
        self._connection = _connection(url)

    async def ask(self, commands: Sequence[tuple[Any, ...]], deadline: float) -> list[Any]:
        """One reply for each command, an error reply as a ReplyError value. Raises by `deadline` (loop time)."""
        try:
            # One deadline over connecting, sending and receiving: redis-py's own would begin anew for each of them,
            # and its timed send costs a task (measured: 30 µs of 60).
            async with _until(deadline):
                used_before = self._connection.is_connected
                try:
                    return await self._exchange(commands)
                except RedisConnectionError:
                    if not used_before:
                        raise
                # An idle connection may have been closed long ago (a restart, the server's `timeout`), which says
                # nothing about Redis now. Reads and writes here may be repeated.
                await self.drop()
                return await self._exchange(commands)
        except BaseException:
            await self.drop()
            raise

    async def drop(self) -> None:
        """Closes the connection, without waiting for the other side."""
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    async def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        packed = self._connection.pack_commands(commands)
        await self._connection.send_packed_command(packed, check_health=False)
        return [await self._reply() for _ in commands]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ReplyError as error:
            return error


@contextlib.asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    """asyncio.timeout_at, but a loop that stood still past the deadline still takes a reply that came meanwhile.

    A timer that is overdue runs in the same turn as the arrival of data and would cancel a task that has its reply, so
    a stall of this process would look like a failure of Redis. Where the timer is late the limit moves by as much, at
    most 5 ms.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        def expire() -> None:
            now = loop.time()
            limit.reschedule(now + min(now - deadline, _GRACE_S))

        timer = loop.call_at(deadline, expire)
        try:
            yield
        finally:
            timer.cancel()


def _connection(url: str) -> Any:
    """A connection that is not yet made. Raises ValueError, without the address, which may hold a password."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
        kind = options.pop("connection_class", Connection)
        # RESP2 without driver information connects without a round trip; both protocols read alike. Nothing in the
        # address may bring back waits or retries.
        options |= {
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "health_check_interval": 0,
            "retry": None,
            "retry_on_timeout": False,
            "retry_on_error": [],
            "decode_responses": False,
        }
        pool: Any = ConnectionPool(connection_class=kind, **options)
        return pool.make_connection()
    except (ValueError, TypeError):
        raise ValueError("the address of Redis is not one: redis://, rediss:// or unix://") from None


def cause_of(error: Exception) -> str:
    """The cause by which a failed call is counted: timeout, connection or reply."""
    if isinstance(error, (TimeoutError, RedisTimeoutError)):
        return "timeout"
    if isinstance(error, (AuthenticationError, AuthorizationError, BusyLoadingError)):
        return "reply"
    return "connection" if isinstance(error, (RedisConnectionError, OSError)) else "reply"
