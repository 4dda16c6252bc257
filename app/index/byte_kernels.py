"""A first look at every product vector, in a byte a number: which rows may be among the nearest.

Half of the memory to read, and where the processor multiplies bytes (VNNI) a quarter of the work. What rounding may
have changed is bounded (Cauchy and Schwarz: at most |query| · |row's error| + |query's error| · |row|), and every row
within that bound of the last one wanted is taken, so that the nearest are certainly among them.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # numba's own
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]  # numba's own
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from app.index.arrays import frozen
from app.index.dense_kernels import at_least
from app.index.kernels import compiled
from app.types import Floats, Rows

_LARGEST = 127
_MIDDLE = 128  # a row's bytes are without sign, as the instruction wants one of the two
_ROW_BYTES = 64  # a row's length is a multiple of it
_AT_ONCE = 4  # queries
_ROUNDED = 1e-5  # of both lengths: more than float32 sums err
_ROWS_AT_ONCE = 4096

Codes = npt.NDArray[np.uint8]


class ByteCodes:
    """Product vectors in a byte a number, each with a step of its own. Immutable."""

    def __init__(self, halves: npt.NDArray[np.uint16]) -> None:
        """From float16 bits, [n, dimension]; a worker's processor `multiplies_bytes`."""
        count, dimension = halves.shape
        width = -(-dimension // _ROW_BYTES) * _ROW_BYTES
        codes, steps = np.full((count, width), _MIDDLE, np.uint8), np.ones(count, np.float32)
        self._error = self._length = 0.0
        for start in range(0, count, _ROWS_AT_ONCE):
            rows = halves[start : start + _ROWS_AT_ONCE].view(np.float16).astype(np.float32)
            step = np.abs(rows).max(axis=1, initial=0.0) / _LARGEST
            step[step == 0.0] = 1.0
            rounded = np.rint(rows / step[:, None])
            codes[start : start + len(rows), :dimension] = rounded + _MIDDLE
            steps[start : start + len(rows)] = step
            stands_for = rounded * step[:, None]
            self._error = max(self._error, float(np.linalg.norm(rows - stands_for, axis=1).max()))
            self._length = max(self._length, float(np.linalg.norm(stands_for, axis=1).max()))
        self._codes, self._steps = frozen(codes), frozen(steps)

    @classmethod
    def of(cls, halves: npt.NDArray[np.uint16]) -> Self | None:
        """None where this processor would gain nothing by them."""
        return cls(halves) if multiplies_bytes() and halves.size else None

    def nearest(self, queries: Floats, wanted: int) -> list[Rows]:
        """Of each of the queries, float32 [n, dimension], rows among which are the `wanted` with the largest dot
        products; ascending."""
        if len(queries) == 1:
            return [_nearest_to_one(self._codes, self._steps, queries, wanted, self._error, self._length)]
        scores, slack = _scan(self._codes, self._steps, queries, self._error, self._length)
        return [at_least(scores[at], wanted, slack[at]) for at in range(len(queries))]


def multiplies_bytes() -> bool:
    """Whether this processor sums products of bytes, 64 of them in one instruction, and numba compiles for it."""
    told = any(getattr(config, name, None) for name in ("CPU_NAME", "CPU_FEATURES"))
    return bool(not told and getattr(config, "ENABLE_AVX", 0) and get_host_cpu_features().get("avx512vnni"))


@compiled
def _rounded(query: Floats, rounded: npt.NDArray[np.int8], error: float, length: float) -> tuple[int, float]:
    """Write the query in bytes, which are nought. What its bytes come to where a row's stand in the middle, and by how
    much two scores in its steps may come to change places, as rows err by so much and are so long."""
    largest = np.float32(0.0)
    for value in query:
        largest = max(largest, abs(value))
    step = largest / np.float32(_LARGEST) if largest > 0.0 else np.float32(1.0)
    own_error = own_length = 0.0
    total = 0
    for at in range(len(query)):
        value = np.rint(query[at] / step)
        rounded[at] = np.int8(value)
        total += int(value)
        own_error += (query[at] - value * step) ** 2
        own_length += query[at] ** 2
    may_err = (math.sqrt(own_length) * (error + _ROUNDED * length) + math.sqrt(own_error) * length) / step
    return _MIDDLE * total, float(2.0 * may_err)


def _dots(count: int) -> Any:
    """An intrinsic: sums of products of a row's bytes with those of `count` queries, which lie `stride` apart."""
    lanes, bits = 16, ir.IntType(32)
    vector = ir.VectorType(bits, lanes)
    reduce = f"llvm.vector.reduce.add.v{lanes}i32"

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, queries, stride, blocks = arguments
        kind = ir.FunctionType(vector, [vector, vector, vector])
        multiply = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
        total = cgutils.get_or_insert_function(builder.module, ir.FunctionType(bits, [vector]), reduce)  # type: ignore[no-untyped-call]  # numba's
        zero = ir.Constant(vector, None)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]  # type: ignore[no-untyped-call]  # numba's

        def read(address: Any) -> Any:
            return builder.load(builder.inttoptr(address, vector.as_pointer()), align=1)

        with cgutils.for_range(builder, blocks) as loop:
            at = builder.mul(loop.index, ir.Constant(row.type, _ROW_BYTES))
            held = read(builder.add(row, at))
            for one in range(count):
                start = builder.add(queries, builder.mul(stride, ir.Constant(row.type, one)))
                other = read(builder.add(start, at))
                builder.store(builder.call(multiply, [builder.load(sums[one]), held, other]), sums[one])
        found = [builder.call(total, [builder.load(one)]) for one in sums]
        return context.make_tuple(builder, signature.return_type, found)

    @intrinsic
    def dots(_: Any, row: Any, queries: Any, stride: Any, blocks: Any) -> Any:
        found = types.UniTuple(types.int32, count)  # type: ignore[no-untyped-call]  # numba's
        return found(types.intp, types.intp, types.intp, types.intp), generate

    return dots


