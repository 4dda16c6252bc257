"""Nearest product vectors on one CUDA device, behind the protocol of the CPU's index, which it stands before.

A graph has no form on a GPU, and lists would only be approximate again: a device reads a million vectors of 384 float16
numbers in a quarter of a millisecond, so it scans all of them (GpuIndexFlat over the CPU index's own codes, 768 bytes a
product). As on the CPU, FAISS only chooses rows; every score comes from the CPU's row-wise kernel. FAISS rounds the
query to float16 there, so more rows are fetched than are wanted, and exact scores decide who is within the depth.

What FAISS 1.15 does on a GPU, and what follows:
- One index must not be searched by two threads at once (issue 2175), and while ONNX Runtime captures a CUDA graph no
  other thread may touch the device. So all of it runs on the one device thread, which takes what waits as one batch.
- GpuIndexFlat takes a selector and ignores it without a word. So none is passed: as many rows more are fetched as the
  filter drops, each is checked, and where too few are left the CPU's index answers, filter and all.
- A failed allocation raises; any other CUDA error ends the process. So a small search in a process of its own is tried
  first: a driver that is too old or a lost device shows there.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import IndexUnavailable
from app.index.dense import EXACT_SCAN_UP_TO, GPU_KIND, FaissIndex, VectorIndex
from app.index.dense_kernels import top_rows
from app.metrics import GPU_INDEX_FAILURES
from app.types import Floats, Mask, Rows

import faiss  # isort: skip  (after app.index.dense, which sets its threads)

_log = logging.getLogger("aisle.index")
_SPARE = 32  # beyond the depth, so that exact scores and ties by row decide who is within it; twice as many are fetched
_MOST_FOUND = 2048  # FAISS selects no more on a GPU
_MOST_AT_ONCE = 64  # queries
_TEMPORARY_BYTES = 512 << 20  # 64 queries × 2,048 rows of ten million; what does not fit, every search allocates anew
_ROWS_A_COPY = 65_536  # copied to the device at once, so that searches come between
_PATIENCE_S = 1.0  # with a device that has a whole answer in milliseconds
_TRIAL_S = 60.0
_LET_GO: deque[list[Any]] = deque()  # indexes that only the device thread may destroy
_TRIAL = """
import sys
import numpy, faiss
if not faiss.get_num_gpus():
    sys.exit("no CUDA device")
resources = faiss.StandardGpuResources()
resources.setTempMemory(1 << 20)
config = faiss.GpuIndexFlatConfig()
config.useFloat16 = True
index = faiss.GpuIndexFlatIP(resources, 8, config)
index.add(numpy.eye(8, dtype="float32"))
found = index.search(numpy.eye(8, dtype="float32"), 1)[1]
if found.ravel().tolist() != list(range(8)):
    sys.exit("it finds other rows than it should")
