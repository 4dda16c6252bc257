"""A request leaves nothing behind that only the collector of cycles can free: a thousand such stop the loop for 30 ms,
and with it every search of the process."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI

from app.api import endpoint
from app.errors import AisleError, Overloaded
from tests.api.conftest import edge_app
from tests.api.stub_service import StubService

_BODY = b'{"query":"headphones","k":3}'


class SlowService(StubService):
    """Every search takes so long that somebody watches whether its client has gone; then it ends as told."""

    def __init__(self, error: AisleError | None = None) -> None:
        super().__init__()
        self.error = error

    async def _work(self) -> None:
        await asyncio.sleep(2 * endpoint._WATCH_AFTER_S)
        if self.error is not None:
            raise Overloaded("too many searches are waiting")


async def _ask(app: FastAPI, *, leaves: bool = False) -> int:
    """Status of one search, asked for as a server asks; or the client leaves while it runs."""
    messages = [{"type": "http.request", "body": _BODY, "more_body": False}]
    gone, statuses = asyncio.Event(), []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/search", "raw_path": b"/v1/search", "query_string": b""}
    scope |= {"headers": headers, "client": ("127.0.0.1", 1), "server": ("edge", 80), "scheme": "http"}
    scope |= {"http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}}
    if leaves:
        asyncio.get_running_loop().call_later(1.5 * endpoint._WATCH_AFTER_S, gone.set)
    await app(scope, receive, send)  # type: ignore[arg-type]  # a plain dict is a scope
    return statuses[0] if statuses else 0


async def _garbage_after(ask: Callable[[], Any]) -> Counter[str]:
    """What of three requests only the collector could free, by type."""
    await ask()
    await asyncio.sleep(0.05)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            await ask()
        await asyncio.sleep(0.05)  # whoever was cancelled has ended
        gc.collect()
        return Counter(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("error", "leaves", "status"),
    [(None, False, 200), (Overloaded("full"), False, 429), (None, True, 0)],
    ids=["answered", "refused", "left"],
)
async def test_a_request_leaves_no_garbage(error: AisleError | None, leaves: bool, status: int) -> None:
    app = edge_app(SlowService(error))

    async def ask() -> None:
        assert await _ask(app, leaves=leaves) == status

    assert not await _garbage_after(ask)


async def test_a_cycle_is_found() -> None:
    """The control: an exception that a frame keeps, which its traceback keeps."""

    async def ask() -> None:
        with suppress(ValueError):
            try:
                raise ValueError
            except ValueError as error:
                kept = error
                raise
            finally:
                assert kept is not None

    assert (await _garbage_after(ask))["ValueError"] == 3
