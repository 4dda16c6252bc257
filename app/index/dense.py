"""Nearest product vectors: build, save, load, search. The only place that knows FAISS.

A product has one stored vector: the mean of its title's and its whole text's embedding. Its dot product with a query is
the mean of both cosines, so two legs cost one search and one vector of memory. FAISS only *chooses* rows here; every
score comes from one row-wise kernel over the very codes that FAISS holds (no second copy), so that it depends on the
query and the product alone, not on who else was asked for.

Which FAISS type: a flat scan over float16 codes up to FLAT_UP_TO products (exact, and at this size as fast as a
graph), beyond that HNSW over the same codes. Selective filters are answered by an exact scan of the allowed rows:
graph search loses recall there (faiss issue 4727), and selectors were silently ignored on some paths (5504, 5584), so
every row is checked against the mask again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.index.dense_kernels import dot_rows, top_rows
from app.types import Floats, Mask, Rows

# One search, one thread: the other cores serve other searches. OpenMP keeps its number per thread, so it has to be told
# before it starts: a call would reach this thread alone, and every worker would wake a team of threads for one query.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import faiss

FILE = "dense.faiss"
FLAT_UP_TO = 20_000
_SPARE = 32  # fetched beyond the depth, so that exact scores and ties by row decide who is within it
_EXACT_SCAN_UP_TO = 20_000
_HNSW_LINKS = 32
_HNSW_EF_CONSTRUCTION = 120
_HNSW_EF_SEARCH = 256
_LOAD_LIMIT_BYTES = 1 << 38


class VectorIndex(Protocol):
    """What retrieval needs of a vector engine; rows are catalogue rows."""

    kind: str

    def __len__(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        """The `depth` best allowed rows for a query vector [dimension], and scores: score descending, row ascending."""
        ...

    def scores(self, query: Floats, rows: Rows) -> Floats:
        """Dot product of the query with each row's stored vector, float32 [n]."""
        ...

    def vector(self, row: int) -> Floats:
        """The stored vector of one row, float32 [dimension]."""
        ...


class FaissIndex:
    """FAISS over float16 codes: flat, or HNSW for larger catalogues."""

    def __init__(self, index: Any) -> None:
        self._index = index
        storage = _storage(index)
        self._codes = faiss.rev_swig_ptr(storage.codes.data(), storage.codes.size()).view(np.uint16)
        self._codes = self._codes.reshape(index.ntotal, index.d)
        self._codes.flags.writeable = False
        self._flat = storage is index
        self.kind = "SQfp16" if self._flat else f"HNSW{_HNSW_LINKS},SQfp16"

    @classmethod
    def build(cls, vectors: Floats) -> FaissIndex:
        """Index the vectors, [n, dimension] in row order. Raises ValueError if one is not finite."""
        if not np.isfinite(vectors).all():
            raise ValueError("product vectors must be finite")
        dimension = vectors.shape[1]
        codec = faiss.ScalarQuantizer.QT_fp16
        if len(vectors) <= FLAT_UP_TO:
            index = faiss.IndexScalarQuantizer(dimension, codec, faiss.METRIC_INNER_PRODUCT)
        else:
            index = faiss.IndexHNSWSQ(dimension, codec, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        try:
            index.train(vectors)
            index.add(vectors)
        finally:
            faiss.omp_set_num_threads(1)
        return cls(index)

    def save(self, folder: Path) -> None:
        """Write the index. Raises OSError where it cannot be written in full."""
        try:
            faiss.write_index(self._index, str(folder / FILE))
        except RuntimeError as error:
            raise OSError(f"{FILE}: FAISS could not write it: {error}") from error

    @classmethod
    def load(cls, folder: Path) -> FaissIndex:
        """Read the index. The caller has verified the file's digest: FAISS itself does not notice corruption.

        Raises CorruptPart for anything but finite float16 codes under the inner product."""
        faiss.set_deserialization_vector_byte_limit(_LOAD_LIMIT_BYTES)
        try:
            index = faiss.read_index(str(folder / FILE))
        except Exception as error:
            raise CorruptPart(f"{FILE}: FAISS refused it: {type(error).__name__}") from error
        if not isinstance(index, (faiss.IndexScalarQuantizer, faiss.IndexHNSWSQ)):
            raise CorruptPart(f"{FILE}: unexpected index type {type(index).__name__}")
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptPart(f"{FILE}: metric is not inner product")
        storage = _storage(index)
        if not isinstance(storage, faiss.IndexScalarQuantizer) or storage.sq.qtype != faiss.ScalarQuantizer.QT_fp16:
            raise CorruptPart(f"{FILE}: its codes are not float16")
        if storage.codes.size() != index.ntotal * index.d * 2:
            raise CorruptPart(f"{FILE}: {storage.codes.size()} bytes of codes for {index.ntotal} × {index.d} numbers")
        loaded = cls(index)
        if not all(np.isfinite(block.view(np.float16)).all() for block in _blocks(loaded._codes)):
            raise CorruptPart(f"{FILE}: a vector is not finite")
        return loaded

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        share = 1.0
        if allowed is not None:
            count = int(np.count_nonzero(allowed))
            share = count / len(self)
            if count <= _EXACT_SCAN_UP_TO:
                rows = np.flatnonzero(allowed).astype(np.int32)
                return top_rows(rows, self.scores(query, rows), depth)
        wanted = min(depth + _SPARE, len(self))
        _, found = self._index.search(query.reshape(1, -1), wanted, params=self._parameters(allowed, wanted, share))
        rows = found[0][found[0] >= 0].astype(np.int32)
        if allowed is not None:
            rows = rows[allowed[rows]]
        return top_rows(rows, self.scores(query, rows), depth)

    def _parameters(self, allowed: Mask | None, wanted: int, share: float) -> Any:
        selector = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self._flat:
            return None if selector is None else faiss.SearchParameters(sel=selector)
        # The walk counts refused rows too: the fewer are allowed, the further it must go to meet as many of them.
        return faiss.SearchParametersHNSW(sel=selector, efSearch=round(max(_HNSW_EF_SEARCH, wanted) / share))

    def scores(self, query: Floats, rows: Rows) -> Floats:
        return dot_rows(self._codes, rows, query)

    def vector(self, row: int) -> Floats:
        stored: Floats = self._codes[row].view(np.float16).astype(np.float32)
        return stored


def _storage(index: Any) -> Any:
    return faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index


def _blocks(codes: npt.NDArray[np.uint16]) -> Iterator[npt.NDArray[np.uint16]]:
    """A few megabytes at a time, so that a check does not hold a second array of the catalogue's size."""
    return (codes[start : start + 4096] for start in range(0, len(codes), 4096))


class ExactIndex:
    """The stand-in beside the seam: brute force in numpy, the oracle that FAISS is tested and probed against."""

    kind = "exact"

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors.astype(np.float16).astype(np.float32)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        rows = np.arange(len(self), dtype=np.int32) if allowed is None else np.flatnonzero(allowed).astype(np.int32)
        scores = self.scores(query, rows)
        best = np.lexsort((rows, -scores))[:depth]
        return rows[best], scores[best]

    def scores(self, query: Floats, rows: Rows) -> Floats:
        products = self._vectors[rows].astype(np.float64) @ query.astype(np.float64)
        exact: Floats = products.astype(np.float32)
        return exact

    def vector(self, row: int) -> Floats:
        stored: Floats = self._vectors[row]
        return stored
