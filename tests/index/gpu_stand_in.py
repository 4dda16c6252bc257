"""FAISS's GPU functions where there is no GPU: the calls of app/index/dense_gpu.py, answered by a flat CPU index.

It is as hard to please as the original: one thread at a time, at most 2,048 rows, no device beyond those there are. It
rounds vectors and queries to float16, ignores a selector without a word, and gives equal scores in no useful order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class StandInGpu:
    """Takes the place of the module `faiss`; counts and checks what is asked of it."""

    def __init__(self, *, memory_bytes: int = 1 << 40) -> None:
        self.memory_bytes, self.used_bytes = memory_bytes, 0
        self.batches: list[tuple[int, int]] = []
        """(queries, rows asked for) of each search."""
        self.threads: set[str] = set()
        self.before_search: Callable[[], None] = lambda: None
        self.temporary_bytes = self.pinned_bytes = -1
        self._busy = threading.Lock()
        module = self

        class StandardGpuResources:
            def setTempMemory(self, size: int) -> None:  # noqa: N802  (FAISS's own names)
                module.temporary_bytes = size

            def setPinnedMemory(self, size: int) -> None:  # noqa: N802
                module.pinned_bytes = size

        class GpuIndexFlatConfig:
            device = 0
            useFloat16 = False  # noqa: N815

        class GpuIndexFlatIP:
            def __init__(self, resources: StandardGpuResources, dimension: int, config: GpuIndexFlatConfig) -> None:
                assert isinstance(resources, StandardGpuResources) and config.useFloat16
                if config.device != 0:
                    raise RuntimeError(f"Invalid GPU device {config.device}")
                self._index, self._bytes = faiss.IndexFlatIP(dimension), 0

            def add(self, vectors: Floats) -> None:
                with module.one_thread():
                    if module.used_bytes + vectors.size * 2 > module.memory_bytes:
                        raise RuntimeError("StandardGpuResources: alloc fail type FlatData\n (out of memory [2])\n")
                    module.used_bytes += vectors.size * 2
                    self._bytes += vectors.size * 2
                    self._index.add(_rounded(vectors))

            def search(self, queries: Floats, k: int, *, params: Any = None) -> tuple[Floats, npt.NDArray[np.int64]]:
                with module.one_thread():
                    if k > 2048:
                        raise RuntimeError(f"GPU index only supports min/max-K selection up to 2048 (requested {k})")
                    module.batches.append((len(queries), k))
                    module.before_search()
                    scores, rows = self._index.search(_rounded(queries), k)
                    order = np.lexsort((-rows, -scores), axis=1)  # equal scores: the higher row first
                    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

            def __del__(self) -> None:
                module.threads.add(threading.current_thread().name)
                module.used_bytes -= getattr(self, "_bytes", 0)

        self.StandardGpuResources = StandardGpuResources
        self.GpuIndexFlatConfig = GpuIndexFlatConfig
        self.GpuIndexFlatIP = GpuIndexFlatIP

    def one_thread(self) -> _Alone:
        return _Alone(self._busy, self.threads)


class _Alone:
    """Fails for a second thread, as the original would in worse ways."""

    def __init__(self, busy: threading.Lock, threads: set[str]) -> None:
        self._busy, self._threads = busy, threads

    def __enter__(self) -> None:
        assert self._busy.acquire(blocking=False), "two threads on one device"
        self._threads.add(threading.current_thread().name)
        time.sleep(0)

    def __exit__(self, *_: object) -> None:
        self._busy.release()


def _rounded(values: Floats) -> Floats:
    return np.ascontiguousarray(values.astype(np.float16).astype(np.float32))
