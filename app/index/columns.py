"""Columns of a catalogue: one array a field, read from memory-mapped files without a Python object a row."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.index import string_kernels as kernels
from app.index.arrays import (
    CHECKED_AT_ONCE,
    Bounds,
    frozen,
    is_utf8,
    load_array,
    load_bounds,
    map_file,
    narrowed,
    release,
    save_array,
)
from app.pace import give_way
from app.types import Mask, Rows

Codes = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.int8]
Counts = list[tuple[str | bool, int]]

MISSING = -1
SMALL_BYTES = 64 * 2**20
"""A blob up to this size is mapped in any case: a call of the system for each of its entries costs more."""


class OpenFile:
    """Bytes of a file, read when they are asked for: what is seldom needed, and then little of it, is not worth a map,
    whose every touch would count 64 KB as this process's memory. Any number of threads may read at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._length = path.stat().st_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._length)
        return os.pread(self._file.fileno(), max(0, stop - start), start)


class OpenBounds:
    """The bounds of a blob that is only open, read from their own file a few at a time."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._file = OpenFile(path)
        self._dtype: Any = bounds.dtype
        self._count = len(bounds)
        self._skip = len(self._file) - bounds.nbytes  # numpy's header

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> Bounds:
        start, stop, _ = part.indices(self._count)
        size = self._dtype.itemsize
        bounds: Bounds = np.frombuffer(self._file[self._skip + start * size : self._skip + stop * size], self._dtype)
        return bounds


class Blobs:
    """Byte strings back to back in one blob: entry i is `blob[offsets[i]:offsets[i + 1]]`."""

    def __init__(self, blob: bytes | mmap.mmap | OpenFile, offsets: Bounds | OpenBounds) -> None:
        self._blob = blob
        self._offsets = offsets

    @classmethod
    def build(cls, entries: Iterable[bytes]) -> Blobs:
        blob = bytearray()
        ends = [0]
        for entry in entries:
            blob += entry
            ends.append(len(blob))
        return cls(bytes(blob), narrowed(np.array(ends, dtype=np.int64)))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        start, end = self._offsets[index : index + 2].tolist()
        return self._blob[start:end]

    def __iter__(self) -> Iterator[bytes]:
        return (self._blob[start:end] for start, end in pairwise(self._offsets[:].tolist()))

    def first_out_of_order(self) -> int:
        """The first entry that does not come after the one before it; −1 where all are distinct and ascend."""
        return int(kernels.first_out_of_order(self._text(), frozen(self._offsets[:]), 0))

    def are_utf8(self) -> bool:
        """Whether every entry is: all of them end to end, and none begins within a character."""
        text = self._text()
        offsets = self._offsets[:]
        begins = offsets[offsets < len(text)]
        return is_utf8(text) and not bool(np.any(text[begins] & 0xC0 == 0x80))

    def _text(self) -> npt.NDArray[np.uint8]:
        if isinstance(self._blob, OpenFile):
            raise TypeError("a blob that is only open is read an entry at a time")
        return frozen(np.frombuffer(self._blob, np.uint8))

    def release(self) -> None:
        """Let go of the memory that a check has touched."""
        for part in (self._blob, self._offsets):
            if not isinstance(part, (OpenFile, OpenBounds)):
                release(part)

    def save(self, stem: Path) -> None:
        stem.with_name(f"{stem.name}.bin").write_bytes(self._blob[:])
        save_array(stem.with_name(f"{stem.name}.offsets.npy"), self._offsets[:])

    @classmethod
    def load(cls, stem: Path, length: int | None, *, mapped: bool = True) -> Blobs:
        """Map the offsets and the blob, or only open both; `length` is the number of entries, None where nothing states
        it."""
        path = stem.with_name(f"{stem.name}.bin")
        offsets_path = stem.with_name(f"{stem.name}.offsets.npy")
        offsets = load_bounds(offsets_path, None if length is None else length + 1)
        blob = map_file(path) if mapped or _is_small(path) else _open_file(path)
        if offsets[-1] != len(blob):
            raise CorruptPart(f"{offsets_path.name}: offsets do not divide the {len(blob)} bytes of {path.name}")
        release(offsets)
        return cls(blob, OpenBounds(offsets_path, offsets) if isinstance(blob, OpenFile) else narrowed(offsets))


def _is_small(path: Path) -> bool:
    return path.exists() and path.stat().st_size <= SMALL_BYTES


def _open_file(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except OSError as error:
        raise CorruptPart(f"{path.name}: cannot be read ({error})") from error


class StringTable:
    """Distinct strings in ascending code-point order (which is the byte order of UTF-8), found by binary search."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    @classmethod
    def build(cls, ascending: Iterable[str]) -> StringTable:
        return cls(Blobs.build(item.encode() for item in ascending))

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, index: int) -> str:
        return self._blobs[index].decode()

    def find(self, text: str) -> int | None:
        """Position of the string, or None."""
        low = self.place(text)
        known = low < len(self._blobs) and self._blobs[low] == text.encode("utf-8", "surrogatepass")
        return low if known else None

    def place(self, text: str) -> int:
        """How many of the strings come before this one."""
        sought = text.encode("utf-8", "surrogatepass")
        low, high = 0, len(self._blobs)
        while low < high:
            middle = (low + high) // 2
            if self._blobs[middle] < sought:
                low = middle + 1
            else:
                high = middle
        return low

    def save(self, stem: Path) -> None:
        self._blobs.save(stem)

    @classmethod
    def load(cls, stem: Path, length: int | None = None) -> StringTable:
        """Map a table; CorruptPart for strings that are not distinct, ascending and UTF-8."""
        blobs = Blobs.load(stem, length)
        if not blobs.are_utf8():
            raise CorruptPart(f"{stem.name}.bin: not UTF-8")
        if (late := blobs.first_out_of_order()) >= 0:
            before, entry = blobs[late - 1], blobs[late]
            raise CorruptPart(f"{stem.name}.bin: {entry[:60]!r} does not come after {before[:60]!r}")
        blobs.release()
        return cls(blobs)


