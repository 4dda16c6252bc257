"""Reranking in the shapes that clients of other services speak: Cohere and Jina, and text-embeddings-inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import SEARCH
from app.api.endpoint import Bytes, Handler, read_body, route, service_of, while_connected
from app.api.schemas import MAX_DOCUMENTS, RerankBody, TeiBody, read_json
from app.errors import BadInput, InputTooLarge
from app.types import RescoreAnswer, RescoreCandidate, RescoreItem

_DOCUMENTS_PER_SEARCH_UNIT = 100  # what those services bill by; their clients read the figure


def routes() -> list[Route]:
    return [
        route("/v1/rerank", SEARCH, post=_cohere("1")),
        route("/v2/rerank", SEARCH, post=_cohere("2")),
        route("/rerank", SEARCH, post=tei),
    ]


def _cohere(api_version: str) -> Handler:
    async def rerank(request: Request) -> Response:
        """POST: the best `top_n` documents, the most relevant first."""
        body = read_json(RerankBody, await read_body(request), None)
        texts = body.texts()
        answer, scores = await _score(request, body.query, texts)
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": scores[index]} for index in _ranked(scores)[: body.top_n]
        ]
        if body.return_documents:
            for result in results:
                result["document"] = {"text": texts[result["index"]]}
        meta: dict[str, Any] = {
            "api_version": {"version": api_version},
            "billed_units": {"search_units": math.ceil(len(texts) / _DOCUMENTS_PER_SEARCH_UNIT)},
            "version": answer.version,
        }
        if answer.degraded:
            meta["warnings"] = [f"degraded: {reason}" for reason in answer.degraded]
        return Bytes(orjson.dumps({"id": request.scope["request_id"], "results": results, "meta": meta}))

    return rerank


async def tei(request: Request) -> Response:
    """POST: every text's score, the most relevant first."""
    body = read_json(TeiBody, await read_body(request), None)
    _, scores = await _score(request, body.query, body.texts)
    ranked: list[dict[str, Any]] = [
        {"index": index, "score": _log_odds(scores[index]) if body.raw_scores else scores[index]}
        for index in _ranked(scores)
    ]
    if body.return_text:
        for result in ranked:
            result["text"] = body.texts[result["index"]]
    return Bytes(orjson.dumps(ranked))


async def _score(request: Request, query: str, texts: Sequence[str]) -> tuple[RescoreAnswer, list[float]]:
    if len(texts) > MAX_DOCUMENTS:
        raise InputTooLarge(f"{len(texts)} documents, at most {MAX_DOCUMENTS} at once")
    item = RescoreItem(query, tuple(RescoreCandidate(text=text) for text in texts))
    answer = await while_connected(request, service_of(request).rescore(item))
    scores: list[float] = []
    for result in answer.results:  # these shapes have no place for one document's error
        if result.score is None:
            raise BadInput(f"document {result.index} cannot be scored: {result.error}")
        scores.append(result.score)
    return answer, scores


def _ranked(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def _log_odds(probability: float) -> float:
    """What the sigmoid of those services' scores is taken of."""
    inside = min(max(probability, 1e-12), 1 - 1e-12)
    return math.log(inside / (1 - inside))
