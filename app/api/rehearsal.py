"""Searches before the doors open, through everything that a shopper's pass: socket, protocol, edge, cache, queue.

Warming the stages alone left the first request at 4 to 5 ms where later ones take 1.4, and the next two at 2 to 3."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import cycle, islice
from secrets import randbelow

import orjson
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from app import metrics
from app.api.keys import Keys
from app.api.protocol import TimedHttpProtocol

_SEARCHES = 24
_PATIENCE_S = 5.0
_HEAD = b"POST /v1/search HTTP/1.1\r\nhost: aisle\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_log = logging.getLogger("aisle")

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def rehearse(app: FastAPI, config: uvicorn.Config, texts: Mapping[str, Sequence[str]]) -> None:
    """Search for texts like these, by collection. Counted and logged nowhere. What goes wrong is a warning: the first
    shoppers would wait a little longer, no more."""
    try:
        with metrics.uncounted(), _unlocked(app):
            async with asyncio.timeout(_PATIENCE_S), _connection(config) as stream:
                refused = [status for request in _requests(texts) if (status := await _ask(stream, request)) != 200]
    except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
        _log.warning("the first searches may be slow: the rehearsal failed (%s)", type(error).__name__)
        return
    if refused:
        _log.warning("the first searches may be slow: %d of the rehearsal's failed with %d", len(refused), refused[0])


def _requests(texts: Mapping[str, Sequence[str]]) -> Iterator[bytes]:
    """The collections in turn. With a number, so that no cache has the answer."""
    each = [zip(cycle([name]), cycle(some), strict=False) for name, some in texts.items() if some]
    for name, text in islice((pair for pairs in zip(*each, strict=False) for pair in pairs), _SEARCHES):
        body = orjson.dumps({"query": f"{text} {randbelow(10_000)}", "collection": name})
        yield _HEAD % len(body) + body


async def _ask(stream: Stream, request: bytes) -> int:
    """The answer's status."""
    reader, writer = stream
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


@asynccontextmanager
async def _connection(config: uvicorn.Config) -> AsyncIterator[Stream]:
    """To the server's protocol, over a pair of sockets that nobody else can reach. At its end nothing is under way."""
    ours, its = socket.socketpair()
    for one in (ours, its):
        one.setblocking(False)
    state = ServerState()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: TimedHttpProtocol(config, state, {}), its)
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(*state.tasks, return_exceptions=True)


@contextmanager
def _unlocked(app: FastAPI) -> Iterator[None]:
    """No keys and no log of queries, while nobody but the rehearsal can ask."""
    keys, edge = app.state.keys, app.state.edge
    app.state.keys, app.state.edge = Keys(None), replace(edge, log_queries=False)
    try:
        yield
    finally:
        app.state.keys, app.state.edge = keys, edge
