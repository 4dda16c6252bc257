"""Publishes versions in processes of their own, which are killed or given a failing disk.

    python -m tests.promises.publisher ROOT VERSION

A job a line comes in as JSON: `note` makes the version another one; `fault` is what happens `at` which step ("kill"
just before it, "torn" in the middle of a write, "ENOSPC" and "EIO" in its place, "short": half a write, then a full
disk), or null; `kill_after_s` kills at a moment instead. Out go the exit code, the steps, and the seconds.

A step is a call that changes a disk: open for writing, write, fsync, rename, mkdir, chmod, unlink, rmdir.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from app.index.bundle import MANIFEST, BundleStore

ROOT = Path(__file__).parents[2]
_CALLS = ("fsync", "rename", "mkdir", "chmod", "unlink", "rmdir")
_FAULT = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "short": errno.ENOSPC}


@dataclass(frozen=True)
class Job:
    """One publication."""

    note: str
    fault: str | None = None
    at: int = -1
    kill_after_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How it ended: `code` is negative where a signal did it; `steps` is known where it ended by itself, each by its
    call's name."""

    code: int
    seconds: float
    steps: list[str]


class Publisher:
    """A process that forks one for each job."""

    def __init__(self, root: Path, version: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.promises.publisher", str(root), version],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def publish(self, job: Job) -> Outcome:
        """Let it be done, or not."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def publisher(root: Path, version: str) -> Iterator[Publisher]:
    """A publisher for as long as the block lasts."""
    running = Publisher(root, version)
    try:
        yield running
    finally:
        running.close()


class _Steps:
    """Counts what changes the disk, and lets a fault happen."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._full = False
        self.names: list[str] = []

    def meet(self, name: str) -> str | None:
        """Before a step: the fault that it must make itself ("torn", "short"), where there is one."""
        number = len(self.names)
        self.names.append(name)
        if self._full and name == "write":
            raise OSError(errno.ENOSPC, "injected")
        if number != self._job.at:
            return None
        fault = self._job.fault or ""
        if fault == "kill" or (fault == "torn" and name != "write"):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault in ("torn", "short") and name == "write":
            self._full = True
            return fault
        raise OSError(_FAULT[fault], "injected")


def _watch(steps: _Steps) -> None:
    for name in _CALLS:
        setattr(os, name, _counted(name, getattr(os, name), steps))
    whole = io.open

    class Raw(io.FileIO):
        def write(self, data: Any, /) -> int:
            fault = steps.meet("write")
            if fault is None:
                return super().write(data)
            written = super().write(bytes(data)[: len(data) // 2])
            if fault == "torn":
                os.kill(os.getpid(), signal.SIGKILL)
            return written

    def opened(file: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        if "w" not in mode:
            return whole(file, mode, *arguments, **keywords)
        steps.meet("open")
        buffered = io.BufferedWriter(Raw(file, "wb"))
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="ascii")

    io.open = opened  # type: ignore[assignment]


def _counted(name: str, call: Callable[..., Any], steps: _Steps) -> Callable[..., Any]:
    def counted(*arguments: Any, **keywords: Any) -> Any:
        steps.meet(name)
        return call(*arguments, **keywords)

    return counted


def publish(store: BundleStore, version: str, note: str) -> str:
    """Another version with a version's parts, made and served as a build does it."""
    old = store.path(version)
    content = json.loads((old / MANIFEST).read_bytes())["content"]
    with store.building() as folder:
        for path in sorted(old.iterdir()):
            if path.name != MANIFEST:
                (folder / path.name).write_bytes(path.read_bytes())
        sealed = store.seal(folder, {**content, "note": note})
    store.publish(sealed)
    return sealed


def main(arguments: Sequence[str]) -> int:
    store, version = BundleStore(Path(arguments[0])), arguments[1]
    shutil.rmtree.avoids_symlink_attacks  # noqa: B018  (loads what it needs before the fork)
    for line in sys.stdin:
        print(json.dumps(asdict(_outcome(store, version, Job(**json.loads(line))))), flush=True)
    return 0


def _outcome(store: BundleStore, version: str, job: Job) -> Outcome:
    told, tell = os.pipe()
    began = monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os._exit(_work(store, version, job, tell))
    os.close(tell)
    if job.kill_after_s is not None:
        sleep(job.kill_after_s)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(told) as said:
        names = said.read().split()
    _, status = os.waitpid(pid, 0)
    return Outcome(os.waitstatus_to_exitcode(status), monotonic() - began, names)


def _work(store: BundleStore, version: str, job: Job, tell: int) -> int:
    steps = _Steps(job)
    write = os.write
    _watch(steps)
    code = 0
    try:
        publish(store, version, job.note)
    except OSError:
        code = 1
    except BaseException:
        code = 2
    write(tell, " ".join(steps.names).encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
