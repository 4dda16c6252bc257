"""`aisle serve` in a process of its own, on a free port, for tests that need a real socket, signals or a scraper."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT


class Served:
    """A running service: its address, its process, what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.address = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"serves (http://\S+)", line):
                self.address = found[1]
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self) -> None:
        assert self._ready.wait(90)
        assert self.address, "".join(self.lines)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        """SIGKILL, where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def start(bundles: Path, *, port: int = 0, command: Sequence[str] = (), **environment: str) -> Served:
    """Start it, or another module's `command` in its place; whoever does also ends it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AISLE_")}
    serve = ["scripts.cli", "serve", "--bundles", str(bundles), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *(command or serve)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=own | environment,
    )  # fmt: skip
    return Served(process)


@contextmanager
def served(bundles: Path, *, command: Sequence[str] = (), **environment: str) -> Iterator[Served]:
    """Start it, wait for its address, end it by its own process."""
    running = start(bundles, command=command, **environment)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()
