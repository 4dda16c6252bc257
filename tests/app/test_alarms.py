"""Alarms that share one timer ring as timers of their own would."""

from __future__ import annotations

import asyncio
import gc
import weakref
from time import monotonic

import numpy as np

from app.alarms import Alarms, alarms


async def test_each_rings_once_at_its_time_and_those_taken_back_never() -> None:
    """Set in any order, some of them from within others; early by no more than a loop's clock is coarse."""
    random = np.random.default_rng(3)
    rang: list[tuple[float, float]] = []
    begun = monotonic()

    def set_one(moment: float, *, more: bool = False) -> None:
        def ring() -> None:
            rang.append((moment, monotonic()))
            if more:
                set_one(moment + 0.05)

        set_for = alarms().at(moment, ring)
        if taken_back[len(moments)]:
            set_for.cancel()
        else:
            expected.append(moment)
        moments.append(moment)

    moments: list[float] = []
    expected: list[float] = []
    taken_back = random.random(400) < 0.5
    for number in range(200):
        set_one(begun + random.uniform(-0.01, 0.2), more=number % 5 == 0)
    await asyncio.sleep(0.4)
    assert sorted(moment for moment, _ in rang) == sorted(expected)
    assert 40 < len(expected) < len(moments)
    assert all(-0.001 <= at - max(moment, begun) < 0.1 for moment, at in rang)


async def test_an_earlier_one_does_not_wait_for_a_later_one() -> None:
    own = Alarms(asyncio.get_running_loop())
    rang = asyncio.Event()
    late = own.at(monotonic() + 60.0, rang.set)
    own.at(monotonic() + 0.01, rang.set)
    async with asyncio.timeout(5.0):
        await rang.wait()
    assert not late.cancelled
    late.cancel()


async def test_one_that_is_taken_back_keeps_nothing_alive() -> None:
    """Until its time only the alarm itself is held."""

    class Held:
        def call(self) -> None:
            raise AssertionError

    held = Held()
    seen = weakref.ref(held)
    alarm = alarms().at(monotonic() + 60.0, held.call)
    del held
    gc.collect()
    assert seen() is not None, "the control: while it is set it holds what it would call"
    alarm.cancel()
    gc.collect()
    assert seen() is None


def test_each_loop_has_its_own() -> None:
    async def rings() -> None:
        rang = asyncio.Event()
        alarms().at(monotonic() + 0.01, rang.set)
        async with asyncio.timeout(5.0):
            await rang.wait()

    for _ in range(2):
        asyncio.run(rings())
