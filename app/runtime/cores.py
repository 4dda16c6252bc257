"""How many cores there are to use, how many threads of one process gain by them, and where a thread runs."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

_MOST_THREADS = 4
_ANYWHERE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
_WAITED_NS = Path("/proc/thread-self/schedstat")  # the second number: how long it could have run and did not
_LOOK_S = 1.0
_MOST_WAITED = 0.1  # of the time
_AWAY_LOOKS = 10


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


def own_cores(processes: int) -> list[int]:
    """A core for each of so many processes, where they are as many as all the cores there are; else none."""
    cores = sorted(_ANYWHERE)
    return cores if processes == len(cores) == usable_cores() > 1 else []


def anywhere() -> None:
    """Let the calling thread run where the process may: it begins where the one is held that started it."""
    with suppress(OSError, AttributeError):
        os.sched_setaffinity(0, _ANYWHERE)


class Tether:
    """Holds a thread on one core, or lets it go. It does so where threads have affinities of their own (Linux) and may
    be given them; elsewhere nothing."""

    __slots__ = ("_core", "_thread")

    def __init__(self, thread: threading.Thread) -> None:
        """The thread has started when it is held."""
        self._thread = thread
        self._core: int | None = -1  # None: it cannot be done

    def hold(self, core: int) -> None:
        """On this core; −1: on any that the process may use."""
        if self._core == core or self._core is None:
            return
        try:
            os.sched_setaffinity(self._thread.native_id or 0, _ANYWHERE if core < 0 else (core,))
        except (OSError, AttributeError):
            self._core = None
        else:
            self._core = core

    @property
    def holds(self) -> bool:
        """Whether the thread is held."""
        return self._core is not None and self._core >= 0


class Home:
    """Holds the loop's thread on the core of its process. Woken by clients it would move to theirs and back, and find
    its caches cold: a search takes 5 % more then, and the worker has to be brought after it each time. Where others
    keep it waiting there it leaves, for a while."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._tether = Tether(threading.main_thread())
        self._waited_s, self._away = _waited_s() or 0.0, 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """On the main thread, whose loop runs."""
        self._look()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._tether.hold(-1)

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        self.look(_waited_s())

    def look(self, waited_s: float | None) -> None:
        """Once a second: stay, leave or come back, as the thread has waited for so long in all."""
        if waited_s is None:
            return
        waited, self._waited_s = waited_s - self._waited_s, waited_s
        if self._away:
            self._away -= 1
        elif waited > _MOST_WAITED * _LOOK_S and self._tether.holds:
            self._away = _AWAY_LOOKS
        self._tether.hold(-1 if self._away else self._core)


def _waited_s() -> float | None:
    """How long the calling thread has waited for a core; None where nobody tells."""
    try:
        return int(_WAITED_NS.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
