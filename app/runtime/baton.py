"""How a thread wakes another and then waits itself: by one call, without the interpreter.

By two, whoever is woken on the same core runs at once, finds the interpreter taken, and goes back to sleep until the
other waits as well. There and back takes 10 µs by one call, 20 to 40 by `threading.Lock`, and took 180 by
`threading.Condition` and what else the queue did (docs/decisions/batching.md).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from math import inf
from pickle import UnpicklingError
from typing import Any, Protocol, cast

import numpy as np
from numba import njit, types

from app.runtime.deadline import left_s, now

_MONOTONIC = 1  # Linux's number for the clock of time.monotonic
_SEMAPHORE = 64  # bytes, of which glibc's sem_t takes 32
_LONG_S = 1e8
_HAS_SEMAPHORES = hasattr(ctypes.CDLL(None), "sem_clockwait")  # glibc 2.30


class Baton(Protocol):
    """Given to the one thread that waits for it, now or the next time it does."""

    def give(self) -> None:
        """From any thread."""

    def wait(self, until: float = inf, *, giving: Baton | None = None) -> None:
        """Until it is given, or that point on the monotonic clock; it may end sooner, for nothing. `giving`: first give
        that one."""


def baton() -> Baton:
    """A new one."""
    return _SemaphoreBaton() if _HAS_SEMAPHORES else _LockBaton()


class _LockBaton:
    """By two calls, where the system has nothing better."""

    def __init__(self) -> None:
        self._given = threading.Semaphore(0)

    def give(self) -> None:
        self._given.release()

    def wait(self, until: float = inf, *, giving: Baton | None = None) -> None:
        if giving is not None:
            giving.give()
        self._given.acquire(timeout=min(_LONG_S, left_s(until)))


class _SemaphoreBaton:
    """A semaphore of POSIX, and beside it the time until when its owner waits (`struct timespec`)."""

    def __init__(self) -> None:
        self._memory = np.zeros(_SEMAPHORE + 16, dtype=np.uint8)
        self._until = self._memory[_SEMAPHORE:].view(np.int64)
        self._at: int = self._memory.ctypes.data
        _init(self._at)

    def give(self) -> None:
        _give(self._at)

    def wait(self, until: float = inf, *, giving: Baton | None = None) -> None:
        seconds, rest = divmod(max(0.0, min(until, now() + _LONG_S)), 1.0)
        self._until[0], self._until[1] = seconds, rest * 1e9
        _wait(giving._at if isinstance(giving, _SemaphoreBaton) else 0, self._at, self._at + _SEMAPHORE)


if _HAS_SEMAPHORES:
    _sem_init: Any = types.ExternalFunction("sem_init", types.int32(types.uintp, types.int32, types.uint32))
    _sem_post: Any = types.ExternalFunction("sem_post", types.int32(types.uintp))
    _sem_clockwait: Any = types.ExternalFunction("sem_clockwait", types.int32(types.uintp, types.int32, types.uintp))


def _compiled(signature: str, *, nogil: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """At once, as it must be there when the first search comes; kept on disk where that can be written."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        if not _HAS_SEMAPHORES:
            return function
        try:
            return cast("Callable[..., Any]", njit(signature, cache=True, nogil=nogil)(function))
        except (RuntimeError, OSError, EOFError, UnpicklingError):  # no folder for it, or a full one, or half a file
            return cast("Callable[..., Any]", njit(signature, nogil=nogil)(function))

    return compiled


@_compiled("void(uintp)")
def _init(semaphore: int) -> None:
    _sem_init(semaphore, 0, 0)


@_compiled("void(uintp)")
def _give(semaphore: int) -> None:
    _sem_post(semaphore)


@_compiled("void(uintp, uintp, uintp)", nogil=True)
def _wait(given: int, own: int, until: int) -> None:
    if given:
        _sem_post(given)
    _sem_clockwait(own, _MONOTONIC, until)
