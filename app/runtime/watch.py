"""Who is inside a stage that may stand still, and whether it is wise to follow them.

A thread that stands still cannot be ended, only left alone. While one does, others keep out of that stage; every now
and then one of them tries it, the less often the more of them stand there already.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from threading import get_ident
from typing import Self

from app.runtime.deadline import now

PATIENCE_S = 0.2
_HONEST = 20  # times what is expected: a long text, a busy machine
_REST_S = 5.0


def patience_s(expected_ms: float) -> float:
    """Longer than any honest run of what is expected to take so long: whoever is inside since then stands still."""
    return max(PATIENCE_S, _HONEST * expected_ms / 1e3)


class Watch:
    """`with watch: run the stage`. Threads write it without a lock: each has an entry of its own."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self.patience_s = inf  # offline nobody stands still: a build embeds for minutes
        self._clock = clock
        self._since: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._since[get_ident()] = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self._since.pop(get_ident(), None)

    def still(self, patience_s: float | None = None) -> int:
        """How many threads are inside for longer than that, than honest runs where nothing is given."""
        before = self._clock() - (self.patience_s if patience_s is None else patience_s)
        return sum(since < before for since in list(self._since.values()))

    def rests(self) -> bool:
        """Whether to keep out: somebody stands still, and the last who went in did so less than 5 s ago, or twice as
        long for each that stands there beyond the first."""
        if not self._since:
            return False
        still = self.still()
        return still > 0 and self._clock() - max(self._since.values(), default=-inf) < _REST_S * 2 ** (still - 1)
