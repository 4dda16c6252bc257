"""What a process that shares a port with others does for it: its own sockets, and the talk with its supervisor
(app/processes.py)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's name for where processes put what they count
LOADED, LISTEN, ALIVE = b"loaded\n", b"listen\n", b"."
BEAT_S = 1.0


def bind(host: str, port: int, *, alone: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of `host`, to be shared with other processes; not listening yet. `alone`: refused
    where somebody listens already, whom the kernel would share the port with. Raises OSError."""
    bound: list[socket.socket] = []
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        place = (address[0], bound[0].getsockname()[1] if bound else port, *address[2:])
        if alone and place[1]:
            with socket.socket(family, kind, protocol) as probe:
                _options(probe)
                probe.bind(place)
        one = socket.socket(family, kind, protocol)
        bound.append(one)
        _options(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(place)
    return bound


class Membership:
    """A member's end of the talk with its supervisor."""

    def __init__(self, channel: socket.socket, given: bytes, core: int) -> None:
        self.given = given
        self.core = core
        """Of its own; −1 where it has none."""
        self._channel = channel

    @classmethod
    def join(cls, descriptor: int, core: int) -> Membership:
        """Read the line that the supervisor gives every member."""
        channel = socket.socket(fileno=descriptor)
        return cls(channel, _line(channel), core)

    async def loaded(self) -> None:
        """Say so, and wait to be told to listen. Raises ConnectionError where the supervisor has gone."""
        self._channel.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._channel, LOADED)
        if not await loop.sock_recv(self._channel, len(LISTEN)):
            raise ConnectionError("the supervisor has gone")

    async def live(self, stop: Callable[[], None]) -> None:
        """Give signs of life; call `stop` when the supervisor has gone."""
        loop = asyncio.get_running_loop()
        gone = asyncio.ensure_future(loop.sock_recv(self._channel, 1))
        while not gone.done():
            try:
                await loop.sock_sendall(self._channel, ALIVE)
            except OSError:
                break
            await asyncio.wait((gone,), timeout=BEAT_S)
        stop()


def _options(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _line(channel: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        more = channel.recv(1 << 16)
        if not more:
            raise ConnectionError("the supervisor has gone")
        read += more
    return read
