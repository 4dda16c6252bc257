"""The text of what several processes counted is the library's own, and is read again for every scrape."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from app.api.exposition import _COMBINED, Exposition
from app.metrics import REGISTRY

Write = Callable[[Any], bytes]
WRITES = pytest.mark.parametrize("write", [generate_latest, generate_openmetrics])


class _Process:
    """The metrics of one process."""

    def __init__(self, pid: int) -> None:
        self.values = values.MultiProcessValue(repeat(pid).__next__)  # type: ignore[no-untyped-call]  # the library is not annotated
        with self.running():
            self._begin(pid)

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is counted here for the first time, this process counts."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(values, "ValueClass", self.values)
            yield

    def _begin(self, pid: int) -> None:
        held: dict[str, Any] = {"registry": CollectorRegistry()}
        self.counter = Counter("asked_total", 'Asked "so", or\nso.', ["route", "status"], **held)
        self.seconds = Histogram("seconds", "Seconds.", ["stage"], buckets=(0.1, 1.0, 5.0), **held)
        self.sum = Gauge("waiting", "Waiting.", multiprocess_mode="livesum", **held)
        self.least = Gauge("ready", "Ready.", ["of"], multiprocess_mode="livemin", **held)
        self.most = Gauge("lag_seconds", "Lag.", multiprocess_mode="livemax", **held)
        self.count(pid)

    def count(self, pid: int) -> None:
        self.counter.labels("/v1/search", "200").inc(1e6 + pid)
        self.counter.labels('a "b"\\\n\u2028', "500").inc()
        for at in range(pid):
            self.seconds.labels("embed").observe(at)
        self.seconds.labels(f"only {pid}").observe(0.05)
        self.sum.set(pid / 3)
        self.least.labels("all").set(pid)
        self.most.set(pid)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def _library(folder: Path, write: Write) -> list[str]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]  # the library is not annotated
    return sorted(line for line in write(registry).decode().split("\n") if line != "# EOF")


def _parsed(text: bytes, write: Write) -> None:
    """By the library's parser, which for OpenMetrics asks for the series of one set of labels to stand together."""
    strict = write is generate_openmetrics
    families = list(
        openmetrics.text_string_to_metric_families(text.decode() + "# EOF\n")
        if strict
        else text_string_to_metric_families(text.decode())
    )  # type: ignore[no-untyped-call]  # the library is not annotated
    assert len(families) == 5


def _ours(exposition: Exposition) -> list[str]:
    return sorted(exposition.text().decode().split("\n"))


@WRITES
def test_it_is_what_the_library_writes(folder: Path, write: Write) -> None:
    """Counters, histograms and the gauges' ways to be combined, of three processes; again after more was counted, after
    something was counted for the first time, and after a process was gone. Each time the text is another (control)."""
    processes = [_Process(pid) for pid in (1, 2, 7)]
    exposition, seen = Exposition(folder, write), list[list[str]]()

    def check() -> None:
        ours = _ours(exposition)
        assert ours == _library(folder, write) and len(ours) > 30
        _parsed(exposition.text(), write)
        assert ours not in seen
        seen.append(ours)

    check()
    processes[1].counter.labels("/v1/search", "200").inc()
    processes[1].seconds.labels("embed").observe(0.5)
    check()
    with processes[2].running():
        processes[2].counter.labels("/v1/rescore", "200").inc()
    check()
    for file in folder.glob("gauge_live*_7.db"):
        os.remove(file)
    check()


@WRITES
def test_only_numbers_are_read_again(folder: Path, write: Write) -> None:
    """As long as nothing is new, nothing is written by the library."""
    written = []

    def counting(collector: Any) -> bytes:
        written.append(1)
        return write(collector)

    process = _Process(3)
    exposition = Exposition(folder, counting)
    exposition.text()
    assert len(written) == 5
    process.count(3)
    exposition.text()
    assert len(written) == 5
    process.sum.inc()
    with process.running():
        process.seconds.labels("another").observe(1)
    exposition.text()
    assert len(written) == 10


def test_what_is_not_written_yet_or_gone_is_left_out(folder: Path) -> None:
    """No files, empty ones, one that a process made and has not begun (which may have died then), and no folder at all:
    no error, and of a sound file beside them everything (control)."""
    nothing = Exposition(folder, generate_latest)
    assert nothing.text() == b""
    (folder / "counter_1.db").write_bytes(b"")
    (folder / "counter_2.db").write_bytes(bytes(1 << 16))
    assert nothing.text() == b""
    _Process(3)
    assert nothing.text().count(b"\n") > 20
    shutil.rmtree(folder)
    assert nothing.text() == b""


def test_every_gauge_is_combined_in_a_way_that_is_known() -> None:
    """The library's default, a series a process, is none."""
    gauges = [one for one in REGISTRY._collector_to_names if isinstance(one, Gauge)]
    assert len(gauges) > 5
    assert {one._multiprocess_mode for one in gauges} <= _COMBINED.keys()
