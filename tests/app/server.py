"""`aisle serve` in a process of its own, on a free port, for tests that need a real socket, signals or a scraper."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
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


@contextmanager
def served(bundles: Path, **environment: str) -> Iterator[Served]:
    """Start it, wait for its address, end it by its own process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AISLE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.cli", "serve", "--bundles", str(bundles), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=own | environment,
    )  # fmt: skip
    running = Served(process)
    try:
        running.wait_until_ready()
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
