"""What is too large is refused before it is held: bodies of two hundred megabytes cost no memory."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.server import Served, served
from tests.promises.test_inputs_http import rss_mb

_MB = 2**20
_SIZE = 200 * _MB
_PIECE = b"x" * 65_536
_GROWTH_MB = 20.0


@pytest.fixture(scope="module")
def service(tiny_bundles: Path) -> Iterator[Served]:
    """The real service with its usual limit of one megabyte."""
    with served(tiny_bundles, AISLE_PROCESSES="1", AISLE_WORKERS="1") as running:
        yield running


def _head(more: str) -> bytes:
    return f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}\r\n\r\n".encode()


def _push(service: Served, head: bytes, piece: bytes, most: int) -> tuple[bytes, int]:
    """What the server said, and how many bytes of the body were on their way when it said so; the client sends all the
    rest nevertheless, as long as it can."""
    host, port = service.address.removeprefix("http://").split(":")
    sent = told_at = 0
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        try:
            while sent < most:
                connection.sendall(piece)
                sent += len(piece)
                if not told_at and select.select([connection], [], [], 0)[0]:
                    told_at = sent
        except OSError:  # it has hung up
            pass
        said = b""
        try:
            while more := connection.recv(65_536):
                said += more
        except OSError:
            pass
    return said, told_at or sent


@pytest.mark.promise(
    "S4", "413 within 12 MB sent, RSS + ≤ 20 MB", control="200 MB are pushed; a body at the limit is taken"
)
@pytest.mark.parametrize(
    ("head", "piece", "most"),
    [
        (_head(f"Content-Length: {_SIZE}"), _PIECE, _SIZE),
        (_head("Transfer-Encoding: chunked"), b"%x\r\n%s\r\n" % (len(_PIECE), _PIECE), _SIZE),
        (_head("Content-Length: 100000000000"), _PIECE, 4 * _MB),  # says a hundred gigabytes, brings four megabytes
        (_head("Content-Length: 27"), _PIECE, _SIZE),  # says little, brings much: the rest is no request
    ],
    ids=["declared", "in chunks", "says more", "says less"],
)
def test_a_body_that_is_too_large_is_refused_before_it_is_held(
    service: Served, head: bytes, piece: bytes, most: int
) -> None:
    """413 (400 for what follows a request that was complete) as soon as the limit is passed: what is sent until then
    fits into the kernel's buffers. What still comes is thrown away, and memory stays where it was."""
    before = rss_mb(service.process.pid)
    said, sent = _push(service, head, piece, most)
    assert sent <= 12 * _MB
    assert b"HTTP/1.1 413 " in said or (b"HTTP/1.1 400 " in said and b"27" in head) or not said
    assert rss_mb(service.process.pid) - before <= _GROWTH_MB
    assert service.process.poll() is None


@pytest.mark.promise("S4", "1,048,576 bytes are read, 1,048,577 are 413", control="one byte decides")
def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(service: Served) -> None:
    """The control: 1,048,576 bytes are read (and are a fault of another kind), 1,048,577 are not."""
    for size, status in ((_MB, b"422"), (_MB + 1, b"413")):
        body = b'{"query":"mug","nope":"' + b"x" * (size - 25) + b'"}'
        assert len(body) == size
        said, _ = _push(service, _head(f"Content-Length: {size}\r\nConnection: close"), body, size)
        assert said.startswith(b"HTTP/1.1 " + status), said[:300]
