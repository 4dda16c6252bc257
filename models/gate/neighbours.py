"""What the index must hold of a product whose stored vector is drawn towards those of its nearest products.

The build takes neighbours from an index; here they are looked for among all products, for a few of them, so that
neither the build's arithmetic nor its index is asked to vouch for itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.types import Floats

_CHUNK = 65_536
Numbers = npt.NDArray[np.int64]


def drawn(embeddings: npt.NDArray[np.float16], rows: Numbers, count: int, share: float) -> Floats:
    """(1 - share) × own embedding + share × mean of the `count` nearest ones, weighed by their cosines: [rows,
    dimension]. `embeddings` [n, dimension] may be memory-mapped: it is read in chunks."""
    own = embeddings[rows].astype(np.float32)
    if not count or not share:
        return own
    near, cosines = _nearest(embeddings, _directions(own), rows, count)
    weights = np.maximum(cosines, 1e-6)
    weights /= weights.sum(axis=1, keepdims=True)
    mean = np.einsum("ik,ikd->id", weights, embeddings[near].astype(np.float32))
    return np.asarray((1 - share) * own + share * mean, dtype=np.float32)


def _nearest(
    embeddings: npt.NDArray[np.float16], directions: Floats, rows: Numbers, count: int
) -> tuple[Numbers, Floats]:
    """The nearest other products and their cosines, [rows, count] each, in no order."""
    found = np.zeros((len(rows), 0), dtype=np.int64)
    best = np.zeros((len(rows), 0), dtype=np.float32)
    for start in range(0, len(embeddings), _CHUNK):
        block = _directions(embeddings[start : start + _CHUNK].astype(np.float32))
        cosines = directions @ block.T
        here = np.flatnonzero((rows >= start) & (rows < start + len(block)))
        cosines[here, rows[here] - start] = -np.inf
        numbers = np.broadcast_to(np.arange(start, start + len(block)), cosines.shape)
        best, found = np.concatenate([best, cosines], axis=1), np.concatenate([found, numbers], axis=1)
        kept = np.argpartition(-best, min(count, best.shape[1]) - 1, axis=1)[:, :count]
        best, found = np.take_along_axis(best, kept, axis=1), np.take_along_axis(found, kept, axis=1)
    return found, best


def _directions(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
