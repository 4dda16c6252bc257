"""How many cores there are to use, how many threads of one process gain by them, and where a thread runs."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

_MOST_THREADS = 4


def usable_cores() -> int:
    """Cores this process may use: the affinity mask, cut by the cgroup's CPU quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return max(1, cores)
    if quota == "max":
        return max(1, cores)
    return max(1, min(cores, round(int(quota) / int(period))))


def worker_threads(processes: int = 1) -> int:
    """Workers of one of so many processes: its share of the cores, at most four. More take the one interpreter from
    each other: beside a GPU, 16 answered fewer than 300 searches a second where 2 answered 438 (BENCHMARKS.md)."""
    return min(_MOST_THREADS, max(1, usable_cores() // processes))


def _asks_for_the_core() -> Callable[[], int]:
    try:
        asks = ctypes.PyDLL(None).sched_getcpu  # Linux; in less time than it takes to let go of the interpreter
    except (AttributeError, OSError):
        return lambda: -1
    asks.restype, asks.argtypes = ctypes.c_int, ()
    return cast("Callable[[], int]", asks)


this_core = _asks_for_the_core()
"""Number of the core that the calling thread is on just now, −1 where nobody knows."""


class Tether:
    """Holds a thread on one core, or lets it go. It does so where threads have affinities of their own (Linux) and may
    be given them; elsewhere nothing."""

    __slots__ = ("_anywhere", "_core", "_thread")

    def __init__(self, thread: threading.Thread) -> None:
        """The thread has started when it is held."""
        self._thread = thread
        self._core: int | None = -1  # None: it cannot be done
        self._anywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def hold(self, core: int) -> None:
        """On this core; −1: on any that the process may use."""
        if self._core == core or self._core is None:
            return
        try:
            os.sched_setaffinity(self._thread.native_id or 0, self._anywhere if core < 0 else (core,))
        except (OSError, AttributeError):
            self._core = None
        else:
            self._core = core
