"""Hard negatives: products that the present model takes for answers. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from app.types import Floats

Rows = npt.NDArray[np.int64]


def hard_negatives(
    queries: Floats,
    products: Floats,
    answers: Sequence[Collection[int]],
    *,
    count: int,
    skip: int = 5,
    depth: int = 50,
    seed: int = 0,
) -> Rows:
    """[queries, count] rows of products, drawn for each query from its nearest `depth` after the first `skip`.

    `queries` [n, d] and `products` [m, d] are vectors, `answers` each query's known rows, which are never drawn. The
    first few are skipped because most of what stands there unjudged is an answer too (Qu et al. 2021). A query whose
    nearest products are all answers gets rows from the whole catalogue. Raises ValueError where a query's answers leave
    nothing.
    """
    drawn = np.empty((len(queries), count), dtype=np.int64)
    for at, query in enumerate(queries):
        known = set(answers[at])
        if len(known) >= len(products):
            raise ValueError("every product answers the query: there is no negative")
        random = np.random.default_rng((seed, at))
        scores = products @ query
        nearest = np.argsort(-scores, kind="stable")[: skip + depth + len(known)]
        left = [int(row) for row in nearest if int(row) not in known][skip : skip + depth]
        if not left:
            left = [row for row in range(len(products)) if row not in known]
        drawn[at] = random.choice(left, size=count, replace=len(left) < count)
    return drawn
