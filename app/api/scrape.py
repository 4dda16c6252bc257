"""`/metrics`: one scrape at a time, and in small pieces, because what serves it should serve searches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from fastapi import Request
from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from starlette.types import Receive, Scope, Send

from app.api.endpoint import Bytes
from app.metrics import exposed

_OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
# Writing one takes the interpreter 2 to 3 ms. A search needs it some fifteen times, and would wait for it as often: its
# p99 was 62 % higher beside ten scrapes a second. Shorter rests wake, and disturb, more often than they are worth.
_AT_ONCE = 24  # lines, some 90 µs
_REST_S = 0.0016


class Scrapes:
    """The answers to scrapes; one object an event loop."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._next: dict[bool, asyncio.Task[Bytes]] = {}

    async def metrics(self, request: Request) -> Bytes:
        """Every metric, in the text form that the scraper asks for."""
        return await self._shared(request.scope)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        return await asyncio.shield(coming)

    async def _written(self, openmetrics: bool) -> Bytes:
        async with self._one:
            del self._next[openmetrics]
            return await asyncio.to_thread(_openmetrics if openmetrics else _plain)


def _plain() -> Bytes:
    return Bytes(generate_latest(_Unhurried(exposed())), media_type=CONTENT_TYPE_PLAIN_0_0_4.encode())


def _openmetrics() -> Bytes:
    text: bytes = generate_openmetrics(_Unhurried(exposed()))  # type: ignore[no-untyped-call]  # its own is not annotated
    return Bytes(text, media_type=_OPENMETRICS)


class _Unhurried(Collector):
    """What another collects, with rests on the way."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lines = 0

    def collect(self) -> Iterable[Metric]:
        for metric in self._collector.collect():
            metric.samples = self._resting(metric.samples)  # type: ignore[assignment]  # both formats iterate over them once
            yield metric

    def _resting(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        for sample in samples:
            self._lines += 1
            if self._lines % _AT_ONCE == 0:
                time.sleep(_REST_S)
            yield sample