_dots_of_one, _dots_of_four = _dots(1), _dots(_AT_ONCE)


@compiled
def _nearest_to_one(codes: Codes, steps: Floats, queries: Floats, wanted: int, error: float, length: float) -> Rows:
    width = codes.shape[1]
    asked = np.zeros(width, np.int8)
    middle, slack = _rounded(queries[0], asked, error, length)
    scores = np.empty(len(codes), np.float32)
    first = codes.ctypes.data
    for row in range(len(codes)):
        (dot,) = _dots_of_one(first + row * width, asked.ctypes.data, 0, width // _ROW_BYTES)
        scores[row] = np.float32(dot - middle) * steps[row]
    return at_least(scores, wanted, slack)


@compiled
def _scan(codes: Codes, steps: Floats, queries: Floats, error: float, length: float) -> tuple[Floats, Floats]:
    """Scores of all rows in the steps of each query, float32 [queries, rows], and by how much two of them may come to
    change places. Each row is read once for all queries."""
    width = codes.shape[1]
    padded = -(-len(queries) // _AT_ONCE) * _AT_ONCE
    asked = np.zeros((padded, width), np.int8)
    middles, slack = np.zeros(padded, np.int32), np.zeros(padded, np.float32)
    for at in range(len(queries)):
        middles[at], slack[at] = _rounded(queries[at], asked[at], error, length)
    scores = np.empty((padded, len(codes)), np.float32)
    first = codes.ctypes.data
    for row in range(len(codes)):
        step = steps[row]
        start = asked.ctypes.data  # here, where it is needed: numba lets go of an array after its last mention
        for at in range(0, padded, _AT_ONCE):
            a, b, c, d = _dots_of_four(first + row * width, start + at * width, width, width // _ROW_BYTES)
            scores[at, row] = np.float32(a - middles[at]) * step
            scores[at + 1, row] = np.float32(b - middles[at + 1]) * step
            scores[at + 2, row] = np.float32(c - middles[at + 2]) * step
            scores[at + 3, row] = np.float32(d - middles[at + 3]) * step
    return scores, slack
