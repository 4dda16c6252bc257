"""The pace of long work in a process that answers searches: a thread that gives way rests between its pieces.

Whoever reads many parts says where one piece ends and the next begins, and need not know whether anybody searches."""

from __future__ import annotations

import threading
import time

_here = threading.local()
_over = threading.Event()
# With rests of four times its work a load made p99 1.2 to 1.7 times as high, with ten times 1.3. At most a moment: what
# takes long at a stretch, such as hashing, needs little of the interpreter. A search asks for the interpreter some
# fifteen times, and beside a stretch without rests waits for it as often.
_RESTS = 10.0
_LONGEST_REST_S = 0.02
_LEAST_WORK_S = 0.0002  # before less, a rest would cost as much as it gives


class NoLongerWanted(BaseException):
    """Ends work that gives way, wherever it is: the process is about to end. No error that anybody should handle."""


def begin_to_give_way() -> None:
    """From now on the calling thread rests between its pieces. For a thread that ends with that work: there is no way
    back."""
    _here.begun = time.thread_time()


def is_aside() -> bool:
    """Whether the calling thread rests between its pieces of work."""
    return getattr(_here, "begun", None) is not None


def give_way() -> None:
    """Between two pieces of work: where the thread gives way, rest some times as long as the last ones took, so that
    searches find the interpreter free; elsewhere nothing. Raises NoLongerWanted after `end_all`, there alone."""
    begun = getattr(_here, "begun", None)
    if begun is None:
        return
    worked = time.thread_time() - begun
    if worked >= _LEAST_WORK_S:
        if _over.wait(min(_RESTS * worked, _LONGEST_REST_S)):
            raise NoLongerWanted
        _here.begun = time.thread_time()


def end_all() -> None:
    """Let all work that gives way end: the process would wait for it, and for its rests."""
    _over.set()
