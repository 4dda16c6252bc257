"""API keys at the door: whether a request may come in, decided before its body is read.

A key comes as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. The file of keys is looked at again at most once a
second, so a key that was added or taken out counts within a second or two and nothing is restarted; two keys that
count at the same time make a rotation. A file that has become unreadable changes nothing: the keys before it go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from hmac import compare_digest
from pathlib import Path
from time import monotonic, time

from app import metrics
from app.api.access import Access
from app.api.keyfile import Key, digest_of, read
from app.errors import Forbidden, KeyFileError, Unauthorized

_log = logging.getLogger("aisle.keys")
_LOOK_EVERY_S = 1.0
_LONGEST_KEY = 512  # bytes; nobody's key is longer, and hashing what is would be work for nothing
_CLOSED = (
    "this route needs a key: set AISLE_API_KEYS_FILE (`aisle key` makes one), or AISLE_OPEN=1 on a machine of your own"
)
_FROM_A_PAGE = "an open service takes this from programs alone, not from a page in a browser"

Headers = Iterable[tuple[bytes, bytes]]


class Keys:
    """The keys that count now. Without a file (`path` is None) searching is open, and what is guarded is closed unless
    `is_open`. A file that is there decides alone."""

    def __init__(self, path: Path | None, *, is_open: bool = False) -> None:
        """Raises KeyFileError where the file cannot be read: a service does not start half locked."""
        self.required = path is not None
        self._path = path
        self._is_open = is_open
        self._seen: tuple[int, ...] | None = None
        self._look_at = 0.0
        self._keys: tuple[Key, ...] = ()
        if path is not None:
            self._seen, self._look_at = _signature(path), monotonic() + _LOOK_EVERY_S
            try:
                self._keys = read(path)
            except KeyFileError as error:
                raise KeyFileError(f"AISLE_API_KEYS_FILE={path}: {error.detail}") from None

    def admit(self, access: Access, headers: Headers) -> None:
        """Return for a request that may come in. Raises Unauthorized without a key that counts, Forbidden where the key
        lacks the scope. Microseconds; counted by reason where refused."""
        if not access.scopes:
            return
        if self._path is None:
            if access.guarded:
                self._admit_unkeyed(headers)
            return
        if monotonic() >= self._look_at:
            self._look(self._path)
        given = _given(headers)
        if given is None:
            raise _refused("missing", "this route needs a key: send Authorization: Bearer KEY")
        key = self._find(given)
        if key is None:
            raise _refused("unknown", "the key is not known here")
        if key.expires <= time():
            raise _refused("expired", "the key has expired")
        if not key.scopes & access.scopes:
            metrics.AUTH_REFUSED.labels("scope").inc()
            raise Forbidden(f"the key does not have the scope {access.wanted}")

    def _admit_unkeyed(self, headers: Headers) -> None:
        # Any page that a browser shows can send to 127.0.0.1. Browsers mark what they send, and programs do not.
        page = self._is_open and any(name in (b"origin", b"sec-fetch-site") for name, _ in headers)
        if not self._is_open or page:
            metrics.AUTH_REFUSED.labels("closed").inc()
            raise Forbidden(_FROM_A_PAGE if page else _CLOSED)

    def _find(self, given: bytes) -> Key | None:
        if len(given) > _LONGEST_KEY:
            return None
        digest, found = digest_of(given), None
        for key in self._keys:  # to the end in any case: how long it takes tells nothing of what is known
            if compare_digest(key.digest, digest):
                found = key
        return found

    def _look(self, path: Path) -> None:
        """Take up the file where it has changed."""
        self._look_at = monotonic() + _LOOK_EVERY_S
        now = _signature(path)
        if now == self._seen:
            return
        self._seen = now
        try:
            self._keys = read(path)
        except KeyFileError as error:
            metrics.KEY_FILE_READS.labels("refused").inc()
            _log.error("the file of keys was refused, those before it go on: %s", error.detail)
            return
        metrics.KEY_FILE_READS.labels("read").inc()
        _log.info("the file of keys was read again, keys in it: %d", len(self._keys))


def _refused(reason: str, detail: str) -> Unauthorized:
    metrics.AUTH_REFUSED.labels(reason).inc()
    return Unauthorized(detail)


def _given(headers: Headers) -> bytes | None:
    """The key that a request brings, None where it brings none. Bearer comes before X-API-Key: it cannot be meant for
    anybody else."""
    other: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name == b"x-api-key" and value:
            other = value
    return other


def _signature(path: Path) -> tuple[int, ...] | None:
    """What differs once the file has changed, also behind a link; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
