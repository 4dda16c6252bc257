"""Probes and metrics. None of them touches Redis or a bundle: they read what is in memory."""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.api.access import OPEN, SCRAPE
from app.api.endpoint import Bytes, in_turns, route, service_of
from app.metrics import exposed

_OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"


def routes(*, serve_metrics: bool) -> list[Route]:
    probes = [
        route("/livez", OPEN, get=livez),
        route("/readyz", OPEN, get=readyz),
        route("/startupz", OPEN, get=startupz),
    ]
    return [*probes, route("/metrics", SCRAPE, get=metrics)] if serve_metrics else probes


async def livez(request: Request) -> Response:
    """200 as long as the process runs."""
    return _probe(True, "live")


async def readyz(request: Request) -> Response:
    """200 while searches are answered rightly: a warm, verified version is served, its golden queries pass, workers
    work, and the process is not on its way out. Else 503 with the reason."""
    service = service_of(request)
    reason = service.unready
    return _probe(reason is None, reason or "ready")


async def startupz(request: Request) -> Response:
    """200 once the first version is loaded and warm."""
    started = service_of(request).started
    return _probe(started, "started" if started else "starting")


def _probe(good: bool, status: str) -> Bytes:
    return Bytes(orjson.dumps({"status": status}), 200 if good else 503)


async def metrics(request: Request) -> Response:
    """Every metric, in the text form that the scraper asks for."""
    return await in_turns(True, _exposition, request.scope)


async def metrics_app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/metrics` alone, as an application for a port of its own."""
    if scope["type"] != "http":
        return
    found = scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
    await (await in_turns(True, _exposition, scope) if found else Bytes(b"", 404))(scope, receive, send)


def _exposition(scope: Scope) -> Bytes:
    # prometheus_client's own negotiation raises on a version that is no number.
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
    if b"application/openmetrics-text" in accept:
        text: bytes = generate_openmetrics(exposed())  # type: ignore[no-untyped-call]  # its own is not annotated
        return Bytes(text, media_type=_OPENMETRICS)
    return Bytes(generate_latest(exposed()), media_type=CONTENT_TYPE_PLAIN_0_0_4.encode())
