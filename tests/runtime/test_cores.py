"""Where a thread runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from app.runtime import cores
from app.runtime.cores import Home, Tether, anywhere, own_cores, this_core

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


async def test_the_loop_keeps_to_its_core_and_threads_that_it_starts_do_not() -> None:
    """As long as it is kept there; a thread begins where the one is held that starts it, unless it says otherwise."""
    everywhere = os.sched_getaffinity(0)
    core = max(everywhere)
    seen: dict[str, set[int]] = {}

    def look(name: str) -> None:
        seen[name] = os.sched_getaffinity(0)
        anywhere()
        seen[f"{name}, freed"] = os.sched_getaffinity(0)

    with Home(core).kept():
        assert os.sched_getaffinity(0) == {core}
        await asyncio.to_thread(look, "thread")
    assert os.sched_getaffinity(0) == everywhere
    assert seen == {"thread": {core}, "thread, freed": everywhere}


def test_a_loop_that_has_to_wait_on_its_core_leaves_it_for_a_while() -> None:
    """A tenth of a second in a second is borne, more is not; afterwards it comes back."""
    home, everywhere = Home(max(os.sched_getaffinity(0))), os.sched_getaffinity(0)
    home._waited_s = waited = 3.0
    try:
        for more, stays in (
            (0.0, True),
            (0.09, True),
            (0.11, False),
            *((0.0, False),) * (cores._AWAY_LOOKS - 1),
            (0.0, True),
        ):
            waited += more
            home.look(waited)
            assert (os.sched_getaffinity(0) != everywhere) is stays, waited
    finally:
        home._tether.hold(-1)


def test_where_nobody_tells_how_long_it_waits_it_keeps_to_no_core() -> None:
    home, everywhere = Home(max(os.sched_getaffinity(0))), os.sched_getaffinity(0)
    home.look(None)
    assert os.sched_getaffinity(0) == everywhere


def test_a_thread_that_is_kept_waiting_is_told_so() -> None:
    """Control: two that share a core wait, by the kernel's own count."""
    core = {max(os.sched_getaffinity(0))}

    def spin(seconds: float) -> None:
        os.sched_setaffinity(0, core)
        until = monotonic() + seconds
        while monotonic() < until:
            pass

    other = multiprocessing.get_context("fork").Process(target=spin, args=(0.6,))
    other.start()
    waited: list[float] = []

    def wait() -> None:
        before = cores._waited_s() or 0.0
        spin(0.4)
        waited.append((cores._waited_s() or 0.0) - before)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    other.join()
    assert waited[0] > 0.1


def test_processes_have_cores_of_their_own_where_there_is_one_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where a quota leaves them less, and not where there is but one."""
    monkeypatch.setattr(cores, "_ANYWHERE", {2, 5, 7})
    monkeypatch.setattr(cores, "usable_cores", lambda: 3)
    assert own_cores(3) == [2, 5, 7] and own_cores(2) == own_cores(4) == []
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    assert own_cores(3) == own_cores(2) == []
    monkeypatch.setattr(cores, "_ANYWHERE", {4})
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    assert own_cores(1) == []
