"""Product vectors that know their neighbourhood: each is drawn towards the mean of the products most like it.

Products that resemble each other tend to answer the same queries (the cluster hypothesis: Jardine and van Rijsbergen
1971; smoothing documents by their nearest neighbours: Kurland and Lee 2004). What a title forgot to say, its neighbours
say. It costs nothing when searching, because the dot product is linear: a product's dense score becomes the mean of its
own cosine and its neighbours'. Measured in docs/decisions/reranker.md.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.index.dense import FaissIndex
from app.runtime.cores import usable_cores
from app.types import Floats, Rows

NEIGHBOURS = 20
SHARE = 0.6
"""Of a stored vector, the part that is its neighbours', where there are so many of them."""
_LEAST_PRODUCTS = 100  # for each neighbour: in a small catalogue the twentieth product is another thing
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How many neighbours a vector was drawn to, and by what share."""

    neighbours: int
    share: float


def smoothed(
    vectors: Floats, share: float = SHARE, progress: Callable[[int], None] = lambda _: None
) -> tuple[Floats, Smoothing]:
    """(1 - share) × own vector + share × mean of the nearest products' vectors, weighed by their cosines: float32 [n,
    dimension], and how it was done. Where a small catalogue allows fewer neighbours, their share is smaller in
    proportion: a few products more or less never make a step. `progress` is told of products done."""
    count = min(NEIGHBOURS, len(vectors) // _LEAST_PRODUCTS)
    share *= count / NEIGHBOURS
    if not share:
        progress(len(vectors))
        return vectors, Smoothing(0, 0.0)
    directions = np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
    index = FaissIndex.build(directions)
    result = np.empty_like(vectors, dtype=np.float32)

    def fill(start: int) -> int:
        for row in range(start, min(start + _CHUNK, len(vectors))):
            rows, weights = _nearest(index, directions, row, count)
            result[row] = (1 - share) * vectors[row] + share * (weights @ vectors[rows])
        return min(_CHUNK, len(vectors) - start)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for done in pool.map(fill, range(0, len(vectors), _CHUNK)):
            progress(done)
    return result, Smoothing(count, share)


def _nearest(index: FaissIndex, directions: Floats, row: int, count: int) -> tuple[Rows, npt.NDArray[np.float32]]:
    """The nearest other products and their weights, which add up to 1."""
    rows, cosines = index.search(directions[row], count + 1, None)
    others = rows != row
    rows, cosines = rows[others][:count], np.maximum(cosines[others][:count], 1e-6)
    return rows, cosines / cosines.sum()
