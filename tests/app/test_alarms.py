"""Alarms that share one timer ring as timers of their own would."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar
from functools import partial
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


async def test_what_was_taken_back_is_not_held_by_the_thousand() -> None:
    """However far off its time was; those that are to ring stay."""
    own = Alarms(asyncio.get_running_loop())
    rang: list[int] = []
    for number in range(20_000):
        alarm = own.at(monotonic() + (0.05 if number % 1000 == 0 else 60.0), partial(rang.append, number))
        if number % 1000:
            alarm.cancel()
    assert len(own._waiting) < 1000
    await asyncio.sleep(0.2)
    assert rang == list(range(0, 20_000, 1000))


async def test_one_that_fails_leaves_the_others_alone() -> None:
    loop = asyncio.get_running_loop()
    own, told, rang = Alarms(loop), [], asyncio.Event()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    moment = monotonic() + 0.01
    own.at(moment, partial(int, "no number"))
    own.at(moment, rang.set)
    async with asyncio.timeout(5.0):
        await rang.wait()
    assert [type(one) for one in told] == [ValueError]


async def test_it_rings_in_nobodys_context() -> None:
    """What a request has set in its own is not seen by the alarms of others."""
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    variable.set("a request's")
    own = Alarms(asyncio.get_running_loop())
    seen: list[str] = []
    own.at(monotonic() + 0.01, lambda: seen.append(variable.get()))
    await asyncio.sleep(0.1)
    assert seen == ["nobody's"]


def test_each_loop_has_its_own() -> None:
    async def rings() -> None:
        rang = asyncio.Event()
        alarms().at(monotonic() + 0.01, rang.set)
        async with asyncio.timeout(5.0):
            await rang.wait()

    for _ in range(2):
        asyncio.run(rings())
