"""The OpenAPI document. Bodies are read raw, so it is drawn from the table of operations below and the models that
read them; a test holds the table to the routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from app import __version__
from app.api import answers
from app.api.access import Access
from app.api.endpoint import Endpoint
from app.api.schemas import (
    NDJSON,
    ClassifyBody,
    Fields,
    ProductParams,
    Records,
    RerankBody,
    RescoreBody,
    RescoreLine,
    SearchBody,
    SimilarParams,
    TeiBody,
    VersionsBody,
    WhyNotBody,
)

Json = dict[str, Any]
_REF = "#/components/schemas/{model}"
_NDJSON = NDJSON.decode()
_STATUSES = {
    400: "not well-formed",
    401: "no key, or none that counts",
    403: "the key lacks the scope, or the service knows no keys",
    404: "unknown product, collection or profile",
    409: "cannot be done as things stand; what is served stays",
    413: "too large",
    422: "invalid",
    429: "too busy; Retry-After says when to come back",
    500: "failed",
    503: "not ready, or nothing could answer",
    504: "the deadline left nothing to give",
}
_READ = (400, 404, 422, 500, 503)
_CHANGE = (400, 404, 413, 422, 429, 500, 503)
_SWITCH = (400, 404, 409, 413, 422, 500)
_WORK = (400, 404, 413, 422, 429, 500, 503, 504)


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    path: str
    method: str
    summary: str
    answer: type[BaseModel] | Json
    errors: tuple[int, ...] = _READ
    body: type[BaseModel] | None = None
    example: Any = None
    params: type[BaseModel] | None = None
    names: dict[str, str] = field(default_factory=dict)  # parameter → field of `params`; empty: all, under their names
    error: type[BaseModel] = answers.Problem
    media_type: str = "application/json"
    bodiless: bool = False  # may come without its body


_SEARCH_EXAMPLE = {
    "query": "wireless headphones",
    "k": 10,
    "filter": {"all": [{"field": "brand", "in": ["Sony", "Apple"]}, {"not": {"field": "color", "in": ["Black"]}}]},
    "facets": ["brand", "color"],
}
_RESCORE_EXAMPLE = {"items": [{"query": "running shoes", "candidates": [{"text": "Trail running shoes, size 42"}]}]}
_RECORDS_EXAMPLE = [{"id": "B0NEW", "title": "Trail running shoes", "brand": "Northway", "color": "Blue"}]
_FIELDS_EXAMPLE = {"color": "Green"}
_CLASSIFY_EXAMPLE = {"query": "leather hiking boots", "k": 3, "collection": "retail"}
_WHY_NOT_EXAMPLE = {
    "query": "wireless headphones",
    "id": "B07CXG6C9W",
    "filter": {"field": "brand", "in": ["Sony", "Apple"]},
}
_RERANK_EXAMPLE = {"query": "running shoes", "documents": ["Trail shoes", "Rain jacket"], "top_n": 1}
_TEI_EXAMPLE = {"query": "running shoes", "texts": ["Trail shoes", "Rain jacket"]}
_SEARCH_NAMES = {"q": "query"} | {
    name: name for name in ("k", "offset", "collection", "profile", "prefix", "relax", "explain", "timeout_ms")
}
_TEI_ANSWER = {"type": "array", "items": {"$ref": _REF.format(model="TeiResult")}}
_TEXT = {"type": "string"}

OPERATIONS = (
    Operation(
        "/v1/search", "post", "Search, filter, count, sort", answers.SearchResponse, _WORK, SearchBody, _SEARCH_EXAMPLE
    ),
    Operation(
        "/v1/search",
        "get",
        "Search by query string",
        answers.SearchResponse,
        _WORK,
        params=SearchBody,
        names=_SEARCH_NAMES,
    ),
    Operation(
        "/v1/rescore",
        "post",
        "Score pairs of query and product",
        answers.RescoreResponse,
        _WORK,
        RescoreBody,
        _RESCORE_EXAMPLE,
    ),
    Operation(
        "/v1/rerank",
        "post",
        "Rerank, in the shape of Cohere v1 and Jina",
        answers.RerankResponse,
        _WORK,
        RerankBody,
        _RERANK_EXAMPLE,
        error=answers.RerankError,
    ),
    Operation(
        "/v2/rerank",
        "post",
        "Rerank, in the shape of Cohere v2",
        answers.RerankResponse,
        _WORK,
        RerankBody,
        _RERANK_EXAMPLE,
        error=answers.RerankError,
    ),
    Operation(
        "/rerank",
        "post",
        "Rerank, in the shape of text-embeddings-inference",
        _TEI_ANSWER,
        _WORK,
        TeiBody,
        _TEI_EXAMPLE,
        error=answers.TeiError,
    ),
    Operation(
        "/v1/classify",
        "post",
        "The likeliest categories of a query or a product",
        answers.ClassifyResponse,
        _WORK,
        ClassifyBody,
        _CLASSIFY_EXAMPLE,
    ),
    Operation(
        "/v1/why-not",
        "post",
        "Why a product is not among a search's hits",
        answers.WhyNotResponse,
        _WORK,
        WhyNotBody,
        _WHY_NOT_EXAMPLE,
    ),
    Operation(
        "/v1/products/{id}/similar",
        "get",
        "A product's neighbours",
        answers.SearchResponse,
        _WORK,
        params=SimilarParams,
    ),
    Operation("/v1/products/{id}", "get", "One product", answers.ProductResponse, params=ProductParams),
    Operation(
        "/v1/products",
        "put",
        "Put whole products, new or in place of others",
        answers.ChangeResponse,
        _CHANGE,
        Records,
        _RECORDS_EXAMPLE,
        ProductParams,
    ),
    Operation(
        "/v1/products/{id}",
        "patch",
        "Change some fields of a product",
        answers.ChangeResponse,
        _CHANGE,
        Fields,
        _FIELDS_EXAMPLE,
        ProductParams,
    ),
    Operation(
        "/v1/products/{id}",
        "delete",
        "Take a product away",
        answers.ChangeResponse,
        _CHANGE,
        params=ProductParams,
    ),
    Operation("/v1/collections", "get", "Collections and their fields", answers.CollectionsResponse),
    Operation("/v1/versions", "get", "Versions served, and those before them", answers.VersionsResponse),
    Operation(
        "/v1/versions/reload",
        "post",
        "Serve what is published now",
        answers.VersionChange,
        _SWITCH,
        VersionsBody,
        {"collection": "default"},
        bodiless=True,
    ),
    Operation(
        "/v1/versions/rollback",
        "post",
        "Publish and serve the version before",
        answers.VersionChange,
        _SWITCH,
        VersionsBody,
        {"collection": "default"},
        bodiless=True,
    ),
    Operation("/livez", "get", "The process runs", answers.Probe, (500,)),
    Operation("/readyz", "get", "Searches are answered", answers.Probe, (500,)),
    Operation("/startupz", "get", "The first version is loaded", answers.Probe, (500,)),
    Operation("/metrics", "get", "Prometheus metrics", _TEXT, (500,), media_type="text/plain"),
)

_ANY_FILTER = {"$ref": _REF.format(model="Filter")}
_SCALAR = {"type": ["string", "number", "boolean"]}


def _filter_form(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _filter() -> Json:
    name = {"type": "string", "minLength": 1}
    bounds = {bound: {"type": "number"} for bound in ("gte", "gt", "lte", "lt")}
    several = {"type": "array", "items": _ANY_FILTER, "minItems": 1}
    return {
        "title": "Filter",
        "description": "Which fields there are, and of which type, `/v1/collections` says.",
        "oneOf": [
            _filter_form(["all"], all=several),
            _filter_form(["any"], any=several),
            _filter_form(["not"], **{"not": _ANY_FILTER}),
            _filter_form(["field", "in"], field=name, **{"in": {"type": "array", "items": _SCALAR, "minItems": 1}}),
            _filter_form(["field", "eq"], field=name, eq=_SCALAR),
            _filter_form(["field"], field=name, **bounds) | {"minProperties": 2},
            _filter_form(["field", "exists"], field=name, exists={"type": "boolean"}),
        ],
    }


_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "a key that `aisle key` made"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same key"},
}


def document(routes: Sequence[BaseRoute], *, keyed: bool = False) -> Json:
    """OpenAPI 3.1 of those operations whose path is among `routes`; `keyed`: this service asks for keys."""
    endpoints = [route.endpoint for route in routes if isinstance(route, Route)]
    served = {one.path: one.access for one in endpoints if isinstance(one, Endpoint)}
    schemas = _schemas()
    paths: Json = {}
    for operation in OPERATIONS:
        if operation.path in served:
            access = served[operation.path][operation.method.upper()]
            drawn = _operation(operation, schemas, access)
            if keyed and access.scopes:
                drawn["security"] = [{name: sorted(access.scopes)} for name in _KEYS]
            paths.setdefault(operation.path, {})[operation.method] = drawn
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aisle",
            "version": __version__,
            "description": "Product search: text in, scored products out. Errors are RFC 9457 problem documents; "
            "the reranking routes answer as the services whose shape they have.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _KEYS},
    }


def _schemas() -> Json:
    read: list[type[BaseModel]] = [
        SearchBody, RescoreBody, RescoreLine, ClassifyBody, WhyNotBody, RerankBody, TeiBody, VersionsBody,
        Records, Fields,
    ]  # fmt: skip
    written = [model for model in vars(answers).values() if isinstance(model, type) and issubclass(model, BaseModel)]
    _, found = models_json_schema(
        [(model, "validation") for model in (*read, *written) if model is not BaseModel], ref_template=_REF
    )
    schemas: Json = found["$defs"]
    schemas["Filter"] = _filter()
    search = schemas["SearchBody"]
    for body in (search, schemas["WhyNotBody"]):
        body["properties"]["filter"] = {"anyOf": [_ANY_FILTER, {"type": "null"}], "default": None}
    search["anyOf"] = [
        {"required": ["query"], "properties": {"query": {"type": "string"}}},
        {"required": ["filter"], "properties": {"filter": {"type": "object"}}},
    ]
    for model, forms in {"Candidate": ("id", "text"), "ClassifyBody": ("query", "text")}.items():
        schemas[model]["oneOf"] = [{"required": [form], "properties": {form: _TEXT}} for form in forms]
    return schemas


def _operation(operation: Operation, schemas: Json, access: Access) -> Json:
    drawn: Json = {
        "operationId": operation.method + operation.path.replace("/", "_").replace("{", "").replace("}", ""),
        "summary": operation.summary,
        "parameters": _parameters(operation, schemas),
        "responses": _responses(operation, access),
    }
    if operation.body is not None:
        content: Json = {"schema": {"$ref": _REF.format(model=operation.body.__name__)}, "example": operation.example}
        drawn["requestBody"] = {"required": not operation.bodiless, "content": {"application/json": content}}
    if operation.path == "/v1/rescore":
        _draw_stream(drawn)
    return drawn


def _draw_stream(drawn: Json) -> None:
    drawn["description"] = (
        f"JSON up to 1,000 pairs. As `{_NDJSON}` each line is one item, answered by one line in order, with no bound "
        "on their number: read answers while you write. A line that fails is answered by its error. `collection` and "
        "`profile` are query parameters of a stream and members of a JSON body."
    )
    line = '{"query": "running shoes", "candidates": [{"id": "B07CXG6C9W"}]}\n'
    drawn["requestBody"]["content"][_NDJSON] = {"schema": {}, "example": line}  # one schema a line
    drawn["responses"]["200"]["content"][_NDJSON] = {"schema": _TEXT}


def _parameters(operation: Operation, schemas: Json) -> list[Json]:
    drawn: list[Json] = []
    if "{id}" in operation.path:
        drawn.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    if operation.params is None:
        return drawn
    properties = operation.params.model_json_schema(ref_template=_REF)["properties"]
    names = operation.names or {name: name for name in properties}
    for name, of in names.items():
        schema = dict(properties[of])
        schema.pop("title", None)
        description = schema.pop("description", None)
        if "anyOf" in schema:  # a query string has no null
            schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
        drawn.append({"name": name, "in": "query", "required": name == "q", "schema": schema})
        if description:
            drawn[-1]["description"] = description
    return drawn


def _responses(operation: Operation, access: Access) -> Json:
    headers = {"X-Request-ID": {"schema": _TEXT}}
    schema = operation.answer
    if isinstance(schema, type):
        schema = {"$ref": _REF.format(model=schema.__name__)}
    good: Json = {"description": "answered", "headers": headers, "content": {operation.media_type: {"schema": schema}}}
    drawn: Json = {"200": good}
    kind = "application/problem+json" if operation.error is answers.Problem else "application/json"
    error_schema = {"$ref": _REF.format(model=operation.error.__name__)}
    for status in (*((401, 403) if access.scopes else ()), *operation.errors):
        drawn[str(status)] = {
            "description": _STATUSES[status],
            "headers": headers | ({"Retry-After": {"schema": {"type": "integer"}}} if status in (429, 503) else {}),
            "content": {kind: {"schema": error_schema}},
        }
    if operation.path in ("/readyz", "/startupz"):
        drawn["503"] = good | {"description": "not yet, or no longer"}
    return drawn
