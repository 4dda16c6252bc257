"""The change log of one collection: what was changed since its versions were built, durable before it is acknowledged.

    FOLDER/
    ├── ID                          text: names this log, so that places in it are not mixed up with another's
    ├── LOCK                        held while a batch is written: one writer at a time, whatever process it is in
    └── 00000000000000000001.log    records; a segment is named after its first change

A record is a batch that holds as a whole: the length and CRC-32 of its text and the CRC-32 of these two (little endian,
4 bytes each), then the text, JSON: `[first sequence, accepted at (epoch seconds), [[op, id, fields], …]]`. Changes are
numbered from 1 without gaps.

A last record that is short, or zeros, was being written when its process was killed or its power cut: nobody was told
that it is kept, and the next writer cuts it off. Any other record that does not read is corruption, and is refused by
name. Readers take the lock as well, shared: what they see is durable.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import orjson

from app.errors import CorruptPart, Unavailable
from app.index.files import fsync

FOLDER = "changes"
SEGMENT_BYTES = 64 * 2**20
_ID, _LOCK = "ID", "LOCK"
_SEGMENT = re.compile(r"[0-9]{20}\.log")
_HEAD = struct.Struct("<III")
_LARGEST_RECORD = 64 * 2**20

Op = Literal["put", "patch", "delete"]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to one product: all its fields, some of them (None: gone), or its end. Fields are typed already."""

    op: Op
    id: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """An edit in its place in the log; `at` is when it was accepted, in epoch seconds."""

    sequence: int
    at: float
    edit: Edit


