"""How many cores there are to use, and how many threads of one process gain by them."""

from __future__ import annotations

import os
from pathlib import Path

_MOST_THREADS = 4


def usable_cores() -> int:
    """Cores this process may use: the affinity mask, cut by the cgroup's CPU quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return max(1, cores)
    if quota == "max":
        return max(1, cores)
    return max(1, min(cores, round(int(quota) / int(period))))


def worker_threads(processes: int = 1) -> int:
    """Workers of one of so many processes: its share of the cores, at most four. More take the one interpreter from
    each other: beside a GPU, 16 answered fewer than 300 searches a second where 2 answered 438 (BENCHMARKS.md)."""
    return min(_MOST_THREADS, max(1, usable_cores() // processes))
