"""The interpreter as a process wants it that has loaded what it serves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# A worker lets go of the interpreter some fifteen times a search. While the loop is busy it gets it back only when this
# is over: at Python's own 5 ms the p99 of 560 searches a second was 32 and 163 ms, now 18 and 23.
_SWITCH_S = 0.0005


def settle() -> None:
    """What is loaded stays, and is no garbage: without this a full collection stops every search for 0.1 s to find that
    out. A request leaves no cycles (tests/api/test_garbage.py), so the young may be looked through less often than at
    every 700th object: large rescorings that wait hold more than 5,000, and each look at those stopped every search for
    6 ms and more. And threads take turns more often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    sys.setswitchinterval(_SWITCH_S)


@contextmanager
def settled() -> Iterator[None]:
    """The same for as long as something is measured."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    settle()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
