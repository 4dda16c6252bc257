"""Probes. None of them touches Redis or a bundle: they read what is in memory."""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import OPEN, SCRAPE
from app.api.endpoint import Bytes, route, service_of
from app.api.scrape import Scrapes


def routes(*, serve_metrics: bool) -> list[Route]:
    probes = [
        route("/livez", OPEN, get=livez),
        route("/readyz", OPEN, get=readyz),
        route("/startupz", OPEN, get=startupz),
    ]
    return [*probes, route("/metrics", SCRAPE, get=Scrapes().metrics)] if serve_metrics else probes


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
