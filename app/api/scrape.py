"""`/metrics`: one scrape at a time, and what is asked for meanwhile is answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import Request
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from app.api.endpoint import Bytes
from app.api.exposition import Exposition
from app.metrics import exposed, shared_folder

_WRITE: dict[bool, Callable[[Collector], bytes]] = {False: generate_latest, True: generate_openmetrics}
"""By whether it is OpenMetrics."""
_PLAIN = CONTENT_TYPE_PLAIN_0_0_4.encode()
_OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"


class Scrapes:
    """The answers to scrapes; one object an event loop."""

    def __init__(self) -> None:
        folder = shared_folder()
        self._files = {
            openmetrics: Exposition(folder, _WRITE[openmetrics]) for openmetrics in (False, True) if folder is not None
        }
        self._one = asyncio.Lock()
        self._next: dict[bool, asyncio.Task[Bytes]] = {}

    async def metrics(self, request: Request) -> Bytes:
        """Every metric, in the text form that the scraper asks for."""
        return await self._shared(request.scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`/metrics` alone, as an application for a port of its own."""
        if scope["type"] != "http":
            return
        found = scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        await (await self._shared(scope) if found else Bytes(b"", 404))(scope, receive, send)

    async def _shared(self, scope: Scope) -> Bytes:
        """Those who come while one is written share the one after it, which tells of all that was before they came."""
        # prometheus_client's own negotiation raises on a version that is no number.
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        openmetrics = b"application/openmetrics-text" in accept
        coming = self._next.get(openmetrics)
        if coming is None:
            coming = self._next[openmetrics] = asyncio.create_task(self._written(openmetrics))
            coming.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may be left to hear it
        return await asyncio.shield(coming)

    async def _written(self, openmetrics: bool) -> Bytes:
        async with self._one:
            del self._next[openmetrics]
            return await asyncio.to_thread(self._text, openmetrics)

    def _text(self, openmetrics: bool) -> Bytes:
        files = self._files[openmetrics].text() if self._files else b""
        text = files + _WRITE[openmetrics](exposed())
        return Bytes(text, media_type=_OPENMETRICS if openmetrics else _PLAIN)
