"""Products, their neighbours, and the collections they are in: `/v1/products`, `/v1/collections`."""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH, WRITE
from app.api.endpoint import Bytes, in_turn, read_body, route, service_of, while_connected
from app.api.params import integer, read_params, text
from app.api.problems import MethodNotAllowed
from app.api.schemas import (
    MAX_ID_CHARACTERS,
    Fields,
    NoParams,
    ProductParams,
    SimilarParams,
    read_json,
    read_records,
)
from app.api.search import answered, content_type
from app.errors import NotFound

_EACH = {"get": SEARCH, "patch": WRITE, "delete": WRITE}


def routes() -> list[Route]:
    # An id may contain slashes, so the longer path is tried first.
    return [
        route("/v1/products/{id:path}/similar", SEARCH, get=similar),
        route("/v1/products/{id:path}", _EACH, get=product, patch=patch, delete=delete),
        route("/v1/products", WRITE, put=put),
        route("/v1/collections", SEARCH, get=collections),
    ]


async def product(request: Request) -> Response:
    """One product, as stored."""
    params = read_params(ProductParams, request.scope, {"collection": text})
    return Bytes(service_of(request).product(_id(request), collection=params.collection))


async def put(request: Request) -> Response:
    """Whole products, new ones or in place of others, as a JSON list or as NDJSON: kept all or none."""
    params = read_params(ProductParams, request.scope, {"collection": text})
    body = await read_body(request)
    records = await in_turn(request, len(body), read_records, body, content_type(request))
    return Bytes(orjson.dumps(await service_of(request).put(records, collection=params.collection)))


async def patch(request: Request) -> Response:
    """New values of some fields of a product; null takes one away."""
    id = _changed(request)
    params = read_params(ProductParams, request.scope, {"collection": text})
    fields = read_json(Fields, await read_body(request), content_type(request)).root
    return Bytes(orjson.dumps(await service_of(request).patch(id, fields, collection=params.collection)))


async def delete(request: Request) -> Response:
    """A product is gone."""
    id = _changed(request)
    params = read_params(ProductParams, request.scope, {"collection": text})
    return Bytes(orjson.dumps(await service_of(request).delete(id, collection=params.collection)))


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


def _changed(request: Request) -> str:
    """An id may contain slashes, but what is read at a longer path is not changed there."""
    if request.scope["path"].endswith("/similar"):
        raise MethodNotAllowed(request.scope["method"], "GET, HEAD")
    return _id(request)
