"""Every error's way out: RFC 9457 problem+json, or the form that a foreign shape's clients read."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.api.endpoint import CLOSE, Bytes, Header
from app.errors import (
    AisleError,
    DeadlineExceeded,
    InputTooLarge,
    MalformedInput,
    NotFound,
    Overloaded,
    Unauthorized,
    Unavailable,
)

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = b"application/problem+json"
_COHERE_PATHS = frozenset(("/v1/rerank", "/v2/rerank"))
_TEI_PATH = "/rerank"
_FAULTS_IN_DETAIL = 3
_INSTANCE_LENGTH = 200  # characters of the path that an answer repeats
_UNEXPECTED = "The service failed to answer. The request id finds the reason in its log."


class MethodNotAllowed(AisleError):
    """The path exists, the method does not; `allow` lists those that do."""

    status = 405
    title = "Method not allowed"

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"{method[:20]} is not allowed here; {allow} is")
        self.allow = allow


async def handle(request: Request, error: Exception) -> Response:
    """The application's one exception handler, for AisleError and for what the router raises."""
    scope = request.scope
    if isinstance(error, HTTPException):
        error = _from_router(error, scope)
    assert isinstance(error, AisleError)
    if isinstance(error, MethodNotAllowed) and scope["method"] == "OPTIONS":
        return Bytes(b"", 204, headers=[(b"allow", error.allow.encode())])
    return respond(error, scope)


def respond(error: AisleError, scope: Scope) -> Bytes:
    """The error in the form that the path's clients read, with the headers its status asks for."""
    path = scope["path"]
    if path in _COHERE_PATHS:
        body, media_type = {"message": _detail(error), "id": scope.get("request_id", "")}, b"application/json"
    elif path == _TEI_PATH:
        body, media_type = {"error": _detail(error), "error_type": _tei_type(error)}, b"application/json"
    else:
        body, media_type = problem(error, scope), PROBLEM_MEDIA_TYPE
    return Bytes(orjson.dumps(body), error.status, media_type, _headers(error))


def unexpected(error: Exception, scope: Scope) -> AisleError:
    """Log what nobody foresaw, and the error that stands for it. The frames are logged and the message is not: it may
    hold what the caller sent, and queries stay out of logs."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s failed with %s\n%s", scope.get("request_id", ""), type(error).__name__, frames)
    return AisleError(_UNEXPECTED)


def problem(error: AisleError, scope: Scope) -> dict[str, Any]:
    """The RFC 9457 object. `type` is stable for a kind of error, `errors` names each fault of an invalid request."""
    return {
        "type": "urn:aisle:problem:" + error.title.lower().replace(" ", "-"),
        "title": error.title,
        "status": error.status,
        "detail": _detail(error),
        "instance": _instance(scope),
        "request_id": scope.get("request_id", ""),
        "errors": error.errors,
    }


def _detail(error: AisleError) -> str:
    # What went wrong inside is for the log; an error without a kind of its own is such a one.
    if error.status == 500:
        return _UNEXPECTED
    faults = "; ".join(f"{fault['field']}: {fault['message']}" for fault in error.errors[:_FAULTS_IN_DETAIL])
    more = len(error.errors) - _FAULTS_IN_DETAIL
    told = error.detail if faults in error.detail else f"{error.detail}: {faults}"
    return told + (f"; and {more} more" if more > 0 else "")


def _instance(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or b""
    return raw[:_INSTANCE_LENGTH].decode("ascii", "replace").partition("?")[0]


def _headers(error: AisleError) -> list[Header]:
    if isinstance(error, Overloaded):
        return [(b"retry-after", b"%d" % error.retry_after_s)]
    if isinstance(error, Unavailable):
        return [(b"retry-after", b"1")]
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allow.encode())]
    return [CLOSE] if isinstance(error, InputTooLarge) else []


def _from_router(error: HTTPException, scope: Scope) -> AisleError:
    if error.status_code == 404:
        return NotFound("there is nothing at this path")
    if error.status_code == 405:
        return MethodNotAllowed(scope["method"], scope["endpoint"].allow)
    return MalformedInput("the request could not be read") if error.status_code < 500 else AisleError("")


def _tei_type(error: AisleError) -> str:
    if isinstance(error, Overloaded):
        return "Overloaded"
    if isinstance(error, Unavailable):
        return "Unhealthy"
    return "Backend" if error.status == 500 or isinstance(error, DeadlineExceeded) else "Validation"
