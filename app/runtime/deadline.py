"""Deadlines as points on the monotonic clock, so that they can be handed from stage to stage."""

from __future__ import annotations

import time

now = time.monotonic


def after_ms(timeout_ms: float) -> float:
    """The point on the monotonic clock (seconds) that lies `timeout_ms` from now."""
    return now() + timeout_ms / 1000.0


def left_s(deadline: float) -> float:
    """Seconds until the deadline; never negative."""
    return max(0.0, deadline - now())
