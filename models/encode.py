"""Vectors of whole catalogues: as fast as the raw encoder, with flat memory and a progress call-back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from app.runtime.cores import usable_cores
from app.search.embed import Encoder
from app.types import Floats

_CHUNK = 32


def product_vectors(
    encoder: Encoder,
    texts: Sequence[tuple[str, str]],
    progress: Callable[[int], None] = lambda _: None,
    keep: Callable[[int, Floats], None] = lambda _, made: None,
) -> Floats:
    """Stored vectors, float32 [n, dimension], of products given as (title, whole text): the mean of both embeddings.
    `keep` is told, in order, where some begin and what they are.

    A vector's dot product with a query is the mean of both cosines. Where both texts are the same, one run serves."""
    vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)

    def fill(start: int) -> int:
        chunk = texts[start : start + _CHUNK]
        titles = encoder.products([title for title, _ in chunk])
        wholes = titles.copy()
        longer = [at for at, (title, whole) in enumerate(chunk) if whole != title]
        if longer:
            wholes[longer] = encoder.products([chunk[at][1] for at in longer])
        vectors[start : start + len(chunk)] = (titles + wholes) / 2
        return len(chunk)

    # ONNX Runtime lets go of the interpreter while it computes: one thread a core keeps every core busy.
    workers = 1 if encoder.batches else usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        done = 0
        for count in pool.map(fill, range(0, len(texts), _CHUNK)):
            keep(done, vectors[done : done + count])
            progress(count)
            done += count
    return vectors
