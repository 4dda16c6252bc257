"""Arrays in files, read by memory map: the catalogue's columns and the lexical index keep theirs so."""

from __future__ import annotations

import codecs
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.pace import give_way

Bounds = npt.NDArray[np.int32] | npt.NDArray[np.int64]
"""Where entries that lie end to end begin, and where the last one ends: int32 or int64 [entries + 1], from 0."""

CHECKED_AT_ONCE = 1 << 16
"""Entries of an array that a check copies: what it takes and gives back is else lost between what is kept."""


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write one array in numpy's own format."""
    np.save(path, array, allow_pickle=False)


def narrowed(bounds: Bounds) -> Bounds:
    """The same in four bytes each where the last one fits."""
    return bounds.astype(np.int32, copy=False) if bounds[-1] <= np.iinfo(np.int32).max else bounds


def load_bounds(path: Path, length: int | None) -> Bounds:
    """Map bounds of so many entries less one, None where any will do, as narrow as they were written. Raises
    CorruptPart as load_array does, and where they do not ascend from 0."""
    bounds = load_array(path, (np.int32, np.int64), length)
    if len(bounds) == 0 or bounds[0] != 0 or np.any(bounds[1:] < bounds[:-1]):
        raise CorruptPart(f"{path.name}: does not ascend from 0")
    return bounds


def load_array(path: Path, dtype: npt.DTypeLike | tuple[npt.DTypeLike, ...], *shape: int | None) -> npt.NDArray[Any]:
    """Map an array of this type, or one of these, and shape, None where any length will do; read-only, C order.

    Raises CorruptPart naming the file when it is absent, no array, or another one than expected."""
    give_way()  # a version has dozens, and what was done with the last one is over
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # np.load would open archives and pickles too
    except Exception as error:  # the parser of the header lets out what it meets: TokenError, OverflowError, …
        raise CorruptPart(f"{path.name}: cannot be read ({type(error).__name__})") from error
    fits = len(array.shape) == len(shape) and all(
        wanted is None or wanted == found for wanted, found in zip(shape, array.shape, strict=True)
    )
    types = [np.dtype(one) for one in (dtype if isinstance(dtype, tuple) else (dtype,))]
    if array.dtype not in types or not fits or not array.flags.c_contiguous:
        expected = " or ".join(map(str, types)) + " (" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise CorruptPart(f"{path.name}: {array.dtype} {array.shape}, expected {expected}")
    return array.view(np.ndarray)  # plain indexing is several times faster than np.memmap's


def map_file(path: Path) -> bytes | mmap.mmap:
    """Map a file's bytes, read-only. Raises CorruptPart naming the file when it is absent or cannot be read."""
    give_way()
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return b""  # an empty file cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CorruptPart(f"{path.name}: cannot be read ({error})") from error


def is_utf8(text: npt.NDArray[np.uint8]) -> bool:
    """Whether the bytes are UTF-8; a piece is looked at at a time, so that no second copy is held."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), CHECKED_AT_ONCE):
            decoder.decode(text[start : start + CHECKED_AT_ONCE].tobytes())
            give_way()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def made(values: Sequence[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A new array of few values, as `frozen` gives it and in a third of its time."""
    array = np.array(values, dtype)
    array.flags.writeable = False
    return array


def frozen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values, contiguous and read-only as mapped files are: the kernels are compiled for that kind alone."""
    values = np.ascontiguousarray(values)
    if values.flags.writeable:
        values = values.view()
        values.flags.writeable = False
    return values


def release(mapped: npt.NDArray[Any] | mmap.mmap | bytes) -> None:
    """Let go of a mapped file's pages, which a check has just read: they stay in the system's page cache, and count as
    memory of this process only once a search needs them. Nothing happens to what is not mapped."""
    owner: Any = mapped
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    if owner is not None and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
