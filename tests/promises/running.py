"""What can be seen of a running service from outside: its processes, their memory, its metrics."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.app.server import Served


def members(service: Served) -> list[int]:
    """Numbers of the processes that serve."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == service.process.pid:
            found.append(int(folder.name))
    return sorted(found) or [service.process.pid]


def rss_mb(service: Served) -> float:
    """Resident memory of all of them."""
    total = 0
    for pid in members(service):
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("VmRSS:")[2].split()[0])
    return total / 1024


def metric(address: str, name: str, **labels: str) -> float:
    """Sum of a metric's samples with these labels."""
    text = httpx.get(f"{address}/metrics", timeout=10).raise_for_status().text
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            total += float(found[2])
    return total
