"""Row-wise arithmetic on stored product vectors."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from app.index.kernels import compiled
from app.types import Floats, Rows

# A half float's bits, shifted into a float32's place, are the value times 2^-112 (subnormals included): multiplying
# back once, after the sum, is exact because it is a power of two. The codes hold no infinities or NaN.
_HALF_TO_SINGLE = np.float32(2.0**112)


def dot_rows(codes: npt.NDArray[np.uint16], rows: Rows, query: Floats) -> Floats:
    """Dot products of float16 codes [n, dimension] at `rows` with a float32 query [dimension] → float32 [len(rows)].

    Each row is summed by the same instructions in the same order, whoever stands beside it."""
    scores = np.empty(len(rows), dtype=np.float32)
    _dot_rows(codes, rows, query, scores)
    return scores


def top_rows(rows: Rows, scores: Floats, depth: int) -> tuple[Rows, Floats]:
    """The `depth` best of the rows: score descending, row ascending."""
    if len(rows) > 2 * depth > 0:
        least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:depth]
    return rows[order], scores[order]


@partial(compiled, fastmath=True)
def _dot_rows(codes: npt.NDArray[np.uint16], rows: Rows, query: Floats, scores: Floats) -> None:
    dimension = query.shape[0]
    bits = np.empty(dimension, np.int32)
    values = bits.view(np.float32)
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(dimension):
            half = np.int32(codes[row, j])
            bits[j] = ((half & 0x7FFF) << 13) | ((half & 0x8000) << 16)
        total = np.float32(0.0)
        for j in range(dimension):
            total += values[j] * query[j]
        scores[i] = total * _HALF_TO_SINGLE
