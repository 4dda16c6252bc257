"""The outermost layer, in plain ASGI: request id, counts and times, the body limit, and the last net for errors."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.api import problems
from app.api.endpoint import CLOSE, Endpoint, Header, by_name
from app.api.schemas import NDJSON, RESCORE_PATH
from app.errors import AisleError, InputTooLarge

if TYPE_CHECKING:
    from app.search.service import SearchService

_INBOUND_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# A random stem and a running number: unique like a UUID, at a tenth of its cost.
_STEM = secrets.token_hex(6).encode()
_numbers = itertools.count(1)
Headers = Mapping[bytes, bytes]
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_ALONE_S = 0.005
ARRIVED = "aisle.arrived"  # in the scope, where the server's protocol says it: when the head was read
CLIENT_GONE = 499  # nginx's word for a request that nobody waited for


class Edge:
    """Wraps the application. `max_body_bytes` holds for every body but a streamed one, whose lines are limited. Paths
    in `direct` are answered without the layers between here and their endpoint, which would only find it."""

    def __init__(
        self, app: ASGIApp, *, service: SearchService, max_body_bytes: int, direct: Mapping[str, Endpoint]
    ) -> None:
        self.app = app
        self._direct = direct
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._counters: dict[tuple[str, str, int], Any] = {}
        self._in_flight = metrics.cell(metrics.IN_FLIGHT)
        self._timers: dict[str, Callable[[float], None]] = {}
        self._last_client: object = None
        self._asked_at = self._other_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = perf_counter()
        started = scope["started"] = scope.get(ARRIVED, begun)
        scope["alone"] = self._alone(scope, begun)
        scope["late_ms"] = (begun - started) * 1e3
        headers = by_name(scope["headers"])
        answer = _Answer(scope, headers, send, self._service)
        self._in_flight.inc(1)
        try:
            await self._answer(scope, self._limited(scope, headers, receive, answer), answer)
        finally:
            self._in_flight.inc(-1)
            self._count(scope, answer.status, perf_counter() - started)

    def _alone(self, scope: Scope, at: float) -> bool:
        """Whether no other connection has asked within the last milliseconds; unnamed ones cannot be told apart."""
        client, before, self._asked_at = scope.get("client"), self._asked_at, at
        if client != self._last_client:
            self._last_client, self._other_at = client, before
        return client is not None and at - self._other_at > _ALONE_S

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        endpoint = self._direct.get(scope["path"])
        try:
            if endpoint is None or scope["method"] not in endpoint.handlers:
                await self.app(scope, receive, answer.send)
            else:
                await _at_once(endpoint, scope, receive, answer)
        except (ClientDisconnect, asyncio.CancelledError) as error:
            if not answer.status:
                answer.status = CLIENT_GONE
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001 - the last net
            internal = problems.unexpected(error, scope)
            if not answer.status:  # otherwise the server closes the connection in the middle of the answer
                await problems.respond(internal, scope)(scope, receive, answer.send)

    def _limited(self, scope: Scope, headers: Headers, receive: Receive, answer: _Answer) -> Receive:
        """`receive`, wrapped only where the declared length does not already keep the limit. The error is raised to
        whoever reads, so that it takes the form of the route and that routes without a body never meet it."""
        length, streamed = _body(scope, headers)
        if streamed or (length is not None and length <= self._max_body_bytes):
            return receive
        limit, seen = self._max_body_bytes, 0
        too_long = length is not None
        answer.closing = too_long

        async def limited() -> Message:
            nonlocal seen
            if too_long:
                raise _too_large(limit)
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                answer.closing = True
                raise _too_large(limit)
            return message

        return limited

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # Templates, not paths: nothing a caller sends adds a series. Children are kept, as labels() costs 2 µs.
        endpoint = scope.get("endpoint")
        template = endpoint.path if isinstance(endpoint, Endpoint) else "unmatched"
        method: str = scope["method"] if scope["method"] in _METHODS else "other"
        key = (template, method, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = metrics.cell(metrics.REQUESTS.labels(template, method, str(status)))
        counter.inc(1)
        timer = self._timers.get(template)
        if timer is None:
            timer = self._timers[template] = metrics.observer(metrics.REQUEST_SECONDS.labels(template))
        timer(seconds)


class _Answer:
    """What is known of a request's answer; adds the headers that every answer carries."""

    __slots__ = ("_id", "_scope", "_send", "_service", "_started", "closing", "status")

    def __init__(self, scope: Scope, headers: Headers, send: Send, service: SearchService) -> None:
        self.status = 0
        self.closing = False
        self._scope = scope
        self._send = send
        self._service = service
        self._started: float = scope["started"]
        self._id = _request_id(headers)
        scope["request_id"] = self._id.decode()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id), _NOSNIFF]
            if not any(name == b"server-timing" for name, _ in headers):  # a search's names its stages
                spent_ms = (perf_counter() - self._started) * 1e3
                headers.append((b"server-timing", b"total;dur=%.3f" % spent_ms))
            if self.status >= 400 and _left_unread(self._scope):
                self.closing = True
            # While draining, keep-alive connections are sent elsewhere one by one, so that none is cut at the end.
            if (self.closing or self._service.draining) and CLOSE not in headers:
                headers.append(CLOSE)
        await self._send(message)


async def _at_once(endpoint: Endpoint, scope: Scope, receive: Receive, answer: _Answer) -> None:
    scope["endpoint"] = endpoint
    try:
        await endpoint(scope, receive, answer.send)
    except AisleError as error:
        if answer.status:
            raise
        await problems.respond(error, scope)(scope, receive, answer.send)


def _request_id(headers: Headers) -> bytes:
    given = headers.get(b"x-request-id")
    if given is not None and _INBOUND_ID.fullmatch(given):
        return given
    return b"%b%08x" % (_STEM, next(_numbers))


def _body(scope: Scope, headers: Headers) -> tuple[int | None, bool]:
    """(declared length in bytes, None when it is not known beforehand; whether it is a stream of lines)."""
    length = headers.get(b"content-length", b"")
    known = length.isdigit() and b"transfer-encoding" not in headers
    streamed = scope["path"] == RESCORE_PATH and headers.get(b"content-type", b"").startswith(NDJSON)
    return (int(length) if known else None), streamed


def _left_unread(scope: Scope) -> bool:
    """Whether a body is on its way that nobody asked for. The protocol closes the connection then, and a client that is
    not told would send its next request into it."""
    return "body_read" not in scope and any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _too_large(limit: int) -> InputTooLarge:
    return InputTooLarge(f"the body may have at most {limit} bytes; {RESCORE_PATH} takes any number of NDJSON lines")
