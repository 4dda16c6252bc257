"""A real redis-server for tests, with the faults that it can have, and a false one that answers what it is told.

`redis_server` is a pytest fixture; it skips where redis-server is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

_START_S = 10.0


class RedisServer:
    """A redis-server of one test, on a unix socket and a loopback port, that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "redis.sock"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # For the test itself, not for what is tested: waits, does not retry.
        self.control = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=_START_S)

    @property
    def url(self) -> str:
        """Its address over TCP."""
        return f"redis://127.0.0.1:{self._port}"

    @property
    def unix_url(self) -> str:
        """Its address over the unix socket."""
        return f"unix://{self._socket}"

    @property
    def running(self) -> bool:
        """Whether its process lives (stopped by a signal counts as alive)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it, empty, and returns when it answers. After `kill` it comes back under the same addresses."""
        for _ in range(3):
            self._process = subprocess.Popen(
                ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--unixsocket", str(self._socket),
                 "--dir", str(self._folder), "--save", "", "--appendonly", "no", "--enable-debug-command", "local"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if self._answers():
                return
            self._port = _free_port()
        raise RuntimeError("redis-server does not start")

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.control.connection_pool.disconnect()

    def hang(self) -> None:
        """SIGSTOP: its sockets stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_S
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError, OSError):
                if self.control.ping():
                    return True
            time.sleep(0.005)
        return False


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running redis-server; killed after the test."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    # Not tmp_path: the path of a unix socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="aisle-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
            server.control.close()


class FalseRedis:
    """Listens on loopback and answers every read with `reply`, after `delay_s`; then hangs up if `closes`."""

    def __init__(self, reply: bytes, *, delay_s: float = 0.0, closes: bool = False) -> None:
        self.reply = reply
        self.asked = 0
        self.port = 0
        self._delay_s = delay_s
        self._closes = closes

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[FalseRedis]:
        """Serves inside the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(1 << 16):
                self.asked += 1
                await asyncio.sleep(self._delay_s)
                writer.write(self.reply)
                await writer.drain()
                if self._closes:
                    break
        writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
