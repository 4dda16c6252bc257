"""What is served, and what is to be: `/v1/versions`, `/v1/versions/reload`, `/v1/versions/rollback`.

Both changes are answered once the version is verified, warm and served by the process that was asked. Where several
processes or pods serve together, the others see CURRENT change and follow within a second of their own loading it.
"""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import ADMIN, LISTING
from app.api.endpoint import Bytes, read_body, route, service_of
from app.api.params import read_params
from app.api.schemas import NoParams, VersionsBody, read_json
from app.api.search import content_type


def routes() -> list[Route]:
    return [
        route("/v1/versions", LISTING, get=versions),
        route("/v1/versions/reload", ADMIN, post=reload),
        route("/v1/versions/rollback", ADMIN, post=roll_back),
    ]


async def versions(request: Request) -> Response:
    """What is served, and what it could be rolled back to."""
    read_params(NoParams, request.scope, {})
    return Bytes(orjson.dumps(service_of(request).versions()))


async def reload(request: Request) -> Response:
    """Serve what is published now, without waiting for it to be noticed, and though it was refused before."""
    asked = await _asked(request)
    return Bytes(orjson.dumps(await service_of(request).reload(asked.collection)))


async def roll_back(request: Request) -> Response:
    """Publish and serve the version before the current one."""
    asked = await _asked(request)
    return Bytes(orjson.dumps(await service_of(request).roll_back(asked.collection)))


async def _asked(request: Request) -> VersionsBody:
    """The body; none at all asks for the default collection."""
    read_params(NoParams, request.scope, {})
    body = await read_body(request)
    return read_json(VersionsBody, body, content_type(request)) if body else VersionsBody()
