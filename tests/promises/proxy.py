"""HAProxy with deploy/haproxy.cfg in front of two replicas, each with a port of its own."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import httpx
import pytest

from tests.app.server import Served, start
from tests.conftest import ROOT

_STATS = """
frontend stats
    mode http
    bind 127.0.0.1:{port}
    stats enable
    stats uri /stats
"""
_PATIENCE_S = 30.0


@dataclass
class Farm:
    """Two replicas behind one address. `statistics` are HAProxy's own."""

    bundles: Path
    address: str
    ports: tuple[int, int]
    environment: dict[str, str]
    stats: str
    replicas: list[Served] = field(default_factory=list)

    def begin(self, number: int) -> None:
        """Start a replica in its place and wait until HAProxy sends to it."""
        running = start(self.bundles, port=self.ports[number], **self.environment)
        self.replicas[number : number + 1] = [running]
        running.wait_until_ready()
        self.until(lambda: self.up() == len(self.replicas))

    def restart(self, number: int) -> float:
        """SIGTERM, its end, and another in its place. The seconds until its end."""
        began = time.monotonic()
        running = self.replicas[number]
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=_PATIENCE_S) == 0, "".join(running.lines)
        took = time.monotonic() - began
        self.begin(number)
        return took

    def up(self) -> int:
        """How many replicas HAProxy sends to."""
        return sum(row["status"].startswith("UP") for row in self.statistics())

    def statistics(self) -> list[dict[str, str]]:
        """A row a replica."""
        text = httpx.get(f"{self.stats};csv", timeout=5).raise_for_status().text.removeprefix("# ")
        return [row for row in csv.DictReader(StringIO(text)) if row["svname"] in ("one", "two")]

    def total(self, column: str) -> int:
        """Sum of a column, such as `wretr`: requests that were asked again."""
        return sum(int(row[column] or 0) for row in self.statistics())

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)


@contextmanager
def farm(bundles: Path, folder: Path, **environment: str) -> Iterator[Farm]:
    """Everything started and up; everything ended by its own process."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs haproxy")
    front, one, two, stats = _free_ports(4)
    (folder / "stats.cfg").write_text(_STATS.format(port=stats))
    own = {"AISLE_LISTEN": f"127.0.0.1:{front}", "AISLE_ONE": f"127.0.0.1:{one}", "AISLE_TWO": f"127.0.0.1:{two}"}
    command = [program, "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg"), "-f", str(folder / "stats.cfg")]
    given = {"AISLE_PROVIDER": "cpu", "AISLE_PROCESSES": "1"} | environment
    running = Farm(bundles, f"http://127.0.0.1:{front}", (one, two), given, f"http://127.0.0.1:{stats}/stats")
    with (folder / "haproxy.log").open("w") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own)
    try:
        running.until(lambda: _answers(running))
        for number in (0, 1):
            running.begin(number)
        yield running
        assert proxy.poll() is None, "the proxy has ended"
    finally:
        for replica in running.replicas:
            replica.kill()
        proxy.kill()
        proxy.wait()


def _answers(running: Farm) -> bool:
    try:
        return bool(running.statistics())
    except httpx.HTTPError:
        return False


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