class KeywordColumn:
    """Values of a keyword field: a dictionary in ascending order, and per row the codes of its distinct values.

    `codes[offsets[r]:offsets[r + 1]]` are row r's values as listed; `first` is its first one or -1. Because the
    dictionary is sorted, comparing codes compares values.
    """

    def __init__(self, values: StringTable, offsets: Bounds, codes: Codes, first: Codes) -> None:
        self.values = values
        self.offsets = offsets
        self.codes = codes
        self.first = first
        self.single = len(codes) == int(np.count_nonzero(first != MISSING))

    @classmethod
    def build(cls, rows: Sequence[Sequence[str]]) -> KeywordColumn:
        listed = [list(dict.fromkeys(values)) for values in rows]
        dictionary = sorted({value for values in listed for value in values})
        code_of = {value: code for code, value in enumerate(dictionary)}
        codes = np.fromiter((code_of[value] for values in listed for value in values), dtype=np.int32)
        offsets = np.zeros(len(listed) + 1, dtype=np.int64)
        np.cumsum([len(values) for values in listed], out=offsets[1:])
        first = np.fromiter((code_of[values[0]] if values else MISSING for values in listed), dtype=np.int32)
        return cls(StringTable.build(dictionary), narrowed(offsets), codes, first)

    def is_in(self, values: Iterable[str]) -> Mask:
        """Rows with any of the values: bool[N]."""
        wanted = np.zeros(len(self.values) + 1, dtype=np.bool_)  # the last slot answers for code -1
        found = [code for code in map(self.values.find, values) if code is not None]
        wanted[found] = True
        if self.single:
            return wanted[self.first]
        mask = np.zeros(len(self.first), dtype=np.bool_)
        hits = np.flatnonzero(wanted[self.codes])
        mask[np.searchsorted(self.offsets, hits, side="right") - 1] = True
        return mask

    def exists(self) -> Mask:
        return np.asarray(self.first != MISSING)

    def counts(self, rows: Rows, limit: int) -> Counts:
        """The values most frequent among the (distinct) rows: count descending, then value ascending."""
        if len(rows) == len(self.first):
            held = self.codes
        else:
            held = self.first[rows] if self.single else self.codes[self._spans(rows)]
        held = held[held != MISSING]
        if len(held) * 8 < len(self.values):  # few rows of a large dictionary: do not touch every slot
            present, counts = np.unique(held, return_counts=True)
        else:
            slots = np.bincount(held, minlength=len(self.values))
            present = np.flatnonzero(slots)
            counts = slots[present]
        best = np.argsort(-counts, kind="stable")[:limit]
        return [(self.values[int(present[i])], int(counts[i])) for i in best]

    def _spans(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Positions in `codes` of all values of the rows."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        spans: npt.NDArray[np.int64] = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
        return spans

    def sort_key(self, rows: Rows, descending: bool) -> npt.NDArray[Any]:
        codes = self.first[rows].astype(np.int64)
        key = -codes if descending else codes
        key[codes == MISSING] = np.iinfo(np.int64).max
        return key

    def save(self, stem: Path) -> None:
        self.values.save(stem.with_name(f"{stem.name}.values"))
        for part in ("offsets", "codes", "first"):
            save_array(stem.with_name(f"{stem.name}.{part}.npy"), getattr(self, part))

    @classmethod
    def load(cls, stem: Path, rows: int) -> KeywordColumn:
        values = StringTable.load(stem.with_name(f"{stem.name}.values"))
        offsets = load_bounds(stem.with_name(f"{stem.name}.offsets.npy"), rows + 1)
        codes_path = stem.with_name(f"{stem.name}.codes.npy")
        codes = load_array(codes_path, np.int32, int(offsets[-1]))
        first_path = stem.with_name(f"{stem.name}.first.npy")
        first = load_array(first_path, np.int32, rows)
        for path, array, least in ((codes_path, codes, 0), (first_path, first, MISSING)):
            if len(array) and not (array.min() >= least and array.max() < len(values)):
                raise CorruptPart(f"{path.name}: a code lies outside the {len(values)} values")
        if not _are_first(offsets, codes, first):
            raise CorruptPart(f"{first_path.name}: not the first values of the rows")
        column = cls(values, offsets, codes, first)
        for part in (offsets, codes, first):
            release(part)
        return column


def _are_first(offsets: Bounds, codes: Codes, first: Codes) -> bool:
    for start in range(0, len(first), CHECKED_AT_ONCE):
        piece = first[start : start + CHECKED_AT_ONCE]
        ends = offsets[start : start + len(piece) + 1]
        filled = ends[1:] > ends[:-1]
        if not np.array_equal(piece[filled], codes[ends[:-1][filled]]) or np.any(piece[~filled] != MISSING):
            return False
        give_way()
    return True


class NumberColumn:
    """Values of a number field: float64[N], NaN where a product has none."""

    def __init__(self, values: Doubles) -> None:
        self.values = values

    @classmethod
    def build(cls, rows: Iterable[float | None]) -> NumberColumn:
        return cls(np.array([np.nan if value is None else value for value in rows], dtype=np.float64))

    def is_in(self, values: Iterable[float]) -> Mask:
        return np.isin(self.values, np.array(list(values), dtype=np.float64))

    def exists(self) -> Mask:
        return ~np.isnan(self.values)

    def sort_key(self, rows: Rows, descending: bool) -> npt.NDArray[Any]:
        key = self.values[rows]
        return -key if descending else key  # NaN sorts last either way

    def save(self, stem: Path) -> None:
        save_array(stem.with_name(f"{stem.name}.number.npy"), self.values)

    @classmethod
    def load(cls, stem: Path, rows: int) -> NumberColumn:
        return cls(load_array(stem.with_name(f"{stem.name}.number.npy"), np.float64, rows))


class BooleanColumn:
    """Values of a boolean field: int8[N]; 1 true, 0 false, -1 missing."""

    def __init__(self, values: Flags) -> None:
        self.values = values

    @classmethod
    def build(cls, rows: Iterable[bool | None]) -> BooleanColumn:
        return cls(np.array([MISSING if value is None else int(value) for value in rows], dtype=np.int8))

    def is_in(self, values: Iterable[bool]) -> Mask:
        return np.isin(self.values, np.array([int(value) for value in values], dtype=np.int8))

    def exists(self) -> Mask:
        return np.asarray(self.values != MISSING)

    def counts(self, rows: Rows, limit: int) -> Counts:
        held = self.values[rows]
        pairs = [(value, int(np.count_nonzero(held == int(value)))) for value in (False, True)]
        ordered = sorted((pair for pair in pairs if pair[1]), key=lambda pair: (-pair[1], pair[0]))
        return list(ordered[:limit])

    def sort_key(self, rows: Rows, descending: bool) -> npt.NDArray[Any]:
        held = self.values[rows]
        key = (-held if descending else held).astype(np.int64)
        key[held == MISSING] = np.iinfo(np.int64).max
        return key

    def save(self, stem: Path) -> None:
        save_array(stem.with_name(f"{stem.name}.boolean.npy"), self.values)

    @classmethod
    def load(cls, stem: Path, rows: int) -> BooleanColumn:
        path = stem.with_name(f"{stem.name}.boolean.npy")
        values = load_array(path, np.int8, rows)
        if len(values) and not (values.min() >= MISSING and values.max() <= 1):
            raise CorruptPart(f"{path.name}: a value is neither true, false nor missing")
        return cls(values)


Column = KeywordColumn | NumberColumn | BooleanColumn
COLUMN_TYPES: dict[str, type[KeywordColumn] | type[NumberColumn] | type[BooleanColumn]] = {
    "keyword": KeywordColumn,
    "number": NumberColumn,
    "boolean": BooleanColumn,
}
