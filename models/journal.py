"""Vectors made so far, kept while a catalogue is embedded: a build that was cut short goes on after them.

Records of a fixed size are appended, each with the digest of its text, the vector as it was made, and a checksum: what
a crash cut off or tore is made again. One build at a time writes a journal; another embeds without one.
"""

from __future__ import annotations

import fcntl
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from app.index.files import make_folder
from app.types import Floats

_NAME = ".embedded-"
_BLOCK = 4096  # records read at once
Digests = npt.NDArray[np.void]
"""16 bytes a text."""


class Journal:
    """The vectors of texts under one product encoder; `opened` makes one."""

    def __init__(self, file: BinaryIO, dimension: int) -> None:
        self._file = file
        self._record = np.dtype([("text", "V16"), ("vector", "<f4", (dimension,)), ("check", "<u4")])

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, encoder: tuple[Any, ...], dimension: int) -> Iterator[Journal | None]:
        """The journal in `folder` for whatever tells product encoders apart; None where another build holds it. Raises
        OSError where the folder cannot be written to."""
        make_folder(folder)
        name = hashlib.blake2b(repr((encoder, dimension)).encode(), digest_size=8).hexdigest()
        path = folder / f"{_NAME}{name}"
        with path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield None
                return
            yield cls(file, dimension)

    def read(self) -> dict[bytes, Floats]:
        """Vectors by the digest of their text. What is torn, and all behind it, is cut off."""
        known: dict[bytes, Floats] = {}
        self._file.seek(0)
        whole = 0
        while len(block := self._next_block()):
            for record in block:
                if record["check"] != _check(record):
                    break
                known[record["text"].tobytes()] = record["vector"].copy()
                whole += 1
            else:
                continue
            break
        self._file.truncate(whole * self._record.itemsize)
        return known

    def _next_block(self) -> npt.NDArray[np.void]:
        data = self._file.read(_BLOCK * self._record.itemsize)
        return np.frombuffer(data, self._record, count=len(data) // self._record.itemsize)

    def keep(self, texts: Digests, vectors: Floats) -> None:
        """Append vectors [n, dimension] of texts [n]. Raises OSError where the disk is full."""
        records = np.zeros(len(texts), self._record)
        records["text"], records["vector"] = texts, vectors
        for record in records:
            record["check"] = _check(record)
        self._file.write(records.tobytes())
        self._file.flush()


def forget(folder: Path) -> None:
    """The version is there: journals that nobody writes are of no use any more."""
    for path in folder.glob(f"{_NAME}*"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _check(record: np.void) -> int:
    return zlib.crc32(record.tobytes()[:-4])
