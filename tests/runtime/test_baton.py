"""Threads that wake each other: nothing that is given is lost, and nobody waits longer than told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from time import monotonic

import pytest

from app.runtime.baton import Baton, _LockBaton, _SemaphoreBaton, baton

KINDS = [
    _LockBaton,
    pytest.param(
        _SemaphoreBaton, marks=pytest.mark.skipif(not isinstance(baton(), _SemaphoreBaton), reason="no sem_clockwait")
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_before_is_there(kind: Callable[[], Baton]) -> None:
    """Each once; then the time ends the wait, also a time that has passed."""
    one = kind()
    one.give()
    one.give()
    one.wait(inf)
    one.wait(inf)
    began = monotonic()
    for until in (began + 0.05, began - 1, -inf):
        one.wait(until)
        assert monotonic() >= until
    assert monotonic() < began + 5


@pytest.mark.parametrize("kind", KINDS)
def test_two_hand_it_to_each_other(kind: Callable[[], Baton]) -> None:
    """Many times there and back: a turn that were lost would be waited for to the end."""
    here, there, turns, seen = kind(), kind(), 5000, []

    def answer() -> None:
        owed = None
        for _ in range(turns):
            there.wait(inf, giving=owed)
            seen.append(len(seen))
            owed = here
        here.give()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    for turn in range(turns):
        until = monotonic() + 10
        here.wait(until, giving=there)
        while len(seen) == turn and monotonic() < until:  # it may end sooner
            here.wait(until)
        assert len(seen) == turn + 1
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_leaves_the_interpreter_to_others(kind: Callable[[], Baton]) -> None:
    one, counted = kind(), 0
    thread = threading.Thread(target=one.wait, daemon=True)
    thread.start()
    until = monotonic() + 0.05
    while monotonic() < until:
        counted += 1
    assert thread.is_alive() and counted > 1000
    one.give()
    thread.join(10)
    assert not thread.is_alive()
