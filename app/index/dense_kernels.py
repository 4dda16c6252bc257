"""Row-wise arithmetic on stored product vectors."""

from __future__ import annotations

import platform
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # numba's own
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]  # numba's own
from numba import types
from numba.extending import intrinsic

from app.index.kernels import compiled
from app.types import Floats, Rows

_AT_ONCE = 4  # queries: as many sums as stay in registers
_BINS = 1024
_AHEAD = 4  # rows
_LINE_BYTES = 64


def dot_rows(codes: npt.NDArray[np.uint16], rows: Rows, query: Floats) -> Floats:
    """Dot products of float16 codes [n, dimension] at `rows` with a float32 query [dimension] → float32 [len(rows)].

    Each row is summed by the same instructions in the same order, whoever stands beside it."""
    scores = np.empty(len(rows), dtype=np.float32)
    _dot_rows(codes, rows, query, scores)
    return scores


def all_finite(codes: npt.NDArray[np.uint16]) -> bool:
    """Whether none of the float16 codes is an infinity or NaN; several times as fast as numpy's own answer."""
    return bool(_finite(codes.reshape(-1)))


def top_rows(rows: Rows, scores: Floats, depth: int) -> tuple[Rows, Floats]:
    """The `depth` best of the rows, which ascend: score descending, row ascending."""
    keys = _keys(scores)
    keys.sort()  # numbers that differ: by numpy's vector instructions, in a quarter of the time of a stable argsort
    return _picked(keys[:depth], rows, scores)


