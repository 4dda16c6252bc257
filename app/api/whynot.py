"""`/v1/why-not`: a search and a product in; the stage that dropped the product, and what would have kept it, out."""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, read_body, route, service_of, while_connected
from app.api.options import options
from app.api.params import read_params
from app.api.schemas import NoParams, WhyNotBody, read_json
from app.api.search import content_type


def routes() -> list[Route]:
    return [route("/v1/why-not", SEARCH, post=why_not)]


async def why_not(request: Request) -> Response:
    """POST: one product."""
    read_params(NoParams, request.scope, {})
    asked = read_json(WhyNotBody, await read_body(request), content_type(request))
    wanted = asked.request(options(request).timeout_ms)
    return Bytes(orjson.dumps(await while_connected(request, service_of(request).why_not(wanted))))
