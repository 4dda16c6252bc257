"""Row-wise arithmetic on stored product vectors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # numba's own
from numba import types
from numba.extending import intrinsic

from app.index.kernels import compiled
from app.types import Floats, Rows

# A half float's bits, shifted into a float32's place, are the value times 2^-112 (subnormals included): multiplying
# back once, after the sum, is exact because it is a power of two. The codes hold no infinities or NaN.
_HALF_TO_SINGLE = np.float32(2.0**112)

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
    """The `depth` best of the rows: score descending, row ascending."""
    if len(rows) > 2 * depth > 0:
        least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:depth]
    return rows[order], scores[order]


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
    bits = np.empty(dimension, np.int32)
    values = bits.view(np.float32)
    for i in range(rows.shape[0]):
        if i + _AHEAD < rows.shape[0]:
            start = first + np.int64(rows[i + _AHEAD]) * row_bytes
            for line in range(0, row_bytes, _LINE_BYTES):
                _fetch(start + line)  # type: ignore[call-arg]  # numba passes the typing context itself
        row = rows[i]
        for j in range(dimension):
            half = np.int32(codes[row, j])
            bits[j] = ((half & 0x7FFF) << 13) | ((half & 0x8000) << 16)
        total = np.float32(0.0)
        for j in range(dimension):
            total += values[j] * query[j]
        scores[i] = total * _HALF_TO_SINGLE


@compiled
def _finite(codes: npt.NDArray[np.uint16]) -> bool:
    largest = np.uint16(0)
    for at in range(codes.shape[0]):
        largest = max(largest, codes[at] & np.uint16(0x7FFF))
    return bool(largest < np.uint16(0x7C00))
