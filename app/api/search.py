"""`/v1/search`: text in, scored products out."""

from __future__ import annotations

import logging
import re
from time import perf_counter

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, by_name, read_body, route, service_of, while_connected
from app.api.options import options
from app.api.params import Reader, boolean, integer, number, read_params, text
from app.api.schemas import NoParams, SearchBody, read_json
from app.types import SearchAnswer, SearchRequest, Timing

logger = logging.getLogger(__name__)

# DEL, C1 controls (U+009B begins a terminal code), invisible marks and those that turn the direction of a line.
_RAW = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

_READERS: dict[str, Reader] = {
    "q": text,
    "k": integer,
    "offset": integer,
    "collection": text,
    "profile": text,
    "prefix": boolean,
    "relax": boolean,
    "explain": boolean,
    "timeout_ms": number,
}


def routes() -> list[Route]:
    return [route("/v1/search", SEARCH, get=search_by_query_string, post=search_by_body)]


async def search_by_body(request: Request) -> Response:
    """POST: the whole request language."""
    read_params(NoParams, request.scope, {})
    body = await read_body(request)
    asked = read_json(SearchBody, body, content_type(request))
    return await _search(request, asked.request(options(request).timeout_ms))


async def search_by_query_string(request: Request) -> Response:
    """GET: what fits into an address, for a browser's bar and for search as you type."""
    asked = read_params(SearchBody, request.scope, _READERS, {"q": "query"})
    return await _search(request, asked.request(options(request).timeout_ms))


def content_type(request: Request) -> bytes | None:
    """The Content-Type header, None when there is none."""
    return by_name(request.scope["headers"]).get(b"content-type")


async def _search(request: Request, asked: SearchRequest) -> Response:
    scope = request.scope
    work = service_of(request).search(asked, alone=scope["alone"], late_ms=scope["late_ms"])
    answer = await while_connected(request, work)
    if options(request).log_queries:
        _log(request, asked, answer)
    return answered(request, answer)


def answered(request: Request, answer: SearchAnswer) -> Bytes:
    """The response: three members of this request, then the answer's own bytes, wherever they come from."""
    scope = request.scope
    took_ms = (perf_counter() - scope["started"]) * 1e3
    cached = "true" if answer.cached else "false"
    head = f'{{"request_id":"{scope["request_id"]}","took_ms":{took_ms:.3f},"cached":{cached},'
    timed = [(b"server-timing", _server_timing(answer.timings))] if answer.timings else []
    return Bytes(head.encode() + answer.tail, headers=timed)


def _server_timing(timings: tuple[Timing, ...]) -> bytes:
    return ", ".join([f"{timing.stage};dur={timing.ms:.3f}" for timing in timings]).encode()


def _log(request: Request, asked: SearchRequest, answer: SearchAnswer) -> None:
    # As JSON, whose escapes keep line breaks and terminal codes of a query out of the log; those that JSON leaves raw
    # are escaped as well.
    entry = {
        "request_id": request.scope["request_id"],
        "query": asked.query,
        "collection": asked.collection,
        "k": asked.k,
        "offset": asked.offset,
        "tier": answer.tier,
        "cached": answer.cached,
    }
    written = _RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", orjson.dumps(entry).decode())
    logger.info("search %s", written)
