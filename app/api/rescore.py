"""`/v1/rescore`: scores for pairs of query and product, as one JSON document or as a stream of lines."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, in_turn, read_body, route, service_of, while_connected
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
from app.types import RescoreAnswer, RescoreItem, RescoreResult

_READERS = {"collection": text, "profile": text}


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one JSON document asks for."""

    items: list[RescoreItem]
    collection: str
    profile: str


def routes() -> list[Route]:
    return [route(RESCORE_PATH, SEARCH, post=rescore)]


async def rescore(request: Request) -> Response:
    """POST: JSON in one piece, NDJSON as a stream."""
    kind = content_type(request)
    if kind is not None and kind.startswith(NDJSON):
        return _rescore_stream(request)
    read_params(NoParams, request.scope, {})
    raw = await read_body(request)
    batch = await in_turn(request, len(raw), _read, raw, kind)
    outcomes = await while_connected(request, _rescore_all(request, batch))
    return Bytes(await in_turn(request, len(raw), _joined, request, outcomes))


def _read(raw: bytes, kind: bytes | None) -> _Batch:
    """What is asked for. Of a thousand pairs no more is kept than they need: what waits in memory is looked through by
    the collector, while every search stands still."""
    body = read_json(RescoreBody, raw, kind)
    pairs = sum(line.pairs for line in body.items)
    if pairs > MAX_PAIRS:
        raise InputTooLarge(f"{pairs} pairs, at most {MAX_PAIRS} at once: send them as {NDJSON.decode()}, item by item")
    return _Batch([line.item() for line in body.items], body.collection, body.profile)


async def _rescore_all(request: Request, batch: _Batch) -> list[RescoreAnswer | AisleError]:
    room = asyncio.Semaphore(LINES_IN_FLIGHT)

    async def one(item: RescoreItem) -> RescoreAnswer | AisleError:
        async with room:
            return await _outcome(request, item, batch.collection, batch.profile)

    outcomes = await asyncio.gather(*(one(item) for item in batch.items))
    # Where a new version came in between, what the old one scored is scored again: an answer has one version.
    newest = next((outcome.version for outcome in reversed(outcomes) if isinstance(outcome, RescoreAnswer)), None)
    return await asyncio.gather(
        *(
            one(item) if isinstance(outcome, RescoreAnswer) and outcome.version != newest else _given(outcome)
            for item, outcome in zip(batch.items, outcomes, strict=True)
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
            item = await in_turn(request, len(line), _read_line, line)
        except AisleError as error:
            return refuse(error)
        outcome = await _outcome(request, item, params.collection, params.profile)
        return await in_turn(request, len(line), _written, request, outcome)

    def refuse(error: AisleError) -> bytes:
        return _line(_item(request, error))

    return LineStream(work, refuse)


def _read_line(line: bytes) -> RescoreItem:
    asked = read_json(RescoreLine, line, None)
    if asked.pairs > MAX_PAIRS:
        raise InputTooLarge(f"{asked.pairs} pairs, at most {MAX_PAIRS} a line: send them as several lines")
    return asked.item()


async def _outcome(request: Request, item: RescoreItem, collection: str, profile: str) -> RescoreAnswer | AisleError:
    """An item's answer or why it has none, so that one item never fails the others."""
    try:
        return await service_of(request).rescore(item, collection=collection, profile=profile)
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
