"""From a path to a handler, and the few things every handler needs: the body, the client's presence, ready bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.alarms import alarms
from app.api.access import Access

if TYPE_CHECKING:
    from app.api.keys import Keys
    from app.search.service import SearchService

Handler = Callable[[Request], Awaitable[Response]]
Header = tuple[bytes, bytes]
P = ParamSpec("P")
T = TypeVar("T")

# Most searches are over before it would pay to watch whether somebody still waits for them.
_SMALL_BYTES = 8192  # read or written in a few tenths of a millisecond
_WATCH_AFTER_S = 0.05
WHOLE = "aisle.whole"
"""In the scope, where the server takes an answer's body in the message that begins it, under this name."""


CLOSE: Header = (b"connection", b"close")


def by_name(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Of those that are repeated the first counts."""
    return dict(reversed(headers))


class Endpoint:
    """One path with a handler and an access for each of its methods; HEAD is GET, whose body the server leaves out.
    Whoever may not call it is refused here, before anything of the body is read. Raises Unauthorized, Forbidden.

    An ASGI application rather than a function, which costs 30 µs a request more in a FastAPI route (dependencies, exit
    stacks) and 10 µs more in a Starlette route. One for all methods, so that `Allow` is complete."""

    def __init__(self, path: str, handlers: Mapping[str, Handler], access: Mapping[str, Access]) -> None:
        self.path = path
        self.handlers = dict(handlers)
        self.access = dict(access)
        if "GET" in self.handlers:
            self.handlers["HEAD"] = self.handlers["GET"]
            self.access["HEAD"] = self.access["GET"]
        self.allow = ", ".join(sorted(self.handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        keys: Keys = scope["app"].state.keys
        keys.admit(self.access[method], scope["headers"])
        response = await self.handlers[method](Request(scope, receive, send))
        await response(scope, receive, send)


def route(path: str, access: Access | Mapping[str, Access], /, **handlers: Handler) -> Route:
    """`route("/v1/search", SEARCH, get=search_get, post=search_post)`; an access for each method where they differ:
    `route("/v1/products/{id}", {"get": SEARCH, "delete": WRITE}, get=product, delete=delete)`"""
    by_method = {method.upper(): handler for method, handler in handlers.items()}
    each = {method.upper(): access if isinstance(access, Access) else access[method] for method in handlers}
    endpoint = Endpoint(path.replace(":path}", "}"), by_method, each)
    return Route(path, endpoint, methods=list(by_method))


class Bytes(Response):
    """A finished body. Skips what Response does to find out what it was given."""

    def __init__(
        self,
        body: bytes,
        status: int = 200,
        media_type: bytes = b"application/json",
        headers: Sequence[Header] = (),
        cache: bytes = b"no-store",
    ) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [(b"cache-control", cache), *headers]
        if status not in (204, 304):
            self.raw_headers += [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """In one message, where the server takes that."""
        if WHOLE not in scope:
            await super().__call__(scope, receive, send)
            return
        start = "http.response.start"
        await send({"type": start, "status": self.status_code, "headers": self.raw_headers, WHOLE: self.body})


def service_of(request: Request) -> SearchService:
    """The service behind the edge."""
    found: SearchService = request.scope["app"].state.service
    return found


async def read_body(request: Request) -> bytes:
    """The whole body; its size is limited by the layer above. Raises ClientDisconnect, InputTooLarge."""
    receive = request.receive
    message = await receive()
    pieces: list[bytes] = []
    while message["type"] == "http.request":
        if not message.get("more_body", False):
            request.scope["body_read"] = True
            last: bytes = message.get("body", b"")
            return last if not pieces else b"".join((*pieces, last))
        pieces.append(message.get("body", b""))
        message = await receive()
    raise ClientDisconnect


async def in_turn(request: Request, size: int, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """The result of `work` on so many bytes. Where they are many it takes its turn among bulk work: the loop would
    stand still for milliseconds, and in threads of its own it would take the interpreter from searches whenever it
    came."""
    if size <= _SMALL_BYTES:
        return work(*arguments, **options)
    return await service_of(request).in_turn(partial(work, *arguments, **options))


class _Watch:
    """Cancels a task once its client has gone."""

    def __init__(self, receive: Receive, task: asyncio.Task[object]) -> None:
        self.gone = False
        self._receive = receive
        self._task = task
        self._watcher: asyncio.Task[None] | None = None
        self._timer = alarms().at(monotonic() + _WATCH_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()

    def end(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # else it is garbage in a cycle; a thousand of them stop the loop for 30 ms


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away: no work for nobody. To be called once the
    body is read. Raises ClientDisconnect in that case."""
    task = asyncio.current_task()
    assert task is not None
    watch = _Watch(request.receive, task)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watch.end()
