"""The meter by which tests excuse what a machine that stands still does to them can tell a stop, and a calm machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.stops import stops

_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children")
pytestmark = pytest.mark.skipif(not _CHILDREN.exists(), reason="this kernel does not list children in /proc")


def _meters() -> list[int]:
    """The children of this process that are meters."""
    children = _CHILDREN.read_text().split()
    return [int(pid) for pid in children if b"longest" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_core_that_stands_still_is_seen_and_a_busy_interpreter_is_not() -> None:
    """A meter that is stopped for 0.3 s says so. The control: while this process alone is busy for as long, it does
    not; of five tries the calmest, as the machine may really stop."""
    with stops() as longest_ms:
        time.sleep(0.5)
        meters = _meters()
        assert len(meters) == len(os.sched_getaffinity(0))
        os.kill(meters[0], signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(meters[0], signal.SIGCONT)
        time.sleep(0.1)
        assert longest_ms() >= 250
    calm = []
    for _ in range(5):
        with stops() as longest_ms:
            time.sleep(0.3)
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                pass
            calm.append(longest_ms())
    assert min(calm) < 250
