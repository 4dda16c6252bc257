"""Stage 5: choose the candidates. Fusion only chooses; it gives no scores."""

from __future__ import annotations

import numpy as np

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
    first = np.ones(len(rows), dtype=np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    rows = rows[first]  # np.union1d takes three times as long on a few hundred rows
    return Candidates(rows, exact=words.matched <= len(words.rows) and not meaning.cut)
