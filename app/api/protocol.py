"""uvicorn's HTTP protocol with the deadlines it lacks: for reading a request, for writing an answer, for closing.

Without them a client that sends its head one byte a minute, or never reads, holds its connection for ever. Pass
`http=TimedHttpProtocol` to uvicorn.Config (or a subclass with other limits)."""

from __future__ import annotations

import asyncio
import re
from asyncio.events import TimerHandle
from time import monotonic, perf_counter
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.endpoint import CLOSE, WHOLE, by_name
from app.api.middleware import ARRIVED
from app.api.ndjson import STALLED
from app.api.schemas import NDJSON
from app.metrics import REQUESTS

_CLOCKS_DIFFER_S = 0.001  # the loop may count in whole milliseconds
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


class TimedHttpProtocol(HttpToolsProtocol):
    """A connection. Most requests arrive in one piece and are answered in one, so that none sets a timer."""

    read_within_s = 10.0  # from a request's first byte to its last; a stream of lines has its own deadlines
    write_within_s = 10.0  # for a client that has stopped reading to go on
    linger_s = 1.0  # for the rest of an answer to be read where the connection ends before its time
    max_head_bytes = 64 * 1024

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP only
        super().connection_made(transport)
        self._reading = True  # a connection without a first request counts as one that is slow to send it
        self._in_head = True
        self._head_bytes = 0
        self._lingering = False
        self._unsent: list[bytes] = []
        self._read_timer: TimerHandle | None = self.loop.call_later(self.read_within_s, self._read_too_slow)
        self._write_timer: TimerHandle | None = None
        self._close_timer: TimerHandle | None = None
        self._closer = _Closer(self, transport)
        self._idle_since = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unsent = []  # what waits for the loop to come round has nobody to go to
        for timer in (self._read_timer, self._write_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._let_go_of_keep_alive()

    # ---------------------------------------------------------------- reading

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.max_head_bytes and not self.transport.is_closing():
            self._refuse(431, "the head of the request is too large")
        elif not self._reading and not self._idle():
            self._stop_read_timer()
        elif self._read_timer is None:
            self._read_timer = self.loop.call_later(self.read_within_s, self._read_too_slow)

    def _idle(self) -> bool:
        """No request is being answered: what came in are stray line ends, which must not hold the connection open."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading = self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.scope[ARRIVED] = perf_counter()  # type: ignore[literal-required]  # a member of ours
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.__class__ = _Cycle  # uvicorn makes them itself
            self.cycle.transport = self._closer  # type: ignore[assignment]  # has all that a cycle uses
            self.cycle.scope[WHOLE] = True  # type: ignore[literal-required]  # a member of ours

    def on_message_complete(self) -> None:
        self._reading = False
        self._in_head = True
        self._head_bytes = 0
        self._stop_read_timer()
        super().on_message_complete()

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _read_too_slow(self) -> None:
        self._read_timer = None
        if self.transport.is_closing():
            return
        if self._excused():
            self._read_timer = self.loop.call_later(self.read_within_s, self._read_too_slow)
        elif self._in_head and not self._head_bytes:
            self.transport.close()  # a browser that connected in advance
        elif self._in_head or not self.cycle.response_started:
            self._refuse(408, "the request did not arrive in time")
        else:
            self.transport.abort()

    def _excused(self) -> bool:
        """Earlier requests are being answered and reading rests, or the body is a stream of lines."""
        if self._in_head or self.pipeline:
            return not self._idle()
        return by_name(self.headers).get(b"content-type", b"").startswith(NDJSON)

    # ---------------------------------------------------------------- writing

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_within_s, self._write_too_slow)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _write_too_slow(self) -> None:
        """Let the answer say so and end: what it still writes waits for the client until the connection is closed."""
        self._write_timer = None
        if self.cycle is not None:
            self.cycle.keep_alive = False
            self.cycle.scope["state"][STALLED] = True
        super().resume_writing()
        self._abort_later(self.linger_s)

    # ---------------------------------------------------------------- closing

    def on_response_complete(self) -> None:
        self._flush()
        if self._lingering:  # the answer asked for it before it came here
            self.server_state.total_requests += 1
            return
        self._next_request()
        if self._idle() and self._reading and not self._in_head and not self.pipeline:
            self.close()  # answered before the request was read to its end: what follows cannot be told apart from it

    def _next_request(self) -> None:
        """As uvicorn does, but for its timer, which it sets after every answer and takes back at the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = monotonic()
        if self.timeout_keep_alive_task is None:
            self._look_whether_idle_in(self.timeout_keep_alive)

    def _look_whether_idle_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self.transport.is_closing() or not self._idle():  # it is set again after the answer
            return
        left_s = self._idle_since + self.timeout_keep_alive - monotonic()
        if self._read_timer is not None:  # which sees to what has come since
            self._look_whether_idle_in(self.timeout_keep_alive)
        elif left_s > _CLOCKS_DIFFER_S:
            self._look_whether_idle_in(left_s)
        else:
            self.close()

    def _unset_keepalive_if_required(self) -> None:
        """Not at every request, as uvicorn would: when it rings it looks for itself since when nobody has asked."""

    def _let_go_of_keep_alive(self) -> None:
        super()._unset_keepalive_if_required()

    def write(self, data: bytes) -> None:
        """What an answer has to say, as long as there is somebody to say it to: what came after its request may have
        been no HTTP, was told so, and ended the connection. Head and body leave together, at the latest when the loop
        comes round: one system call instead of two, and the client wakes up once."""
        if self._lingering:
            return
        if not self._unsent:
            self.loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self.transport.writelines(unsent)

    def close(self) -> None:
        """Close once the answer is sent. Input that nobody will read is discarded meanwhile: closing over it makes the
        kernel reset the connection, and the client would lose the answer that tells it why."""
        if self._lingering or self.transport.is_closing():
            return
        self._flush()
        self._let_go_of_keep_alive()
        if self._reading and not self._in_head and self.transport.can_write_eof():
            self._linger()
        else:
            self.transport.close()
            self._abort_later(self.write_within_s)

    def _linger(self) -> None:
        self._flush()
        self._lingering = True
        self._stop_read_timer()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._abort_later(self.linger_s)

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._abort_later(self.write_within_s)

    def _abort_later(self, seconds: float) -> None:
        if self._close_timer is None:
            self._close_timer = self.loop.call_later(seconds, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "the request is not HTTP as this server reads it")

    def _refuse(self, status: int, detail: str) -> None:
        """A problem document for a request that never became one."""
        if self._lingering:  # it has been refused already
            return
        REQUESTS.labels("unmatched", "other", str(status)).inc()
        title = {400: "Malformed request", 408: "Request timeout", 431: "Request head too large"}[status]
        kind = "urn:aisle:problem:" + title.lower().replace(" ", "-")
        body = orjson.dumps(
            {"type": kind, "title": title, "status": status, "detail": detail, "instance": "", "request_id": ""}
            | {"errors": []}
        )
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._flush()
        if self._idle() or not self.cycle.response_started:
            self.transport.write(head.encode() + body)
        if status == 408:
            self.transport.close()
            self._abort_later(self.write_within_s)
        else:  # the client is in the middle of sending
            self._linger()


class _Cycle(RequestResponseCycle):
    """An answer in progress. One that is there as a whole, as nearly all are, is written as a whole: uvicorn's own way
    looks at each header three times, in two messages."""

    async def send(self, message: Any) -> None:
        body: bytes | None = message.get(WHOLE)
        if body is None:
            await super().send(message)
            return
        headers = [*self.default_headers, *message["headers"]]
        plain = self.keep_alive and not self.response_started and self.scope["method"] != "HEAD"
        if not plain or self.disconnected or self.flow.write_paused or CLOSE in headers:
            await super().send(message)
            await super().send({"type": "http.response.body", "body": body})
            return
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if lines.count(b"\n") != len(headers) or _FORBIDDEN.search(lines):
            raise RuntimeError("Invalid HTTP header value.")
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[message["status"]], lines, body))
        self.message_event.set()
        self.on_response()


class _Closer:
    """The transport as an answer in progress sees it: closing goes through the protocol."""

    __slots__ = ("_transport", "close", "is_closing", "write")

    def __init__(self, protocol: TimedHttpProtocol, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write = protocol.write
        self.is_closing = transport.is_closing
        self.close = protocol.close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
