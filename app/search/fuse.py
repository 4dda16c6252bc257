"""Stage 5: choose the candidates. Fusion only chooses; it gives no scores."""

from __future__ import annotations

from functools import partial

import numpy as np

from app.index.kernels import compiled
from app.index.lexical import LexicalHits
from app.search.retrieve import DenseHits
from app.types import Rows, record


@record()
class Candidates:
    """The result set: rows in ascending order. `exact` is false when a depth cut it off."""

    rows: Rows
    exact: bool


def choose(words: LexicalHits, meaning: DenseHits) -> Candidates:
    """filter ∩ (lexical top-D ∪ dense top-D above the floor); both lists are under the filter already."""
    rows = np.concatenate((words.rows, meaning.rows))
    rows.sort()
    return Candidates(rows[: _distinct(rows)], exact=words.matched <= len(words.rows) and not meaning.cut)


@partial(compiled, nogil=False)
def _distinct(rows: Rows) -> int:
    """How many differ of rows that ascend; they are moved to the front. np.union1d takes ten times as long."""
    count = 0
    for row in rows:
        if not count or row != rows[count - 1]:
            rows[count] = row
            count += 1
    return count
