"""Deadlines of a connection, over loopback sockets with short limits."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from time import monotonic
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.protocol import TimedHttpProtocol
from tests.api.conftest import edge_app
from tests.api.stub_service import StubService

LIMIT_S = 0.3
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
STREAM = (
    b"POST /v1/rescore HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Impatient(TimedHttpProtocol):
    """The protocol under test, with limits that a test can wait for."""

    read_within_s = LIMIT_S
    write_within_s = LIMIT_S
    linger_s = LIMIT_S


class Lingering(Impatient):
    """Leaves time to read what was sent before the end."""

    linger_s = 5.0


@asynccontextmanager
async def serving(http: type[HttpToolsProtocol] = Impatient, **options: Any) -> AsyncIterator[int]:
    """The edge behind uvicorn on a free port of the loopback interface; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    app = edge_app(StubService(), **options)
    config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[assignment, method-assign]  # signals are the test runner's
    ready = asyncio.Event()
    original = server.startup

    async def startup(sockets: Any = None) -> None:
        await original(sockets=sockets)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]  # uvicorn tells nobody that it listens
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await ready.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await running


def _no_signals() -> Any:

    return nullcontext()


async def closed_after(reader: asyncio.StreamReader) -> tuple[bytes, float]:
    """What came until the server closed the connection, and how long that took."""
    started = monotonic()
    try:
        received = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        received = b""
    return received, monotonic() - started


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ", HEAD + b"Content-Length: 100\r\n\r\n{",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", b"\r\n\r\n"],
)  # fmt: skip
async def test_a_request_that_does_not_arrive_in_time_is_cut(beginning: bytes) -> None:
    """Head or body, first request or later one: closed at the limit."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)
        _, seconds = await closed_after(reader)
        assert LIMIT_S * 0.5 <= seconds <= LIMIT_S + 1
        writer.close()


@pytest.mark.parametrize("part", [b"X-Drip: 1\r\n", b" "])
async def test_dripping_does_not_buy_time(part: bytes) -> None:
    """The limit is for the whole request, not for each piece of it."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET[:-2] if part != b" " else HEAD + b"Content-Length: 100000\r\n\r\n")
        closing = asyncio.create_task(closed_after(reader))
        while not closing.done():
            writer.write(part)
            await asyncio.wait([closing], timeout=LIMIT_S / 10)
        received, seconds = closing.result()
        assert seconds <= LIMIT_S + 1
        assert not received or received.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_stray_line_ends_do_not_hold_a_connection() -> None:
    """After an answer too."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await _answer(reader)
        writer.write(b"\r\n")
        _, seconds = await closed_after(reader)
        assert LIMIT_S * 0.5 <= seconds <= LIMIT_S + 1
        writer.close()


async def test_a_body_that_comes_after_the_answer_before_it_is_read() -> None:
    """Its head came with the request before, whose answer must not end the connection."""
    body = b'{"query": "tea"}'
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        assert (await _answer(reader))[0] == 200
        await asyncio.sleep(LIMIT_S / 3)
        writer.write(body)
        assert (await _answer(reader))[0] == 200
        writer.close()


class Unsociable(TimedHttpProtocol):
    """Lets go of who has not asked for a moment."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.timeout_keep_alive = LIMIT_S  # type: ignore[assignment]  # uvicorn's are whole seconds


async def test_an_idle_connection_is_let_go_of_after_its_last_request() -> None:
    """Requests in between keep it, and one that has begun has the time that requests have."""
    async with serving(Unsociable) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begun = monotonic()
        while monotonic() < begun + 3 * LIMIT_S:
            writer.write(GET)
            await _answer(reader)
            await asyncio.sleep(LIMIT_S / 3)
        writer.write(GET[:-2])
        await asyncio.sleep(1.5 * LIMIT_S)
        writer.write(GET[-2:])
        assert (await _answer(reader))[0] == 200
        received, seconds = await closed_after(reader)
        assert not received and LIMIT_S * 0.5 <= seconds <= LIMIT_S + 1
        writer.close()


async def test_without_the_protocol_a_slow_client_stays() -> None:
    """The positive control: uvicorn's own protocol has no such limit."""
    async with serving(HttpToolsProtocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 3 * LIMIT_S)
        writer.close()


async def test_ordinary_requests_share_a_connection_for_longer_than_the_limit() -> None:
    """Keep-alive, pipelining and a slow but timely body are left alone."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"query":"x"}'
        until = monotonic() + 2 * LIMIT_S
        while monotonic() < until:
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:4])
            await asyncio.sleep(LIMIT_S / 5)
            writer.write(body[4:])
            assert (await _answer(reader))[0] == 200
        writer.write(GET * 3)
        assert [(await _answer(reader))[0] for _ in range(3)] == [200, 200, 200]
        writer.close()


async def test_a_stream_may_take_longer_than_a_request() -> None:
    """Lines have a deadline of their own."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STREAM)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(4):
            line = b'{"query":"q","candidates":[{"text":"e"}]}\n'
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            assert b"results" in await asyncio.wait_for(reader.readuntil(b"}]}\n"), 5)
            await asyncio.sleep(LIMIT_S / 2)
        writer.close()


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    """The connection is closed gently: a reset would take the answer with it."""
    async with serving(max_body_bytes=1000) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = 50_000_000
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        sending = asyncio.create_task(_send(writer, size))
        status, problem = await _answer(reader)
        assert (status, problem["status"]) == (413, 413)
        await asyncio.wait_for(reader.read(), 5)
        sending.cancel()
        writer.close()


