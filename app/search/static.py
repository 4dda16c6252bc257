"""Stage 3, the short way: a query's vector looked up instead of computed.

A table holds one row a word piece, fitted when the catalogue was indexed (models/static.py); a query is the sum of its
pieces' rows at unit length. There is no network to run: some 20 µs a query instead of a millisecond. The
products keep the vectors that the full encoder gave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.index.arrays import frozen, load_array, made, release, save_array
from app.index.dense_kernels import blend, sum_rows
from app.pace import give_way
from app.search.embed import Encoder
from app.types import Floats

TABLE = "static.npy"
Halves = npt.NDArray[np.float16]
_CHECKED_AT_ONCE = 4096  # rows; a few megabytes


class StaticEncoder:
    """Query encoder of one version: float16 [vocabulary, dimension] over the pieces of `encoder`. Thread-safe."""

    def __init__(self, table: Halves, encoder: Encoder) -> None:
        self._table = table
        self._codes = frozen(table.view(np.uint16))
        self._pieces = encoder.pieces

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> StaticEncoder:
        """Map the table of a version. Raises CorruptPart when it does not fit the encoder or is not finite."""
        table = load_array(folder / TABLE, np.float16, encoder.vocabulary, encoder.dimension)
        for start in range(0, len(table), _CHECKED_AT_ONCE):
            if not np.isfinite(table[start : start + _CHECKED_AT_ONCE]).all():
                raise CorruptPart(f"{TABLE}: a row is not finite")
            give_way()
        release(table)
        return cls(table, encoder)

    def save(self, folder: Path) -> None:
        """Write the table."""
        save_array(folder / TABLE, self._table)

    def queries(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of normalised query texts, float32 [n, dimension], each from its own text alone.

        A text of no pieces is the zero vector, which is near nothing."""
        vectors = np.empty((len(texts), self._table.shape[1]), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            sum_rows(self._codes, made(self._pieces(text), np.int32), vector)
        return vectors


def blended(computed: Floats, looked_up: Floats, share: float) -> Floats:
    """(1 - share) × computed + share × looked up, float32 [n, dimension]: two readings of a query that err in different
    places. The less they agree the shorter is the vector, and the less its dot products count beside the words."""
    return blend(computed, looked_up, share)
