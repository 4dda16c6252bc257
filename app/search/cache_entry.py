"""Keys and stored form of cache entries.

A key is a blake2b-128 digest of length-prefixed parts, so two different tuples never share one (short of a collision
of the digest) and no text of a query reaches Redis. A stored entry is

    magic (1 byte) | kind and format (1 byte) | digest (8 bytes) | payload

where the digest is blake2b-64 over the payload, keyed with the entry's own key and marked with its kind: an entry that
was cut, altered, written by another format, or copied from another key does not open. The digest finds damage and
mix-ups; it is no secret, so whoever may write to Redis can still write an entry that opens. A payload is JSON bytes or
raw float32, nothing that runs when it is read.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import numpy as np

from app.types import Floats

Kind = Literal["answer", "vector"]

KEY_BYTES = 16
MAX_ENTRY_BYTES = 1 << 20

_MARKS: dict[Kind, bytes] = {"answer": b"\xa1a", "vector": b"\xa1v"}
_PERSONS: dict[Kind, bytes] = {"answer": b"aisle entry a 1", "vector": b"aisle entry v 1"}
_PREFIXES: dict[Kind, bytes] = {"answer": b"aisle:1:a:", "vector": b"aisle:1:v:"}
_DIGEST_BYTES = 8
_HEADER_BYTES = 2 + _DIGEST_BYTES
_FLOAT_BYTES = 4


def answer_key(collection: str, version: str, *parts: bytes) -> bytes:
    """16-byte key of an answer. `parts` hold, in canonical form, everything else that the answer depends on."""
    return _key(b"aisle answer 2", _utf8(collection), _utf8(version), *parts)


def vector_key(encoder_digest: str, text: str) -> bytes:
    """16-byte key of the vector that the encoder with this digest gives to this normalised text."""
    return _key(b"aisle vector 1", _utf8(encoder_digest), _utf8(text))


def redis_key(kind: Kind, key: bytes) -> bytes:
    """The name of an entry in Redis, `aisle:1:a:<hex>` or `aisle:1:v:<hex>`."""
    return _PREFIXES[kind] + key.hex().encode()


def seal(kind: Kind, key: bytes, payload: bytes) -> bytes:
    """The stored form of a payload under this key."""
    return _MARKS[kind] + _digest(kind, key, payload) + payload


def unseal(kind: Kind, key: bytes, stored: bytes) -> bytes | None:
    """The payload, or None when these are not the bytes that `seal` wrote for this kind and key."""
    # Size first: an oversized value is refused before its digest costs anything.
    if not _HEADER_BYTES <= len(stored) <= _HEADER_BYTES + MAX_ENTRY_BYTES or stored[:2] != _MARKS[kind]:
        return None
    payload = stored[_HEADER_BYTES:]
    return payload if stored[2:_HEADER_BYTES] == _digest(kind, key, payload) else None


def vector_payload(vector: Floats) -> bytes:
    """float32 vector [d] as d (4 bytes) and its values, little-endian."""
    return len(vector).to_bytes(4, "little") + vector.astype("<f4", copy=False).tobytes()


def vector_of(payload: bytes) -> Floats | None:
    """The read-only vector [d] of a payload, or None when its size contradicts d or a value is not finite."""
    dimension = int.from_bytes(payload[:4], "little")
    if dimension == 0 or len(payload) != 4 + _FLOAT_BYTES * dimension:
        return None
    return frozen_vector(np.frombuffer(payload, dtype="<f4", offset=4))


def frozen_vector(vector: Floats) -> Floats | None:
    """A read-only float32 copy, safe to share between callers; None when a value is not finite."""
    copy = np.array(vector, dtype=np.float32)
    if copy.ndim != 1:
        raise ValueError(f"a cached vector has one axis, not {copy.ndim}")
    if not np.isfinite(copy).all():
        return None
    copy.flags.writeable = False
    return copy


def _utf8(text: str) -> bytes:
    # Lone surrogates are refused at the edge; here they only must not raise or meet another text's bytes.
    return text.encode("utf-8", "surrogatepass")


def _key(person: bytes, *parts: bytes) -> bytes:
    lengths = b"".join(len(part).to_bytes(8, "little") for part in parts)
    head = len(parts).to_bytes(8, "little") + lengths
    return blake2b(head + b"".join(parts), digest_size=KEY_BYTES, person=person).digest()


def _digest(kind: Kind, key: bytes, payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_DIGEST_BYTES, key=key, person=_PERSONS[kind]).digest()
