"""`/v1/classify`: a query, or a product's text, in; the catalogue's categories with their probabilities out."""

from __future__ import annotations

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, read_body, route, service_of, while_connected
from app.api.options import options
from app.api.params import read_params
from app.api.schemas import ClassifyBody, NoParams, read_json
from app.api.search import content_type


def routes() -> list[Route]:
    return [route("/v1/classify", SEARCH, post=classify)]


async def classify(request: Request) -> Response:
    """POST: one text."""
    read_params(NoParams, request.scope, {})
    asked = read_json(ClassifyBody, await read_body(request), content_type(request))
    wanted = asked.request(options(request).timeout_ms)
    answer = await while_connected(request, service_of(request).classify(wanted))
    return Bytes(
        orjson.dumps(
            {
                "version": answer.version,
                "field": answer.field,
                "corrected": answer.corrected,
                "categories": [{"value": value, "probability": share} for value, share in answer.categories],
            }
        )
    )
