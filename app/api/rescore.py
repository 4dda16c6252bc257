"""`/v1/rescore`: scores for pairs of query and product, as one JSON document or as a stream of lines."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, in_turns, read_body, route, service_of, while_connected
from app.api.ndjson import LINES_IN_FLIGHT, LineStream
from app.api.params import read_params, text
from app.api.problems import problem, unexpected
from app.api.schemas import (
    MAX_PAIRS,
    NDJSON,
    RESCORE_PATH,
    NoParams,
    RescoreBody,
    RescoreLine,
    RescoreParams,
    read_json,
)
from app.api.search import content_type
from app.errors import AisleError, InputTooLarge, Unavailable
from app.types import RescoreAnswer, RescoreResult

_READERS = {"collection": text, "profile": text}


def routes() -> list[Route]:
    return [route(RESCORE_PATH, SEARCH, post=rescore)]


async def rescore(request: Request) -> Response:
    """POST: JSON in one piece, NDJSON as a stream."""
    kind = content_type(request)
    if kind is not None and kind.startswith(NDJSON):
        return _rescore_stream(request)
    read_params(NoParams, request.scope, {})
    raw = await read_body(request)
    body = await in_turns(len(raw), read_json, RescoreBody, raw, kind)
    pairs = sum(line.pairs for line in body.items)
    if pairs > MAX_PAIRS:
        raise InputTooLarge(f"{pairs} pairs, at most {MAX_PAIRS} at once: send them as {NDJSON.decode()}, item by item")
    outcomes = await while_connected(request, _rescore_all(request, body))
    return Bytes(await in_turns(len(raw), _joined, request, outcomes))


async def _rescore_all(request: Request, body: RescoreBody) -> list[RescoreAnswer | AisleError]:
    room = asyncio.Semaphore(LINES_IN_FLIGHT)

    async def one(line: RescoreLine) -> RescoreAnswer | AisleError:
        async with room:
            return await _outcome(request, line, body.collection, body.profile)

    outcomes = await asyncio.gather(*(one(line) for line in body.items))
    # Where a new version came in between, what the old one scored is scored again: an answer has one version.
    newest = next((outcome.version for outcome in reversed(outcomes) if isinstance(outcome, RescoreAnswer)), None)
    return await asyncio.gather(
        *(
            one(line) if isinstance(outcome, RescoreAnswer) and outcome.version != newest else _given(outcome)
            for line, outcome in zip(body.items, outcomes, strict=True)
        )
    )


async def _given(outcome: RescoreAnswer | AisleError) -> RescoreAnswer | AisleError:
    return outcome


def _joined(request: Request, outcomes: list[RescoreAnswer | AisleError]) -> bytes:
    answers = [outcome for outcome in outcomes if isinstance(outcome, RescoreAnswer)]
    if not answers:  # nothing to give at all: then the request failed, not its items
        first = outcomes[0]
        assert isinstance(first, AisleError)
        raise first
    items = [_item(request, outcome) for outcome in outcomes]
    return orjson.dumps({"version": answers[-1].version, "items": items})


def _rescore_stream(request: Request) -> LineStream:
    params = read_params(RescoreParams, request.scope, _READERS)
    if not service_of(request).started:
        raise Unavailable("the service is starting")

    async def work(line: bytes) -> bytes:
        try:
            asked = await in_turns(len(line), read_json, RescoreLine, line, None)
            if asked.pairs > MAX_PAIRS:
                raise InputTooLarge(f"{asked.pairs} pairs, at most {MAX_PAIRS} a line: send them as several lines")
        except AisleError as error:
            return refuse(error)
        outcome = await _outcome(request, asked, params.collection, params.profile)
        return await in_turns(len(line), _written, request, outcome)

    def refuse(error: AisleError) -> bytes:
        return _line(_item(request, error))

    return LineStream(work, refuse)


async def _outcome(request: Request, line: RescoreLine, collection: str, profile: str) -> RescoreAnswer | AisleError:
    """An item's answer or why it has none, so that one item never fails the others."""
    try:
        return await service_of(request).rescore(line.item(), collection=collection, profile=profile)
    except AisleError as error:
        return error
    except Exception as error:  # noqa: BLE001 - one item's, not the batch's
        return unexpected(error, request.scope)


def _item(request: Request, outcome: RescoreAnswer | AisleError) -> dict[str, Any]:
    if isinstance(outcome, AisleError):
        return {"error": problem(outcome, request.scope)}
    return {
        "version": outcome.version,
        "tier": outcome.tier,
        "degraded": {"is": bool(outcome.degraded), "reasons": list(outcome.degraded)},
        "results": [_result(result) for result in outcome.results],
    }


def _result(result: RescoreResult) -> dict[str, Any]:
    if result.error is not None:
        return {"index": result.index, "error": result.error}
    written: dict[str, Any] = {"index": result.index, "score": result.score}
    if result.missing_fields:
        written["missing_fields"] = list(result.missing_fields)
    return written


def _written(request: Request, outcome: RescoreAnswer | AisleError) -> bytes:
    return _line(_item(request, outcome))


def _line(item: dict[str, Any]) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)