"""


def gpu_is_built_in() -> bool:
    """Whether this FAISS has GPU functions at all; whether a device can run them is another question."""
    return hasattr(faiss, "StandardGpuResources")


def cpu_index(index: VectorIndex) -> VectorIndex:
    """The index on the CPU behind one on a GPU; any other is its own. What is kept is chosen by it, so that it is the
    same on every machine."""
    return index.cpu if isinstance(index, GpuIndex) else index


class _Ticket:
    """Queries of one caller, [n, dimension], and the rows found, int64 [n, wanted]."""

    def __init__(self, queries: Floats, wanted: int) -> None:
        self.queries, self.wanted = queries, wanted
        self.rows: npt.NDArray[np.int64] | None = None


class GpuIndex:
    """An exact scan on device 0; the CPU's index where the device cannot answer, and once it has failed."""

    def __init__(self, cpu: FaissIndex, device: Executor) -> None:
        """Copy the vectors of `cpu` to the device. `device`: the one thread that does all device work.

        The device needs 772 bytes a product of 384 numbers, about twice that while they are copied, and 0.5 GiB to work
        in, once. Raises IndexUnavailable where FAISS has no GPU functions, no device can run them, or its memory is too
        small."""
        self.cpu = cpu
        self._device = device
        self._waiting: deque[_Ticket] = deque()
        self._failing = Lock()
        self._held = self._copied() if len(cpu) else []
        # Whoever lets go of the index last may be in the middle of anything: no more than a note is left.
        weakref.finalize(self, _LET_GO.append, self._held).atexit = False

    def __len__(self) -> int:
        return len(self.cpu)

    @property
    def kind(self) -> str:
        return f"{GPU_KIND}, {self.cpu.kind}" if self._held else self.cpu.kind

    @property
    def dimension(self) -> int:
        return self.cpu.dimension

    @property
    def products(self) -> int:
        return self.cpu.products

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        wanted = self._wanted(depth, allowed)
        found = self._nearest(query.reshape(1, -1), wanted) if wanted else None
        if found is None:
            return self.cpu.search(query, depth, allowed)
        rows = _valid(found[0])
        if allowed is not None:
            rows = rows[allowed[rows]]
            if len(rows) < depth + _SPARE and wanted < len(self):  # those it lets through lie further away than most
                return self.cpu.search(query, depth, allowed)
        return top_rows(rows, self.scores(query, rows), depth)

    def search_many(self, queries: Floats, depth: int) -> list[tuple[Rows, Floats]]:
        wanted = self._wanted(depth, None)
        found = self._nearest(queries, wanted) if wanted else None
        if found is None:
            return self.cpu.search_many(queries, depth)
        return [
            top_rows(rows, self.scores(query, rows), depth)
            for query, rows in zip(queries, map(_valid, found), strict=True)
        ]

    def scores(self, query: Floats, rows: Rows) -> Floats:
        return self.cpu.scores(query, rows)

    def vector(self, row: int) -> Floats:
        return self.cpu.vector(row)

    def _wanted(self, depth: int, allowed: Mask | None) -> int:
        """How many rows to fetch so that enough are allowed; 0 where that is the CPU's: the device finds no more than
        2,048, and few enough rows are scored without it."""
        if not self._held:
            return 0
        wanted = depth + 2 * _SPARE
        if allowed is not None:
            count = int(np.count_nonzero(allowed))
            if count <= max(EXACT_SCAN_UP_TO, depth):
                return 0
            wanted = -(-wanted * len(self) // count)
        wanted = 1 << (wanted - 1).bit_length()  # FAISS selects by powers of two: up to the next costs nothing
        return min(wanted, len(self)) if wanted <= _MOST_FOUND else 0

    def _nearest(self, queries: Floats, wanted: int) -> npt.NDArray[np.int64] | None:
        """The nearest rows of each query, [n, wanted]; None where the device gave no answer, which gives it up."""
        ticket = _Ticket(queries, wanted)
        self._waiting.append(ticket)
        try:
            self._device.submit(self._answer_waiting).result(_PATIENCE_S)
        except Exception as error:  # noqa: BLE001  (whatever FAISS or the wait for it raises, the CPU answers)
            self._give_up("late" if isinstance(error, TimeoutError) else "raised", error)
        return ticket.rows

    def _answer_waiting(self) -> None:
        """On the device thread: everything that waits by now, in as few scans as it takes."""
        _destroy()
        held = self._held  # emptied by this thread alone
        while self._waiting and held:
            tickets = [self._waiting.popleft()]
            count = len(tickets[0].queries)
            while self._waiting and count + len(self._waiting[0].queries) <= _MOST_AT_ONCE:
                tickets.append(self._waiting.popleft())
                count += len(tickets[-1].queries)
            _answer(tickets, held[0])

    def _give_up(self, cause: str, error: Exception) -> None:
        """From now on the CPU answers, until a version is loaded anew."""
        GPU_INDEX_FAILURES.labels(cause).inc()
        with self._failing:
            held, self._held = self._held, []
        if not held:
            return  # somebody else was first, and has said so
        _LET_GO.append(held)
        self._device.submit(_destroy)
        _log.error("the index on the GPU failed (%s: %s); the CPU's takes its place", cause, _said(error))

    def _copied(self) -> list[Any]:
        """[the index on the device]."""
        if not gpu_is_built_in():
            raise IndexUnavailable("this FAISS has no GPU functions (pip install 'aisle[gpu]')")
        _try_apart()
        held: list[Any] = []
        try:
            self._device.submit(_begin, held, self.dimension).result()
            for block in self.cpu.blocks(_ROWS_A_COPY):
                self._device.submit(held[0].add, block).result()
            # The largest search there is: its memory is taken now, or the device is too small.
            largest = np.zeros((_MOST_AT_ONCE, self.dimension), dtype=np.float32)
            self._device.submit(held[0].search, largest, min(_MOST_FOUND, len(self))).result()
        except Exception as error:
            self._device.submit(held.clear)
            GPU_INDEX_FAILURES.labels("build").inc()
            raise IndexUnavailable(f"the GPU cannot hold the index of {len(self)} products: {_said(error)}") from error
        return held


def _answer(tickets: Sequence[_Ticket], index: Any) -> None:
    """On the device thread: the rows of all tickets, by one scan for every 64 queries."""
    queries = np.ascontiguousarray(np.concatenate([one.queries for one in tickets]), dtype=np.float32)
    wanted = max(one.wanted for one in tickets)
    starts = range(0, len(queries), _MOST_AT_ONCE)
    found = np.concatenate([index.search(queries[start : start + _MOST_AT_ONCE], wanted)[1] for start in starts])
    start = 0
    for one in tickets:
        one.rows = found[start : start + len(one.queries), : one.wanted]
        start += len(one.queries)


def _begin(held: list[Any], dimension: int) -> None:
    """On the device thread: an empty index into `held`."""
    _destroy()
    config = faiss.GpuIndexFlatConfig()
    config.device = 0
    config.useFloat16 = True
    held.append(faiss.GpuIndexFlatIP(_resources(), dimension, config))


@cache
def _resources() -> Any:
    """One for the process: all indexes are used by the one device thread, so they can share the memory to work in."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_TEMPORARY_BYTES)
    resources.setPinnedMemory(0)  # FAISS pages queries of 256 MiB and more through it; there are none
    return resources


def _destroy() -> None:
    """On the device thread."""
    while _LET_GO:
        _LET_GO.popleft().clear()


def _try_apart() -> None:
    """Raises IndexUnavailable where a small search on the device does not succeed in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRIAL], capture_output=True, text=True, timeout=_TRIAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IndexUnavailable(f"FAISS could not be tried on a GPU: {_said(error)}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise IndexUnavailable(
            f"FAISS cannot search on a GPU: {said[-1][:300] if said else f'the trial ended with {done.returncode}'}"
        )


def _valid(found: npt.NDArray[np.int64]) -> Rows:
    """Ascending; FAISS fills up with -1."""
    rows: Rows = np.sort(found[found >= 0]).astype(np.int32)
    return rows


def _said(error: BaseException) -> str:
    """One line of what an error says, and of which kind it is."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
