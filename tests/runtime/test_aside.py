"""Work beside searches."""

from __future__ import annotations

import threading
import time

import pytest

from app import pace
from app.pace import NoLongerWanted, give_way
from app.runtime.aside import aside


def _work(pieces: int) -> tuple[float, float]:
    """Seconds of the clock, and of the processor, for so many pieces of a millisecond each."""
    begun, spent = time.perf_counter(), time.thread_time()
    for _ in range(pieces):
        until = time.thread_time() + 1e-3
        while time.thread_time() < until:
            pass
        give_way()
    return time.perf_counter() - begun, time.thread_time() - spent


async def test_work_rests_between_its_pieces_aside_and_nowhere_else() -> None:
    """Aside it takes several times as long as it is at work."""
    took, worked = await aside(_work, 5)
    assert took > 5 * worked > 0.0
    begun = time.perf_counter()
    for _ in range(1000):
        give_way()
    assert time.perf_counter() - begun < 1.0


async def test_work_aside_ends_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its next rest, rather than a hundred rests later; what rests nowhere goes on."""
    monkeypatch.setattr(pace, "_over", threading.Event())
    begun = time.perf_counter()
    threading.Timer(0.05, pace.end_all).start()
    with pytest.raises(NoLongerWanted):
        await aside(_work, 1000)
    assert time.perf_counter() - begun < 2.0
    assert _work(3)[1] >= 0.003