def nearest_rows(codes: npt.NDArray[np.uint16], queries: Floats, wanted: int) -> list[Rows]:
    """Of each of the queries, float32 [n, dimension], the `wanted` rows with the largest dot products, and some that
    come close to them; ascending. Of several queries a row is read and turned into numbers once for all."""
    if len(queries) < _AT_ONCE:
        return [_nearest_to_one(codes, query, wanted) for query in queries]
    padded = np.zeros((-(-len(queries) // _AT_ONCE) * _AT_ONCE, queries.shape[1]), np.float32)
    padded[: len(queries)] = queries
    scores = np.empty((len(padded), len(codes)), np.float32)
    _scan(codes, padded, scores)
    return [at_least(scores[at], wanted, 0.0) for at in range(len(queries))]


def _nearest_to_one(codes: npt.NDArray[np.uint16], query: Floats, wanted: int) -> Rows:
    scores = np.empty(len(codes), np.float32)
    _scan_for_one(codes, query, scores)
    return at_least(scores, wanted, 0.0)


def _converts_halves() -> bool:
    """Whether this processor turns float16 into float32 by itself."""
    return platform.machine() not in ("x86_64", "AMD64") or bool(get_host_cpu_features().get("f16c"))


@intrinsic
def _single(_: Any, code: Any) -> Any:
    """The float32 that float16 bits stand for. Where no instruction does it, the bits are shifted into a float32's
    place, which gives the value times 2^-112: right for subnormals too, but slow where those come by."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (half,), single, bits = arguments, ir.FloatType(), ir.IntType(32)
        if _converts_halves():
            return builder.fpext(builder.bitcast(half, ir.HalfType()), single)
        wide = builder.zext(half, bits)
        size = builder.shl(builder.and_(wide, bits(0x7FFF)), bits(13))
        sign = builder.shl(builder.and_(wide, bits(0x8000)), bits(16))
        return builder.fmul(builder.bitcast(builder.or_(size, sign), single), single(2.0**112))

    return types.float32(types.uint16), generate


@intrinsic
def _fetch(_: Any, address: Any) -> Any:
    """Ask the processor for the cache line at an address; never faults."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        wanted = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], wanted)
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(prefetch, [builder.inttoptr(arguments[0], pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@partial(compiled, fastmath=True, nogil=False)
def _dot_rows(codes: npt.NDArray[np.uint16], rows: Rows, query: Floats, scores: Floats) -> None:
    """Rows of a large catalogue lie scattered in memory: fetching some ahead halves the time."""
    dimension = query.shape[0]
    row_bytes = 2 * dimension
    first = codes.ctypes.data
    for i in range(rows.shape[0]):
        if i + _AHEAD < rows.shape[0]:
            start = first + np.int64(rows[i + _AHEAD]) * row_bytes
            for line in range(0, row_bytes, _LINE_BYTES):
                _fetch(start + line)  # type: ignore[call-arg]  # numba passes the typing context itself
        row = rows[i]
        total = np.float32(0.0)
        for j in range(dimension):
            total += _single(codes[row, j]) * query[j]  # type: ignore[call-arg]  # as for _fetch
        scores[i] = total


@partial(compiled, nogil=False)
def _keys(scores: Floats) -> npt.NDArray[np.uint64]:
    """Numbers that ascend as the scores descend, then as their places ascend, which are the lower half."""
    keys = np.empty(len(scores), np.uint64)
    bits = (scores + np.float32(0.0)).view(np.uint32)  # without a second zero
    for at in range(len(scores)):
        falling = bits[at] if bits[at] >> 31 else bits[at] ^ np.uint32(0x7FFFFFFF)
        keys[at] = np.uint64(falling) << np.uint64(32) | np.uint64(at)
    return keys


@partial(compiled, nogil=False)
def _picked(keys: npt.NDArray[np.uint64], rows: Rows, scores: Floats) -> tuple[Rows, Floats]:
    found, kept = np.empty(len(keys), np.int32), np.empty(len(keys), np.float32)
    for at in range(len(keys)):
        place = np.int64(keys[at] & np.uint64(0xFFFFFFFF))
        found[at], kept[at] = rows[place], scores[place]
    return found, kept


@partial(compiled, nogil=False)
def sum_rows(codes: npt.NDArray[np.uint16], rows: Rows, total: Floats) -> None:
    """Write the sum of the float16 rows at `rows`, each as often as it stands there, one after the other, at unit
    length: float32 [dimension]; nought where it has none. Raises IndexError."""
    total[:] = np.float32(0.0)
    for row in rows:
        if not 0 <= row < len(codes):
            raise IndexError("no such row")
        for j in range(len(total)):
            total[j] += _single(codes[row, j])  # type: ignore[call-arg]  # as for _fetch
    squares = 0.0
    for value in total:
        squares += value * value
    if squares > 0.0:
        total /= np.float32(np.sqrt(squares))


@partial(compiled, nogil=False)
def blend(one: Floats, other: Floats, share: float) -> Floats:
    """(1 - share) × one + share × other, float32 [n, dimension]."""
    result = np.empty_like(one)
    for i in range(one.shape[0]):
        for j in range(one.shape[1]):
            result[i, j] = np.float32(1.0 - share) * one[i, j] + np.float32(share) * other[i, j]
    return result


@partial(compiled, fastmath=True)
def _scan_for_one(codes: npt.NDArray[np.uint16], query: Floats, scores: Floats) -> None:
    for row in range(codes.shape[0]):
        total = np.float32(0.0)
        for j in range(query.shape[0]):
            total += _single(codes[row, j]) * query[j]  # type: ignore[call-arg]  # as for _fetch
        scores[row] = total


@partial(compiled, fastmath=True)
def _scan(codes: npt.NDArray[np.uint16], queries: Floats, scores: Floats) -> None:
    dimension = codes.shape[1]
    values = np.empty(dimension, np.float32)
    for row in range(codes.shape[0]):
        for j in range(dimension):
            values[j] = _single(codes[row, j])  # type: ignore[call-arg]  # as for _fetch
        for at in range(0, queries.shape[0], _AT_ONCE):
            a, b, c, d = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for j in range(dimension):
                value = values[j]
                a += value * queries[at, j]
                b += value * queries[at + 1, j]
                c += value * queries[at + 2, j]
                d += value * queries[at + 3, j]
            scores[at, row] = a
            scores[at + 1, row] = b
            scores[at + 2, row] = c
            scores[at + 3, row] = d


@compiled
def at_least(scores: Floats, wanted: int, slack: float) -> Rows:
    """Rows with the `wanted` largest scores, those that share the last one's bin of a histogram, and those by `slack`
    below it; ascending."""
    if wanted >= len(scores):  # none at all, perhaps
        return np.arange(len(scores)).astype(np.int32)
    least, most = scores[0], scores[0]
    for score in scores:
        least, most = min(least, score), max(most, score)
    if not most > least:
        return np.arange(len(scores)).astype(np.int32)
    scale = np.float32(_BINS - 1) / (most - least)
    counts = np.zeros(_BINS, np.int64)
    for score in scores:
        counts[int((score - least) * scale)] += 1
    last, held = _BINS - 1, counts[_BINS - 1]
    while held < wanted:
        last -= 1
        held += counts[last]
    for _ in range(min(last, int(np.ceil(slack * scale)))):
        last -= 1
        held += counts[last]
    rows = np.empty(held, np.int32)
    count = 0
    for row in range(len(scores)):
        if int((scores[row] - least) * scale) >= last:
            rows[count] = row
            count += 1
    return rows


@compiled
def _finite(codes: npt.NDArray[np.uint16]) -> bool:
    largest = np.uint16(0)
    for at in range(codes.shape[0]):
        largest = max(largest, codes[at] & np.uint16(0x7FFF))
    return bool(largest < np.uint16(0x7C00))
