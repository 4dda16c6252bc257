"""The text of what processes counted, from the files that prometheus_client keeps in its multiprocess mode.

The library reads names, labels and help anew for each scrape and takes 3 ms of an interpreter that should serve
searches. Here they are read once: until a process comes or goes or something is counted for the first time, only the
numbers are read again. The format of the files is the library's (`mmap_dict`), its text comes from its own writer, and
tests/api/test_exposition.py holds both to be the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from pathlib import Path
from struct import Struct

import numpy as np
import numpy.typing as npt
from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_log = logging.getLogger("aisle.metrics")
Write = Callable[[Collector], bytes]
_COMBINED: dict[str, np.ufunc] = {"": np.add, "livesum": np.add, "livemax": np.maximum, "livemin": np.minimum}
_number: Callable[[float], str] = floatToGoString
_INT, _HEAD = Struct("i"), 8
Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], list[int]]
"""By name and labels: where its numbers lie, in doubles from the start of all files in a row."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Those that are combined in one way: which places of the text they take, and where each is read from."""

    combined: np.ufunc
    places: npt.NDArray[np.intp]
    cells: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]


class Exposition:
    """The files of one folder; one object a text format, used by one thread at a time."""

    def __init__(self, folder: Path, write: Write) -> None:
        self._folder = folder
        self._write = write
        self._known: list[tuple[str, int]] = []
        self._texts: list[str] = []  # each stands before a number
        self._numbers: list[_Numbers] = []

    def text(self) -> bytes:
        """What all processes counted by now."""
        names = sorted(name for name in _listed(self._folder) if name.endswith(".db"))
        files = {name.removesuffix(".db"): _used(self._folder / name) for name in names}
        known = [(name, len(data)) for name, data in files.items()]
        if known != self._known:
            self._texts, self._numbers = _read(files, self._write)
            self._known = known
        held: npt.NDArray[np.float64] = np.frombuffer(b"".join(files.values()), np.float64)
        values = np.empty(len(self._texts))
        for one in self._numbers:
            values[one.places] = one.combined.reduceat(held[one.cells], one.starts)
        written = map(_number, values.tolist())
        return "".join(chain.from_iterable(zip(self._texts, written, repeat("\n")))).encode()


def _listed(folder: Path) -> list[str]:
    """What lies in the folder; nothing where somebody took it away, and what else is known is still exposed."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        _log.warning("%s is gone: what is counted is not exposed until the service starts anew", folder)
        return []


def _used(path: Path) -> bytes:
    """The file up to where it is written; empty while its process is about to begin it (or died then), and once it is
    gone, as gauges go with their process."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_INT.size)
            used = _INT.unpack(head)[0] if head else 0
            return head + file.read(used - _INT.size) if used > _HEAD else b""
    except FileNotFoundError:
        return b""


def _read(files: dict[str, bytes], write: Write) -> tuple[list[str], list[_Numbers]]:
    """The text before each number, and where the numbers come from."""
    families: dict[str, tuple[str, str, str, Series]] = {}
    base = 0
    for stem, data in files.items():
        kind, _, mode = stem.rpartition("_")[0].partition("_")
        for key, cell in _entries(data):
            family, name, labels, documentation = json.loads(key)
            series = families.setdefault(family, (kind, mode, documentation, {}))[3]
            series.setdefault((name, tuple(sorted(labels.items()))), []).append(base + cell)
        base += len(data) // 8
    texts: list[str] = []
    found: dict[np.ufunc, list[tuple[int, list[int]]]] = {}
    for family, (kind, mode, documentation, series) in families.items():
        metric = Metric(family, documentation, kind)
        shown = _cumulated(family, series) if kind == "histogram" else series
        for name, labels in shown:
            metric.add_sample(name, dict(labels), 0)
        cells, before = iter(shown.values()), ""
        for line in write(_One(metric)).decode().split("\n")[:-1]:  # a label may hold what splitlines() splits at
            if line.startswith("#"):
                before += line + "\n"
            else:
                found.setdefault(_COMBINED[mode], []).append((len(texts), next(cells)))
                texts.append(before + line.rpartition(" ")[0] + " ")
                before = ""
    return texts, [_numbers(combined, read) for combined, read in found.items()]


def _numbers(combined: np.ufunc, read: list[tuple[int, list[int]]]) -> _Numbers:
    places, cells = zip(*read, strict=True)
    starts = [0, *accumulate(len(one) for one in cells)][:-1]
    return _Numbers(combined, np.array(places), np.array(list(chain.from_iterable(cells))), np.array(starts))


def _entries(data: bytes) -> Iterable[tuple[str, int]]:
    """(key, cell of its number) of one file."""
    at = _HEAD
    while at < len(data):
        (length,) = _INT.unpack_from(data, at)
        key = data[at + 4 : at + 4 + length]
        at += 4 + length + 8 - (length + 4) % 8  # padded, a whole word where it would fit
        yield key.decode(), at // 8
        at += 16  # the number, and when it was set


def _cumulated(family: str, series: Series) -> Series:
    """A histogram's series as they are exposed, one set of labels after the other: a bucket holds those before it, and
    the last is the count."""
    buckets: dict[Labels, list[tuple[float, list[int]]]] = {}
    others: dict[Labels, Series] = {}
    for (name, labels), cells in series.items():
        up_to = dict(labels).get("le")
        if up_to is None:
            others.setdefault(labels, {})[name, labels] = cells
        else:
            buckets.setdefault(tuple(pair for pair in labels if pair[0] != "le"), []).append((float(up_to), cells))
    found: Series = {}
    for labels, bounded in buckets.items():  # one whose buckets are still being made has none yet
        found |= others.get(labels, {})
        all_of_them: list[int] = []
        for bound, cells in sorted(bounded):
            all_of_them = all_of_them + cells
            found[f"{family}_bucket", (*labels, ("le", _number(bound)))] = all_of_them
        found[f"{family}_count", labels] = all_of_them
    return found


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]