async def test_a_client_that_never_reads_is_cut_off() -> None:
    """A stream whose answers nobody takes ends, and its connection with it."""
    async with serving() as port, _stream_unread(port) as (connection, sending):
        started = monotonic()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sending, 10)
        assert monotonic() - started >= LIMIT_S
        assert connection.fileno() >= 0


async def test_a_client_that_reads_late_is_told_why_it_was_cut_off() -> None:
    """The last line it finds says what to do."""
    async with serving(Lingering) as port, _stream_unread(port) as (connection, _):
        await asyncio.sleep(4 * LIMIT_S)  # the limit is a time, so it takes time to pass it
        received = b""
        while piece := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 65536), 5):
            received = (received + piece)[-2000:]
        assert b"read them while you write" in received


@asynccontextmanager
async def _stream_unread(port: int) -> AsyncIterator[tuple[socket.socket, asyncio.Task[None]]]:
    """A client that writes lines for ever and reads nothing by itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.setblocking(False)
    sending = asyncio.create_task(_send_for_ever(connection))
    try:
        yield connection, sending
    finally:
        sending.cancel()
        connection.close()


async def _send_for_ever(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    line = b'{"query":"q","candidates":[%s]}\n' % b",".join([b'{"text":"e"}'] * 900)
    await loop.sock_sendall(connection, STREAM)
    while True:
        await loop.sock_sendall(connection, b"%x\r\n%s\r\n" % (len(line), line))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2_000_000, 431),
    ],
)
async def test_what_is_no_request_is_refused_as_a_problem(request_: bytes, status: int) -> None:
    """And the connection is closed."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        answered, problem = await _answer(reader)
        assert (answered, problem["status"]) == (status, status)
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


async def _send(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // 65536):
        writer.write(b"x" * 65536)
        await writer.drain()


class _Counting(Impatient):
    """Notes what goes to the socket at once."""

    sent: list[list[bytes]]

    def _flush(self) -> None:
        if self._unsent:
            type(self).sent.append(list(self._unsent))
        super()._flush()


async def test_an_answer_leaves_in_one_piece() -> None:
    """Head and body together; the answers of two requests that came together apart, and in order."""
    _Counting.sent = []
    async with serving(_Counting) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + GET.replace(b"/livez", b"/nothing-here"))
        for status in (b"200", b"404"):
            head = await reader.readuntil(b"\r\n\r\n")
            assert status in head.split(b"\r\n")[0]
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))
        writer.close()
    assert [len(pieces) for pieces in _Counting.sent] == [1, 1]


@pytest.mark.parametrize(
    "request_", [GET.replace(b"GET", b"HEAD"), GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
)
async def test_an_answer_that_is_not_plain_is_as_uvicorn_writes_it(request_: bytes) -> None:
    """HEAD without a body but with its length; a connection that is to close is closed, and says so."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_ + GET)
        head = await reader.readuntil(b"\r\n\r\n")
        if request_.startswith(b"HEAD"):
            assert b"content-length: " in head.lower()
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        else:
            assert b"connection: close" in head.lower()
            assert json.loads(await reader.read())["status"]
        writer.close()


@pytest.mark.parametrize("value", [b"a\r\nx-other: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_with_a_line_end_never_leaves(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.middleware._NOSNIFF", (b"x-content-type-options", value))
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 500") and b"x-other" not in answer
        writer.close()


async def test_what_is_held_back_goes_out_when_the_loop_comes_round() -> None:
    """A stream's head does not wait for its first line, nor its lines for the end."""
    _Counting.sent = []
    async with serving(_Counting) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STREAM)
        line = b'{"query":"headphones","candidates":[{"id":"B07CXG6C9W"}]}\n'
        writer.write(b"%x\r\n%s\r\n" % (len(line), line))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"200" in head.split(b"\r\n")[0]
        assert json.loads((await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)) and await reader.readuntil(b"\n"))
        writer.write(b"0\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        writer.close()


class _Lost(Impatient):
    """Loses its connection just before the first write, and has not been told yet."""

    lost = 0

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
            type(self).lost += 1
        super().write(data)


async def _stream_to_nobody() -> list[dict[str, Any]]:
    """What the loop has to say of a stream whose connection is lost as its head is written."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with serving(_Lost) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STREAM)
        await closed_after(reader)
        writer.close()
        await asyncio.sleep(0.05)
    return said


def test_what_is_held_back_for_a_lost_connection_is_dropped() -> None:
    """By the time the loop comes round it is closed: nothing is written to it, and nothing of it is in the log."""
    _Lost.lost = 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as it is served
        assert runner.run(_stream_to_nobody()) == []
    assert _Lost.lost == 1
