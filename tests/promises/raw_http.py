"""Raw requests over a socket: what is sent is exactly these bytes, and what came back is told in a few words."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_BODY = b'{"query":"steel mug","k":3}'
_LINE = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SOUND = _LINE + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY
CHUNKED = _LINE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY), _BODY)
SEEDS = (
    SOUND,
    CHUNKED,
    b"GET /v1/search?q=mug&k=3 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD /readyz HTTP/1.0\r\n\r\n",
    b"OPTIONS /v1/rescore HTTP/1.1\r\nHost: x\r\n\r\n",
    _LINE.replace(b"/v1/search", b"/v1/rescore").replace(b"json", b"x-ndjson")
    + b'Transfer-Encoding: chunked\r\n\r\n2b\r\n{"query":"mug","candidates":[{"id":"p001"}]}\r\n0\r\n\r\n',
)
_SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

DESYNC: dict[str, bytes] = {
    "length and chunks": _LINE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "chunks and length": _LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "two lengths": _LINE + b"Content-Length: 2\r\nContent-Length: 50\r\n\r\n{}" + _SMUGGLED,
    "two lengths in one": _LINE + b"Content-Length: 2, 50\r\n\r\n{}" + _SMUGGLED,
    "a length with a sign": _LINE + b"Content-Length: +2\r\n\r\n{}" + _SMUGGLED,
    "a negative length": _LINE + b"Content-Length: -2\r\n\r\n{}" + _SMUGGLED,
    "a length in hexadecimal": _LINE + b"Content-Length: 0x2\r\n\r\n{}" + _SMUGGLED,
    "a length with a gap": _LINE + b"Content-Length: 2 5\r\n\r\n{}" + _SMUGGLED,
    "no length at all": _LINE + b"Content-Length: \r\n\r\n{}" + _SMUGGLED,
    "a length beyond 64 bits": _LINE + b"Content-Length: 99999999999999999999999\r\n\r\n{}" + _SMUGGLED,
    "chunks, then another coding": _LINE + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "an unknown coding": _LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a space before the colon": _LINE + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a folded header": _LINE + b"X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a header without a name": _LINE + b": chunked\r\n\r\n" + _SMUGGLED,
    "NUL in a header": _LINE + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}" + _SMUGGLED,
    "CR alone in a header": _LINE + b"X-A: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "a chunk size with a sign": _LINE + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "a chunk size with 0x": _LINE + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "a chunk size that is no number": _LINE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "a chunk size beyond 64 bits": _LINE + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}" + _SMUGGLED,
    "a chunk longer than it says": _LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n" + _SMUGGLED,
    "no line end after a chunk's size": _LINE + b"Transfer-Encoding: chunked\r\n\r\n2{}\r\n0\r\n\r\n" + _SMUGGLED,
    "a version that is none": b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n" + _SMUGGLED,
    "a method in lower case": b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n" + _SMUGGLED,
    "binary": bytes(range(256)) + _SMUGGLED,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + _SMUGGLED,
}
"""What a proxy and a server may read as different numbers of requests: each is refused, and the connection shut."""


@dataclass(frozen=True)
class Told:
    """The statuses that came, and whether the server closed the connection."""

    statuses: tuple[int, ...]
    closed: bool
    raw: bytes


async def told(port: int, sent: bytes, *, patience_s: float) -> Told:
    """Send the bytes and read until the server closes, or has said nothing for so long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received, closed = b"", False
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
        while True:
            try:
                more = await asyncio.wait_for(reader.read(1 << 16), patience_s)
            except TimeoutError:
                break
            except ConnectionError:
                closed = True
                break
            if not more:
                closed = True
                break
            received += more
    finally:
        writer.close()
    return Told(tuple(int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)), closed, received)


def _cut(raw: bytes, draw: random.Random) -> bytes:
    return raw[: draw.randrange(len(raw))]


def _flip(raw: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :]


def _insert(raw: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(raw) + 1)
    what = draw.choice(
        (b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\xff", b"%00", b"{", b"A" * 100, b"\r\n\r\n")
    )
    return raw[:at] + what * draw.choice((1, 1, 1, 3)) + raw[at:]


def _remove(raw: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(raw))
    return raw[:at] + raw[at + draw.randint(1, 12) :]


def _header(raw: bytes, draw: random.Random) -> bytes:
    extra = draw.choice(
        (
            b"Content-Length: %d" % draw.choice((0, 1, 10, 10**6, 10**18)),
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Expect: 100-continue",
            b"Connection: close, keep-alive",
            b"Upgrade: h2c\r\nConnection: Upgrade",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Host: y",
            b"X-Request-Id: " + b"\xe9" * draw.randint(1, 70),
            b"X-Long: " + b"a" * draw.choice((1000, 70_000)),
            b"Content-Type: application/json; charset=\xff",
            b"Accept: application/openmetrics-text;version=nan",
            b"\r\n".join(b"X-%d: 1" % number for number in range(500)),
            b" folded: yes",
        )
    )
    return raw.replace(b"\r\n", b"\r\n" + extra + b"\r\n", 1)


def _line(raw: bytes, draw: random.Random) -> bytes:
    line = draw.choice(
        (
            b"GET /" + b"a" * draw.choice((10, 5000, 70_000)) + b" HTTP/1.1",
            b"GET /../../etc/passwd HTTP/1.1",
            b"GET /v1/products/%ff%fe%00 HTTP/1.1",
            b"GET http://other/livez HTTP/1.1",
            b"GET /v1/search?q=%80&k=%e2%98 HTTP/1.1",
            b"GET /v1/search?" + b"q=a&" * 2000 + b" HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"CONNECT other:443 HTTP/1.1",
            b"TRACE /livez HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"POST /v1/search HTTP/1.0",
            b"DELETE /v1/search HTTP/1.1",
            b"FOO /v1/search HTTP/1.1",
        )
    )
    return line + raw[raw.index(b"\r\n") :]


def _pipeline(raw: bytes, draw: random.Random) -> bytes:
    return raw * draw.randint(2, 20) + _cut(raw, draw)


_MUTATIONS: Sequence[Callable[[bytes, random.Random], bytes]] = (
    _cut,
    _flip,
    _insert,
    _remove,
    _header,
    _line,
    _pipeline,
)


def mutated(number: int) -> bytes:
    """The request of this number: a sound one after one to three mutations; the same on every run."""
    draw = random.Random(number)
    raw = draw.choice(SEEDS)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if not raw:
            break
        raw = draw.choice(_MUTATIONS)(raw, draw) if b"\r\n" in raw else _flip(raw, draw)
    return raw
