"""How long the machine itself stood still: a process on each core that sleeps for a moment, again and again.

Whatever else waits meanwhile is late by as much, and no fault of the service. A loop that the service holds up, or an
interpreter, does not stop these processes, so that no fault of its own is excused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_METER = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
parent, longest, before = os.getppid(), 0.0, time.monotonic()
while os.getppid() == parent:
    time.sleep(0.005)
    at = time.monotonic()
    if at - before - 0.005 > longest:
        longest = at - before - 0.005
        print(longest * 1e3, flush=True)
    before = at
"""


@contextmanager
def stops() -> Iterator[Callable[[], float]]:
    """Ends the meters when it is called, and gives the longest stop of any core so far in milliseconds."""
    meters = [
        subprocess.Popen([sys.executable, "-c", _METER, str(core)], stdout=subprocess.PIPE, text=True)
        for core in sorted(getattr(os, "sched_getaffinity", lambda _: ())(0))
    ]

    def longest_ms() -> float:
        for meter in meters:
            meter.terminate()
        seen = [line for meter in meters for line in meter.communicate()[0].split()]
        return max(map(float, seen), default=0.0)

    try:
        yield longest_ms
    finally:
        for meter in meters:
            meter.kill()
            meter.wait()
