"""Long work in a process that answers searches: a thread that gives way to them, in one process of a machine at a time.

Threads that are started from such a thread would be as slow as it is, for ever; a session of ONNX Runtime with one
thread, and a search of FAISS in one, start none.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.pace import begin_to_give_way
from app.runtime.cores import anywhere
from app.runtime.deadline import after_ms, left_s
from app.runtime.member import METRICS_FOLDER

T = TypeVar("T")
_NICE = 19
_TURN = "turn.lock"
_LOOK_S = 0.02
_PATIENCE_S = 300.0  # with several that take their turns before; one that has stopped in its own is replaced


async def aside(work: Callable[..., T], *arguments: object) -> T:
    """`work(*arguments)` in a thread of its own, of the lowest priority, while no other process that shares the port is
    at such work. Raises what it raises. Cancelled while it waits it begins nothing, later the thread goes on."""
    async with _turn():
        thread = ThreadPoolExecutor(1, "aisle-aside", _yield_to_searches)
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)
        finally:
            thread.shutdown(wait=False)


def _yield_to_searches() -> None:
    """Of Linux, whose threads have priorities of their own; elsewhere there is no such process, or it is forbidden."""
    begin_to_give_way()
    anywhere()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """Where processes share a folder, the lock in it, which the kernel takes from whoever ends; else nothing."""
    folder = os.environ.get(METRICS_FOLDER)
    if not folder:
        yield
        return
    descriptor = os.open(Path(folder, _TURN), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = after_ms(_PATIENCE_S * 1e3)
        while not _locked(descriptor) and left_s(until) > 0:  # noqa: ASYNC110  (another process holds it)
            await asyncio.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
