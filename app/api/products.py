"""Products, their neighbours, and the collections they are in: `/v1/products`, `/v1/collections`."""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, route, service_of, while_connected
from app.api.params import integer, read_params, text
from app.api.schemas import MAX_ID_CHARACTERS, NoParams, ProductParams, SimilarParams
from app.api.search import answered
from app.errors import NotFound


def routes() -> list[Route]:
    # An id may contain slashes, so the longer path is tried first.
    return [
        route("/v1/products/{id:path}/similar", SEARCH, get=similar),
        route("/v1/products/{id:path}", SEARCH, get=product),
        route("/v1/collections", SEARCH, get=collections),
    ]


async def product(request: Request) -> Response:
    """One product, as stored."""
    params = read_params(ProductParams, request.scope, {"collection": text})
    return Bytes(service_of(request).product(_id(request), collection=params.collection))


async def similar(request: Request) -> Response:
    """A product's neighbours, shaped like a search."""
    params = read_params(SimilarParams, request.scope, {"k": integer, "collection": text})
    work = service_of(request).similar(_id(request), params.k, collection=params.collection)
    return answered(request, await while_connected(request, work))


async def collections(request: Request) -> Response:
    """What the search page needs to know of each collection."""
    read_params(NoParams, request.scope, {})
    return Bytes(orjson.dumps(service_of(request).collections()))


def _id(request: Request) -> str:
    given: str = request.path_params["id"]
    if not given or len(given) > MAX_ID_CHARACTERS:
        raise NotFound("no product has such an id")
    return given
