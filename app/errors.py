"""The error tree. Every class knows its HTTP status; one handler at the edge turns them into problem+json.

AisleError
├── BadInput                 422  a well-formed request that cannot be meant
│   ├── MalformedInput       400  not even well-formed (JSON, encoding)
│   └── InputTooLarge        413
├── Unauthorized             401  no key, or none that counts
├── Forbidden                403  a key without the scope, or a route that is closed
├── NotFound                 404  unknown product, collection, version or profile
├── Conflict                 409  cannot be done as things stand
│   └── VersionRefused       409  a version that was to be served and cannot be; the one before it goes on
├── Overloaded               429  refused at the door; carries Retry-After
├── Unavailable              503  not ready, or nothing could answer
│   ├── EncoderUnavailable   503  the encoder raised, stalled or gave no finite vector
│   ├── IndexUnavailable     503  the vector index cannot be put where it shall be searched
│   └── StoodStill           503  the worker that had it hung, and was given up
├── DeadlineExceeded         504  the deadline left nothing to give
├── KeyFileError             500  a file of API keys that is none (offline: exit code 1)
└── BundleError              500  a bundle that cannot be trusted (offline: exit code 3)
    └── CorruptPart               a part whose digest, size or form is not what the manifest says
"""

from __future__ import annotations


class AisleError(Exception):
    """Root of every error raised on purpose."""

    status = 500
    title = "Internal error"

    def __init__(self, detail: str, *, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []


class BadInput(AisleError):
    status = 422
    title = "Invalid request"


class MalformedInput(BadInput):
    status = 400
    title = "Malformed request"


class InputTooLarge(BadInput):
    status = 413
    title = "Request too large"


class Unauthorized(AisleError):
    status = 401
    title = "Unauthorized"


class Forbidden(AisleError):
    status = 403
    title = "Forbidden"


class NotFound(AisleError):
    status = 404
    title = "Not found"


class Conflict(AisleError):
    status = 409
    title = "Conflict"


class VersionRefused(Conflict):
    title = "Version refused"


class Overloaded(AisleError):
    """Refused at the door; `retry_after_s` is the wait that is worth trying."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Unavailable(AisleError):
    status = 503
    title = "Not available"


class EncoderUnavailable(Unavailable):
    title = "Encoder not available"


class IndexUnavailable(Unavailable):
    title = "Index not available"


class StoodStill(Unavailable):
    title = "Given up"


class DeadlineExceeded(AisleError):
    status = 504
    title = "Deadline exceeded"


class KeyFileError(AisleError):
    title = "File of keys refused"


class BundleError(AisleError):
    title = "Bundle refused"


class CorruptPart(BundleError):
    """A part of a bundle is not what its manifest says; names the part, what was expected and what was found."""

    title = "Bundle part corrupt"
