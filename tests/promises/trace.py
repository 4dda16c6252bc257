"""What a process asks of its disk, in order, as strace saw it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

_CALL = re.compile(r"(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += 0$")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_NAMES = re.compile(r'"([^"]*)"')


@dataclass(frozen=True)
class Call:
    """`fsync` of a path, or `rename` of one to another."""

    name: str
    path: Path
    to: Path | None = None


def permitted() -> str | None:
    """Why strace cannot be used here, or None where it can."""
    try:
        done = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return "needs strace"
    return None if done.returncode == 0 else f"strace is not permitted here: {done.stderr.strip()[:80]}"


def traced(command: Sequence[str], log: Path) -> list[Call]:
    """Run a command; its successful fsyncs and renames."""
    traces = "trace=fsync,fdatasync,rename,renameat,renameat2"
    subprocess.run(
        ["strace", "-f", "-y", "-s", "4096", "-o", str(log), "-e", traces, *command],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return [call for line in log.read_text().splitlines() if (call := parsed(line)) is not None]


def parsed(line: str) -> Call | None:
    """A line of strace's log, None for what failed or is something else."""
    found = _CALL.match(line)
    if found is None:
        return None
    name, arguments = found.groups()
    if name in ("fsync", "fdatasync"):
        held = _DESCRIPTOR.match(arguments)
        return Call("fsync", Path(held[1])) if held else None
    if name.startswith("rename"):
        source, target = _NAMES.findall(arguments)
        return Call("rename", Path(source), Path(target))
    return None


def lapses(calls: Sequence[Call], folder: Path, parts: Sequence[str], version: str) -> list[str]:
    """Where the order of a publication was not: every part fsynced, its folder fsynced, renamed to the version, the
    parent fsynced; then CURRENT and HISTORY, each written beside, fsynced, renamed, and the parent fsynced."""
    told = []
    built = _renamed(calls, folder / version)
    if built is None:
        return [f"nothing was renamed to {version}"]
    source = calls[built].path
    before = {call.path for call in calls[:built] if call.name == "fsync"}
    told += [f"{part}: not durable before its version is there" for part in parts if source / part not in before]
    told += [] if source in before else ["the names of the parts are not durable before their version is there"]
    last = built
    for name in ("CURRENT", "HISTORY"):
        at = _renamed(calls, folder / name)
        if at is None:
            told.append(f"{name}: not renamed into its place")
            continue
        if Call("fsync", folder) not in calls[last:at]:
            told.append(f"{calls[last].to}: its rename is not durable before {name} comes")
        if Call("fsync", calls[at].path) not in calls[last:at]:
            told.append(f"{name}: not durable before it is in its place")
        last = at
    if Call("fsync", folder) not in calls[last:]:
        told.append("HISTORY: its rename is not durable at the end")
    return told


def _renamed(calls: Sequence[Call], to: Path) -> int | None:
    return next((number for number, call in enumerate(calls) if call.name == "rename" and call.to == to), None)
