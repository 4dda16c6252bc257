"""Stages 2 and 4: which products the words find, and which the meaning finds, under the filter."""

from __future__ import annotations

from functools import partial

import numpy as np

from app.index.catalog import Catalog
from app.index.dense import VectorIndex
from app.index.filters import Filter, mask
from app.index.kernels import compiled
from app.index.lexical import LexicalHits, LexicalIndex, LexicalQuery
from app.types import Floats, Mask, Rows, record

_NO_ROWS: Rows = np.empty(0, dtype=np.int32)
_NO_SCORES: Floats = np.empty(0, dtype=np.float32)
NO_LEXICAL_HITS = LexicalHits(rows=_NO_ROWS, scores=_NO_SCORES, matched=0)


@record()
class DenseHits:
    """Rows above the relevance floor among the nearest `depth`: score descending, row ascending. `cut` tells that the
    depth, not the floor, ended the list."""

    rows: Rows
    scores: Floats
    cut: bool


NO_DENSE_HITS = DenseHits(rows=_NO_ROWS, scores=_NO_SCORES, cut=False)


def allowed_by(condition: Filter | None, catalog: Catalog) -> Mask | None:
    """Rows of products that the filter lets through; None when there is no filter."""
    if condition is None:
        return None
    allowed = mask(condition, catalog)
    return allowed if catalog.live is None else allowed & catalog.live


def lexical(index: LexicalIndex, query: LexicalQuery, depth: int, allowed: Mask | None) -> LexicalHits:
    """The lexical top `depth`."""
    return index.search(query, depth, allowed)


def dense(index: VectorIndex, vector: Floats, depth: int, floor: float, allowed: Mask | None) -> DenseHits:
    """The dense top `depth`, above the floor."""
    return _above(*index.search(vector, depth, allowed), index, depth, floor)


def dense_many(index: VectorIndex, vectors: Floats, depth: int, floor: float) -> list[DenseHits]:
    """The same for each of the vectors, [n, dimension], without a filter."""
    return [_above(rows, scores, index, depth, floor) for rows, scores in index.search_many(vectors, depth)]


def _above(rows: Rows, scores: Floats, index: VectorIndex, depth: int, floor: float) -> DenseHits:
    kept = _not_below(scores, floor)
    cut = kept == depth and depth < index.products
    return DenseHits(rows[:kept], scores[:kept], cut)


@partial(compiled, nogil=False)
def _not_below(scores: Floats, floor: float) -> int:
    """How many of the scores, which descend, are at least the floor."""
    low, high = 0, len(scores)
    while low < high:
        middle = (low + high) // 2
        if scores[middle] >= floor:
            low = middle + 1
        else:
            high = middle
    return low
