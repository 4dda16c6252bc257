"""Nearest product vectors: build, save, load, search. The place that knows FAISS; `dense_gpu` knows its GPU functions.

A product has one stored vector: the mean of its title's and its whole text's embedding. Its dot product with a query is
the mean of both cosines, so two legs cost one search and one vector of memory. FAISS only *chooses* rows here; every
score comes from one row-wise kernel over float16 codes, of which there is one copy, so that it depends on the query and
the product alone, not on who else was asked for.

Which FAISS type: a flat scan over float16 codes up to FLAT_UP_TO products (exact, and at this size as fast as
anything; without a filter scanned by a kernel of our own, which reads each row once for all queries, in a byte a
number where the processor multiplies bytes). Beyond that
inverted lists (Jégou, Douze and Schmid 2011) whose entries are four bits a pair of dimensions, looked up in registers
many at a time (André, Kermarrec and Le Scouarnec 2015): the rows of the lists nearest to a query are ranked roughly,
the best of them exactly. The codes then lie in a file of their own, mapped into memory, which replicas on one machine
share. Versions with a graph (HNSW), as earlier releases built them, are still served.

The planner: where the filter leaves few rows, all of them are scored, which is exact and then cheaper; else the fewer
it leaves, the more lists are read, because the nearest allowed rows lie further away. Selectors were silently ignored
on some paths (faiss issues 5504, 5584), so every row is checked against the mask again.

How much an approximate index reads (its breadth: nprobe lists, or efSearch nodes of a graph) is a version's own number,
which `aisle pareto` finds and the manifest holds; a version that names none is read as broadly as the constants say.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.index.arrays import load_array, release, save_array
from app.index.byte_kernels import ByteCodes
from app.index.dense_kernels import all_finite, dot_rows, nearest_rows, top_rows
from app.types import Floats, Mask, Rows

# One search, one thread: the other cores serve other searches. OpenMP keeps its number per thread, so it has to be told
# before it starts: a call would reach this thread alone, and every worker would wake a team of threads for one query.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import faiss

FILE = "dense.faiss"
CODES = "dense.codes.npy"
"""Stored vectors of a version whose index holds none, float16 [n, dimension]."""
GPU_KIND = "GPU flat fp16"
_FLAT = "SQfp16"
EXACT_KINDS = (_FLAT, "exact", f"{GPU_KIND}, {_FLAT}")
FLAT_UP_TO = 20_000
_SPARE = 32  # fetched beyond the depth, so that exact scores and ties by row decide who is within it
EXACT_SCAN_UP_TO = 20_000
_LISTS_A_ROOT = 4  # lists for each of the square root of the products: as many as make reading centres and lists equal
_TRAINED_ON = 64  # products a list
_ROUNDS = 10  # of k-means
_READ = 208  # lists
_FILTERED = 512 / 208  # times as many for half of the rows or more: under a filter what is missing is seen sooner
_ROUGHLY = 5  # times as many are ranked roughly as are wanted
_ALONE = 11  # FAISS's way through the lists that is fastest for one query on one thread; others wake a team
_HNSW_EF_SEARCH = 256
_LOAD_LIMIT_BYTES = 1 << 38
NPROBE, EF_SEARCH = "nprobe", "ef_search"
_BROADEST = 1 << 20

Halves = npt.NDArray[np.uint16]
"""Bits of float16 numbers, [n, dimension]."""


class VectorIndex(Protocol):
    """What retrieval needs of a vector engine; rows are catalogue rows."""

    @property
    def kind(self) -> str:
        """What is searched, and where; an index on a GPU that fails becomes the CPU's."""
        ...

    def __len__(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    @property
    def products(self) -> int:
        """How many of the rows can be found."""
        ...

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        """The `depth` best allowed rows for a query vector [dimension], and scores: score descending, row ascending."""
        ...

    def search_many(self, queries: Floats, depth: int) -> list[tuple[Rows, Floats]]:
        """What `search` finds for each of the queries, [n, dimension], without a filter."""
        ...

    def scores(self, query: Floats, rows: Rows) -> Floats:
        """Dot product of the query with each row's stored vector, float32 [n]."""
        ...

    def vector(self, row: int) -> Floats:
        """The stored vector of one row, float32 [dimension]."""
        ...


class FaissIndex:
    """FAISS over float16 codes: flat, or inverted lists for larger catalogues."""

    def __init__(self, index: Any, codes: Halves | None = None) -> None:
        """`codes` where the index holds none itself."""
        self._index = index
        if codes is None:
            codes = _own_codes(index)
        codes.flags.writeable = False
        self._codes = codes
        self._listed = isinstance(index, faiss.IndexIVFPQFastScan)
        if self._listed:
            index.implem = _ALONE
        self.kind = _kind(index)
        self._bytes = ByteCodes.of(codes) if self.kind == _FLAT else None
        self.breadth = {NPROBE: _READ, EF_SEARCH: _HNSW_EF_SEARCH, None: 0}[self.parameter]

    @classmethod
    def build(cls, vectors: Floats) -> FaissIndex:
        """Index the vectors, [n, dimension] in row order. Raises ValueError if one is not finite."""
        if not all(np.isfinite(block).all() for block in _blocks(vectors)):
            raise ValueError("product vectors must be finite")
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        try:
            if len(vectors) > FLAT_UP_TO:
                return cls(_lists(vectors), vectors.astype(np.float16).view(np.uint16))
            codec = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexScalarQuantizer(vectors.shape[1], codec, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.add(vectors)
            return cls(index)
        finally:
            faiss.omp_set_num_threads(1)

    def save(self, folder: Path) -> None:
        """Write the index. Raises OSError where it cannot be written in full."""
        try:
            faiss.write_index(self._index, str(folder / FILE))
        except RuntimeError as error:
            raise OSError(f"{FILE}: FAISS could not write it: {error}") from error
        if self._listed:
            save_array(folder / CODES, self._codes.view(np.float16))

    @property
    def parameter(self) -> str | None:
        """The field's name of what `breadth` counts: NPROBE (lists read) or EF_SEARCH (nodes of a graph held); None
        where every row is read."""
        if self._listed:
            return NPROBE
        return None if self.kind in EXACT_KINDS else EF_SEARCH

    def read_to(self, breadth: int) -> FaissIndex:
        """The same index, vectors and all, of which a search without a filter reads `breadth`; under one, more in the
        same proportion as ever. Raises ValueError where there is no such parameter, or for a breadth that is none."""
        if self.parameter is None:
            raise ValueError(f"{self.kind} reads every row")
        if not 1 <= breadth <= _BROADEST:
            raise ValueError(f"{self.parameter} {breadth} is not within 1 and {_BROADEST:,}")
        other = copy(self)
        other.breadth = breadth
        return other

    def read_as(self, parameters: Mapping[str, Any]) -> FaissIndex:
        """Read to the breadth that a manifest's `dense` names, if it names one for this type of index. Raises
        ValueError."""
        breadth = None if self.parameter is None else parameters.get(self.parameter)
        if breadth is None:
            return self
        if type(breadth) is not int:
            raise ValueError(f"{self.parameter} {breadth!r} is no whole number")
        return self.read_to(breadth)

    def exact(self) -> FewVectors:
        """The same vectors, all of which every search scores: what recall is measured against."""
        return FewVectors(self._codes)

    @property
    def parameters(self) -> dict[str, int]:
        """What `read_as` takes; nothing where every row is read."""
        return {} if self.parameter is None else {self.parameter: self.breadth}

    def reads(self, depth: int) -> int:
        """What an unfiltered search of that depth reads, in units of `parameter`: the breadth, but enough for as many
        rows as are wanted, and no more than there is."""
        wanted = self._wanted(depth)
        if self._listed:
            return self._read(wanted, None)
        return 0 if self.parameter is None else min(max(self.breadth, wanted), len(self))

    @classmethod
    def load(cls, folder: Path, parameters: Mapping[str, Any] | None = None) -> FaissIndex:
        """Read the index, map the codes. The caller has verified the files' digests: FAISS itself does not notice
        corruption. `parameters`: as for `read_as`.

        Raises CorruptPart for anything but finite float16 codes under the inner product, and for parameters that are
        none."""
        faiss.set_deserialization_vector_byte_limit(_LOAD_LIMIT_BYTES)
        try:
            index = faiss.read_index(str(folder / FILE))
        except Exception as error:
            raise CorruptPart(f"{FILE}: FAISS refused it: {type(error).__name__}") from error
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptPart(f"{FILE}: metric is not inner product")
        if isinstance(index, faiss.IndexIVFPQFastScan):
            _check_lists(index)
            codes = load_array(folder / CODES, np.float16, index.ntotal, index.d)
            loaded, name = cls(index, codes.view(np.uint16)), CODES
        else:
            _check_codes(index)
            loaded, name = cls(index), FILE
        if not all(all_finite(block) for block in _blocks(loaded._codes)):
            raise CorruptPart(f"{name}: a vector is not finite")
        release(loaded._codes)
        try:
            return loaded.read_as(parameters or {})
        except ValueError as error:
            raise CorruptPart(f"manifest.json: dense: {error}") from error

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def products(self) -> int:
        return len(self)

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        share = 1.0
        if allowed is not None:
            count = int(np.count_nonzero(allowed))
            share = count / len(self)
            if count <= max(EXACT_SCAN_UP_TO, depth):
                rows = np.flatnonzero(allowed).astype(np.int32)
                return top_rows(rows, self.scores(query, rows), depth)
        elif self.kind == _FLAT:
            return self.search_many(query.reshape(1, -1), depth)[0]
        wanted = self._wanted(depth)
        _, found = self._index.search(query.reshape(1, -1), wanted, params=self._parameters(allowed, wanted, share))
        rows = found[0][found[0] >= 0].astype(np.int32)
        rows.sort()
        if allowed is not None:
            rows = rows[allowed[rows]]
        return top_rows(rows, self.scores(query, rows), depth)

    def _wanted(self, depth: int) -> int:
        """How many rows FAISS is asked for."""
        return min((depth + _SPARE) * (_ROUGHLY if self._listed else 1), len(self))

    def search_many(self, queries: Floats, depth: int) -> list[tuple[Rows, Floats]]:
        if self.kind != _FLAT:
            return [self.search(query, depth, None) for query in queries]
        if self._bytes is None:
            found = nearest_rows(self._codes, queries, self._wanted(depth))
        else:
            found = self._bytes.nearest(queries, min(depth, len(self)))
        return [top_rows(rows, self.scores(query, rows), depth) for query, rows in zip(queries, found, strict=True)]

    def _parameters(self, allowed: Mask | None, wanted: int, share: float) -> Any:
        selector = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self._listed:
            return faiss.SearchParametersIVF(
                sel=selector, nprobe=self._read(wanted, None if allowed is None else share)
            )
        if self.kind in EXACT_KINDS:
            return None if selector is None else faiss.SearchParameters(sel=selector)
        # The walk counts refused rows too: the fewer are allowed, the further it must go to meet as many of them.
        return faiss.SearchParametersHNSW(sel=selector, efSearch=round(max(self.breadth, wanted) / share))

    def _read(self, wanted: int, share: float | None) -> int:
        """How many lists. Half the rows gone, the nearest hundred reach further, but not twice as many lists: their
        number grows with the root of what is gone. At least as many as hold three times what is wanted."""
        lists = int(self._index.nlist)
        held = len(self) * (share or 1.0) / lists  # allowed rows a list
        read = self.breadth * (1.0 if share is None else _FILTERED * max(1.0, math.sqrt(0.5 / share)))
        return min(lists, max(round(read), round(3 * wanted / held)))

    def scores(self, query: Floats, rows: Rows) -> Floats:
        return dot_rows(self._codes, rows, query)

    def vector(self, row: int) -> Floats:
        stored: Floats = self._codes[row].view(np.float16).astype(np.float32)
        return stored

    def blocks(self, rows: int) -> Iterator[Floats]:
        """All stored vectors in order, so many rows at a time, float32 [<= rows, dimension]."""
        for start in range(0, len(self), rows):
            yield self._codes[start : start + rows].view(np.float16).astype(np.float32)


def _lists(vectors: Floats) -> Any:
    """Inverted lists over four-bit codes. Training sees a part of the products; FAISS draws it by a fixed seed."""
    count, dimension = vectors.shape
    lists = 1 << round(math.log2(_LISTS_A_ROOT * math.sqrt(count)))
    centres = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQFastScan(centres, dimension, lists, _parts(dimension), 4, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = _ROUNDS, _TRAINED_ON, 1
    index.train(vectors)
    index.add(vectors)
    return index


def _parts(dimension: int) -> int:
    """How many four-bit codes a vector has: one a pair of dimensions. With fewer, more rows had to be ranked exactly
    for the same recall, and each of those costs a walk to memory."""
    return dimension // (2 if dimension % 2 == 0 else 1)


def _kind(index: Any) -> str:
    if isinstance(index, faiss.IndexIVFPQFastScan):
        return f"IVF{index.nlist},PQ{index.pq.M}x4fs"
    return f"HNSW{index.hnsw.nb_neighbors(1)},SQfp16" if isinstance(index, faiss.IndexHNSW) else "SQfp16"


def _own_codes(index: Any) -> Halves:
    """The codes in FAISS's own memory, which lives as long as the index."""
    codes = _storage(index).codes
    held: Halves = faiss.rev_swig_ptr(codes.data(), codes.size()).view(np.uint16)
    return held.reshape(index.ntotal, index.d)


def _storage(index: Any) -> Any:
    return faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index


def _check_codes(index: Any) -> None:
    """Raises CorruptPart for an index that does not hold float16 codes of all its vectors."""
    if not isinstance(index, (faiss.IndexScalarQuantizer, faiss.IndexHNSWSQ)):
        raise CorruptPart(f"{FILE}: unexpected index type {type(index).__name__}")
    storage = _storage(index)
    if not isinstance(storage, faiss.IndexScalarQuantizer) or storage.sq.qtype != faiss.ScalarQuantizer.QT_fp16:
        raise CorruptPart(f"{FILE}: its codes are not float16")
    if storage.codes.size() != index.ntotal * index.d * 2:
        raise CorruptPart(f"{FILE}: {storage.codes.size()} bytes of codes for {index.ntotal} × {index.d} numbers")


def _check_lists(index: Any) -> None:
    """Raises CorruptPart for lists that do not hold each row once: a row from elsewhere would be read out of bounds."""
    lists = index.invlists
    seen = np.zeros(index.ntotal, dtype=np.bool_)
    held = 0
    for number in range(index.nlist):
        size = lists.list_size(number)
        held += size
        if size:
            rows = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if rows.min() < 0 or rows.max() >= len(seen):
                raise CorruptPart(f"{FILE}: a list holds a row out of range")
            seen[rows] = True
    if held != len(seen) or not seen.all():
        raise CorruptPart(f"{FILE}: its lists do not hold every row once")


def _blocks(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """A few megabytes at a time, so that a check does not hold a second array of the catalogue's size."""
    return (values[start : start + 4096] for start in range(0, len(values), 4096))


class FewVectors:
    """Vectors too few for an index: every row is scored, by the kernel that scores the large one's."""

    kind = "exact"

    def __init__(self, codes: Halves) -> None:
        codes = np.ascontiguousarray(codes)
        codes.flags.writeable = False
        self.codes = codes

    @classmethod
    def of(cls, vectors: Floats) -> FewVectors:
        """Float32 [n, dimension]. Raises ValueError if one is not finite in float16."""
        with np.errstate(over="ignore"):
            halves = vectors.astype(np.float16)
        if not np.isfinite(halves).all():
            raise ValueError("product vectors must be finite")
        return cls(halves.view(np.uint16))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def dimension(self) -> int:
        return int(self.codes.shape[1])

    @property
    def products(self) -> int:
        return len(self)

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        rows = np.arange(len(self), dtype=np.int32) if allowed is None else np.flatnonzero(allowed).astype(np.int32)
        return top_rows(rows, self.scores(query, rows), depth)

    def search_many(self, queries: Floats, depth: int) -> list[tuple[Rows, Floats]]:
        return [self.search(query, depth, None) for query in queries]

    def scores(self, query: Floats, rows: Rows) -> Floats:
        return dot_rows(self.codes, rows, query)

    def vector(self, row: int) -> Floats:
        stored: Floats = self.codes[row].view(np.float16).astype(np.float32)
        return stored


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

    @property
    def products(self) -> int:
        return len(self)

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        rows = np.arange(len(self), dtype=np.int32) if allowed is None else np.flatnonzero(allowed).astype(np.int32)
        scores = self.scores(query, rows)
        best = np.lexsort((rows, -scores))[:depth]
        return rows[best], scores[best]

    def search_many(self, queries: Floats, depth: int) -> list[tuple[Rows, Floats]]:
        return [self.search(query, depth, None) for query in queries]

    def scores(self, query: Floats, rows: Rows) -> Floats:
        products = self._vectors[rows].astype(np.float64) @ query.astype(np.float64)
        exact: Floats = products.astype(np.float32)
        return exact

    def vector(self, row: int) -> Floats:
        stored: Floats = self._vectors[row]
        return stored
