"""Whether memory, files and threads of a process stay flat: the same judge for a minute and for an hour."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

WARM_UP = 0.4  # of the time: caches fill, pools grow to their size
SLOPE_MB = 1.0  # per ten minutes
NOISE_MB = 2.5  # what resident memory moves by itself: a rise within it over the whole time tells nothing
TOTAL_MB = 50.0


@dataclass(frozen=True)
class Sample:
    """A process at one moment, in seconds since the beginning."""

    at: float
    rss_mb: float
    fds: int
    threads: int


def sample(pid: int, at: float) -> Sample:
    """Read from /proc."""
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    return Sample(
        at,
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )


def slope_mb(samples: Sequence[Sample]) -> float:
    """Rise of resident memory in ten minutes: the median over all pairs of samples (Theil 1950, Sen 1968), which a
    swap's spike does not move."""
    step = max(1, len(samples) // 400)
    at = np.array([one.at for one in samples[::step]])
    rss = np.array([one.rss_mb for one in samples[::step]])
    first, second = np.triu_indices(len(at), 1)
    return float(np.median((rss[second] - rss[first]) / (at[second] - at[first]))) * 600.0


def faults(samples: Sequence[Sample]) -> list[str]:
    """What is not flat, in sentences."""
    warm = [one for one in samples if one.at >= WARM_UP * samples[-1].at]
    third = len(warm) // 3
    early, late = warm[:third], warm[-third:]
    found = []
    slope = slope_mb(warm)
    rise = slope / 600.0 * (warm[-1].at - warm[0].at)
    if slope > SLOPE_MB and rise > NOISE_MB:
        found.append(f"memory rises by {slope:.1f} MB in ten minutes ({rise:.1f} MB in what was seen)")
    total = median(one.rss_mb for one in late) - median(one.rss_mb for one in early)
    if total > TOTAL_MB:
        found.append(f"memory rose by {total:.1f} MB")
    for name in ("fds", "threads"):
        before, after = (median(getattr(one, name) for one in part) for part in (early, late))
        if after > before + 1:
            found.append(f"{name} rose from {before:.0f} to {after:.0f}")
    return found
