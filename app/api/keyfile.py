"""The file of API keys: one key a line, never the key itself.

    # name    scopes        sha256 of the key                                                  expires
    shop      search        0f3c…64 hex digits  2027-06-30
    nightly   write,admin   …

A key is 32 random bytes, which nobody finds by trying, so a plain digest protects it as a slow hash would protect a
password. A date counts to its end, and a time without a zone, in UTC. This module owns the format both ways.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from app.api.access import SCOPES
from app.errors import KeyFileError

PREFIX = "aisle_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RANDOM_BYTES = 32
_LARGEST_BYTES = 1 << 20
_MOST_KEYS = 1000  # a request is compared with each, some 0.05 µs apiece


@dataclass(frozen=True, slots=True)
class Key:
    """One key that is known. `expires` is in seconds since the epoch, infinite for one that does not."""

    name: str
    scopes: frozenset[str]
    digest: bytes
    expires: float = math.inf


def new_key() -> str:
    """A key that nobody has."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return sha256(key).digest()


def line_of(name: str, scopes: frozenset[str], key: str, expires: str | None = None) -> str:
    """The line by which a service knows the key, without a line end. Raises KeyFileError for what no line can say."""
    listed = ",".join(scope for scope in SCOPES if scope in scopes)
    line = " ".join((name, listed, digest_of(key.encode()).hex(), *([expires] if expires else [])))
    _key(line.split(), "the key")
    return line


def expiry(text: str) -> float:
    """Seconds since the epoch of an ISO date (its end) or datetime. Raises ValueError."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        midnight = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        return (midnight + timedelta(days=1)).timestamp()
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse(text: str) -> tuple[Key, ...]:
    """Every key of a file. Raises KeyFileError, which names the line and never repeats it: somebody may have put a key
    where its digest belongs."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            keys.append(_key(words, f"line {number}"))
    if not keys:  # a file that is being written, rather than the wish to lock everybody out
        raise KeyFileError("there is no key in it")
    if len(keys) > _MOST_KEYS:
        raise KeyFileError(f"{len(keys)} keys, at most {_MOST_KEYS}")
    if len({key.digest for key in keys}) < len(keys):
        raise KeyFileError("a key is in it twice")
    return tuple(keys)


def _key(words: list[str], where: str) -> Key:
    if not 3 <= len(words) <= 4:
        raise KeyFileError(
            f"{where}: expected a name, scopes, a sha256 and perhaps an expiry, found {len(words)} words"
        )
    name, listed, digest = words[:3]
    scopes = frozenset(listed.split(","))
    if not _NAME.fullmatch(name):
        raise KeyFileError(f"{where}: a name is 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit")
    if not scopes <= set(SCOPES):
        raise KeyFileError(f"{where}: scopes are a comma list of {', '.join(SCOPES)}")
    if not _DIGEST.fullmatch(digest):
        raise KeyFileError(f"{where}: the sha256 is not 64 hex digits in lower case")
    try:
        expires = expiry(words[3]) if len(words) == 4 else math.inf
    except (ValueError, OverflowError):
        raise KeyFileError(f"{where}: the expiry is no ISO date or datetime") from None
    return Key(name, scopes, bytes.fromhex(digest), expires)


def read(path: Path) -> tuple[Key, ...]:
    """The keys of the file at `path`. Raises KeyFileError, without the path: it may reach a caller."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KeyFileError("it is not a plain file")
            raw = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"it cannot be read ({error.strerror or type(error).__name__})") from None
    if len(raw) > _LARGEST_BYTES:
        raise KeyFileError(f"it is larger than {_LARGEST_BYTES} bytes")
    try:
        return parse(raw.decode())
    except UnicodeDecodeError:
        raise KeyFileError("it is no UTF-8") from None


def append(path: Path, line: str) -> None:
    """Add a line in one step: whoever reads meanwhile finds the old file or the new. A new file is for its owner alone;
    one that was there keeps its mode and owner, else the service that reads it could no more.

    Raises KeyFileError where what is there is no file of keys, OSError where it cannot be written."""
    path = path.resolve()  # the file rather than a link to it is replaced
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two that add at once: neither line may be lost
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        text = f"{before}\n{line}\n" if before and not before.endswith("\n") else f"{before}{line}\n"
        parse(text)
        _replace(path, text)
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                was = path.stat()
                os.fchmod(descriptor, stat.S_IMODE(was.st_mode))
                if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, was.st_uid, was.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
