"""Where a thread runs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.runtime.cores import Tether, this_core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have affinities of their own on Linux")


@contextmanager
def _thread() -> Iterator[threading.Thread]:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, args=(10,))
    thread.start()
    try:
        yield thread
    finally:
        ended.set()
        thread.join()


def test_a_thread_is_held_on_a_core_and_let_go() -> None:
    """Only that thread; again on another core."""
    cores = os.sched_getaffinity(0)
    with _thread() as thread:
        tether = Tether(thread)
        for core in cores:
            tether.hold(core)
            assert os.sched_getaffinity(thread.native_id or 0) == {core}
            assert os.sched_getaffinity(0) == cores
        tether.hold(-1)
        assert os.sched_getaffinity(thread.native_id or 0) == cores
    assert this_core() in cores


def test_where_it_is_forbidden_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose profile forbids the call; it is tried once."""
    asked: list[object] = []

    def forbidden(*given: object) -> None:
        asked.append(given)
        raise PermissionError

    with _thread() as thread:
        tether = Tether(thread)
        monkeypatch.setattr(os, "sched_setaffinity", forbidden)
        for _ in range(3):
            tether.hold(this_core())
        tether.hold(-1)
    assert len(asked) == 1
