"""Alarms for what nearly always ends before they ring: a deadline, a look at whether a client has gone.

A timer of the event loop costs some 10 µs to set and to take back. Here one timer serves all, for the earliest of them.
What has been taken back is passed over; some hundreds of those may be held until their time, but nothing that they
would have called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from time import monotonic

_EARLY_S = 0.0005  # an event loop may count in whole milliseconds
_SWEPT_AT = 512  # alarms, or twice as many as then remain: those that were taken back are let go of


class Alarm:
    """One call at a time to come."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """It will not ring."""
        self._call = None

    @property
    def cancelled(self) -> bool:
        """Whether it will not ring, or has rung."""
        return self._call is None

    def ring(self) -> None:
        """At its time, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Alarms:
    """Those of one event loop, for its thread alone. `loop` is that loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._order = count()
        self._waiting: list[tuple[float, int, Alarm]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf
        self._sweep_at = _SWEPT_AT
        self._context = Context()  # else that of whoever set the earliest would be kept, and passed on

    def at(self, moment: float, call: Callable[[], object]) -> Alarm:
        """Call at this moment of the monotonic clock, unless it is cancelled until then."""
        alarm = Alarm(call)
        if len(self._waiting) >= self._sweep_at:
            self._sweep()
        heappush(self._waiting, (moment, next(self._order), alarm))
        if moment < self._rings_at:
            self._wind(moment)
        return alarm

    def _wind(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = self.loop.call_later(max(0.0, moment - monotonic()), self._ring, context=self._context)

    def _sweep(self) -> None:
        self._waiting = [one for one in self._waiting if not one[2].cancelled]
        heapify(self._waiting)
        self._sweep_at = max(_SWEPT_AT, 2 * len(self._waiting))

    def _ring(self) -> None:
        self._timer, self._rings_at = None, inf
        until = monotonic() + _EARLY_S
        due: list[Alarm] = []
        while self._waiting and (self._waiting[0][0] <= until or self._waiting[0][2].cancelled):
            due.append(heappop(self._waiting)[2])
        if self._waiting:
            self._wind(self._waiting[0][0])
        for alarm in due:
            try:
                alarm.ring()
            except Exception as error:  # noqa: BLE001  (the others are due as well)
                self.loop.call_exception_handler({"message": "an alarm's call failed", "exception": error})


_latest: Alarms | None = None


def alarms() -> Alarms:
    """Those of the running loop."""
    global _latest
    loop, found = asyncio.get_running_loop(), _latest
    if found is None or found.loop is not loop:
        found = _latest = Alarms(loop)
    return found