class ChangeLog:
    """A place in a log: `news` gives what has come since it was last asked, `append` goes on at the end. An instance is
    for one thread and for one of the two; there may be any number of them, in any number of processes."""

    def __init__(self, folder: Path, after: int = 0) -> None:
        """`news` will begin with the first change after that sequence. The folder need not be there yet."""
        self.folder = folder
        self.sequence = after
        self._segment: Path | None = None
        self._offset = 0
        self._wanted = after

    @property
    def id(self) -> str | None:
        """The log's name; None before the first change."""
        try:
            return (self.folder / _ID).read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptPart(f"{FOLDER}/{_ID}: unreadable ({type(error).__name__})") from error

    def news(self) -> list[Change]:
        """Changes that have come since. Raises CorruptPart for a record that does not read, or where changes are
        missing."""
        if not self.grown():
            return []
        try:
            with self._locked(fcntl.LOCK_SH):
                found = [change for change in self._walk() if change.sequence > self._wanted]
        except OSError as error:
            raise CorruptPart(f"{FOLDER}: unreadable ({error.strerror})") from error
        if self.sequence < self._wanted:
            raise CorruptPart(f"{FOLDER}: ends at change {self.sequence}, but {self._wanted} was built from it")
        if found and found[0].sequence != self._wanted + 1:
            raise CorruptPart(f"{FOLDER}: changes {self._wanted + 1} to {found[0].sequence - 1} are gone")
        if found:
            self._wanted = found[-1].sequence
        return found

    def append(self, batches: Sequence[Sequence[Edit]]) -> list[int]:
        """Keep batches, each as a whole, durably; the sequence of each one's last change. Raises Unavailable where they
        cannot be kept; then none is."""
        try:
            return self._append(batches)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unavailable(f"changes cannot be kept: {reason.lower()}") from error

    def trim(self, upto: int) -> int:
        """Remove segments that hold nothing after `upto`; how many. The last one stays."""
        segments = self._segments()
        ended = [one for one, following in pairwise(segments) if _first(following) <= upto + 1]
        for one in ended:
            one.unlink()
        if ended:
            fsync(self.folder)
        return len(ended)

    def grown(self) -> bool:
        """Whether there may be news, for a glance at the file; a first look always tells."""
        if self._segment is None:
            return (self.folder / _LOCK).exists()
        try:
            size = self._segment.stat().st_size
        except FileNotFoundError:
            return True
        return size != self._offset or (self.folder / f"{self.sequence + 1:020}.log").exists()

    def _append(self, batches: Sequence[Sequence[Edit]]) -> list[int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_EX):
            if self.id is None:
                self._name()
            for _ in self._walk():
                pass  # to the end of what others have written
            records, ends, sequence = [], [], self.sequence
            for edits in batches:
                records.append(_record(sequence + 1, edits))
                sequence += len(edits)
                ends.append(sequence)
            self._write(b"".join(records))
            self.sequence = sequence
            return ends

    def _write(self, data: bytes) -> None:
        if self._segment is None or self._offset >= SEGMENT_BYTES:
            self._segment, self._offset = self.folder / f"{self.sequence + 1:020}.log", 0
        descriptor = os.open(self._segment, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, self._offset)  # what a killed writer left half done
            try:
                _write(descriptor, data, self._offset)
                os.fsync(descriptor)
                if not self._offset:
                    fsync(self.folder)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(descriptor, self._offset)
                raise
        finally:
            os.close(descriptor)
        self._offset += len(data)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        access = os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR | os.O_CREAT
        descriptor = os.open(self.folder / _LOCK, access, 0o644)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _name(self) -> None:
        temporary = self.folder / f".{_ID}"
        with temporary.open("w", encoding="ascii") as file:
            file.write(secrets.token_hex(8) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.folder / _ID)
        fsync(self.folder)
        fsync(self.folder.parent)

    def _segments(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if _SEGMENT.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def _walk(self) -> Iterator[Change]:
        """Whole records from here on."""
        if self._segment is None:
            held = [one for one in self._segments() if _first(one) <= self.sequence + 1]
            self._segment = held[-1] if held else next(iter(self._segments()), None)
            if self._segment is None:
                return
            self.sequence = _first(self._segment) - 1
        while True:
            yield from self._walk_segment(self._segment)
            following = self.folder / f"{self.sequence + 1:020}.log"
            if following == self._segment or not following.exists():
                return
            self._segment, self._offset = following, 0

    def _walk_segment(self, segment: Path) -> Iterator[Change]:
        try:
            file = segment.open("rb")
        except FileNotFoundError:
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            if size <= self._offset:
                return
            file.seek(self._offset)
            while len(head := file.read(_HEAD.size)) == _HEAD.size and any(head):
                length, checksum, own = _HEAD.unpack(head)
                if zlib.crc32(head[:8]) != own or length > _LARGEST_RECORD:
                    raise CorruptPart(f"{FOLDER}/{segment.name} at byte {self._offset}: not the head of a record")
                if self._offset + _HEAD.size + length > size:
                    return
                changes = self._read_record(segment, file.read(length), checksum)
                self._offset += _HEAD.size + length
                self.sequence = changes[-1].sequence
                yield from changes

    def _read_record(self, segment: Path, raw: bytes, checksum: int) -> list[Change]:
        place = f"{FOLDER}/{segment.name} at byte {self._offset}"
        if zlib.crc32(raw) != checksum:
            raise CorruptPart(f"{place}: CRC-32 {zlib.crc32(raw):08x}, expected {checksum:08x}")
        try:
            first, at, edits = orjson.loads(raw)
            changes = [Change(first + number, float(at), Edit(*edit)) for number, edit in enumerate(edits)]
        except (ValueError, TypeError) as error:
            raise CorruptPart(f"{place}: not a record ({type(error).__name__})") from error
        if not changes or changes[0].sequence != self.sequence + 1:
            raise CorruptPart(f"{place}: not the change after {self.sequence}")
        return changes


def _record(first: int, edits: Sequence[Edit]) -> bytes:
    raw: bytes = orjson.dumps([first, time.time(), [[edit.op, edit.id, edit.fields] for edit in edits]])
    head = struct.pack("<II", len(raw), zlib.crc32(raw))
    return head + struct.pack("<I", zlib.crc32(head)) + raw


def _write(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _first(segment: Path) -> int:
    return int(segment.stem)
