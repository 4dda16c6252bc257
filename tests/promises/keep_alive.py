"""A keep-alive connection, as thin as Python allows, that counts what it was told."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def request(method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
    """The bytes of a request; `body` is sent as JSON unless it is bytes."""
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n"
    if body is not None:
        head += f"content-type: {kind}\r\ncontent-length: {len(raw)}\r\n"
    return head.encode() + b"\r\n" + raw


class KeepAlive:
    """Asks one thing after the other; connects again where the server has closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.statuses: Counter[int] = Counter()

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        """Status and body. Raises ConnectionError or asyncio.IncompleteReadError for no answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        found = _LENGTH.search(head)
        body = b""
        if found and status != 204 and not sent.startswith(b"HEAD"):
            body = await reader.readexactly(int(found[1]))
        elif b"transfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        if b"connection: close" in head:
            self.close()
        self.statuses[status] += 1
        return status, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def abandoned(port: int, sent: bytes) -> None:
    """Send a request and leave."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    writer.close()
