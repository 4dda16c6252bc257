"""Rescoring that was cut short goes on where it stopped, and ends with the bytes of one that was not."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import rescore
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import ROOT

ROWS = 400


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Rows by id and by text, some of which have no score."""
    products = tiny.products()
    path = tmp_path / "in.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            row: dict[str, Any] = {"query": products[number // 7 % len(products)]["title"], "note": number}
            row |= {"text": "blue mug"} if number % 50 == 3 else {"id": products[number % len(products)]["id"]}
            file.write(json.dumps(row if number % 90 else {"query": "mug", "note": number}) + "\n")
    return path


def _cut_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whoever scores is interrupted after so many batches; the list counts the rows scored."""
    scored: list[int] = []
    whole = rescore._Scorer.score

    def score(self: rescore._Scorer, rows: list[rescore.Row]) -> list[rescore.Row]:
        if batches and len(scored) >= batches:
            raise KeyboardInterrupt
        scored.append(len(rows))
        return whole(self, rows)

    monkeypatch.setattr(rescore._Scorer, "score", score)
    return scored


def _made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "in.jsonl")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_run_that_was_cut_short_goes_on(
    name: str, pairs: Path, tiny_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescore, "_BATCH", 16)
    command = ["rescore", str(pairs), str(tmp_path / name), "--bundles", str(tiny_bundles)]
    with monkeypatch.context() as cut:
        _cut_after(7, cut)
        assert aisle(command) != 0
    kept = _made(tmp_path)
    assert name not in kept
    with monkeypatch.context() as counting:
        again = _cut_after(0, counting)
        assert aisle(command) == 0
    assert _made(tmp_path) == [name]
    if name.endswith("parquet"):
        assert sum(again) == ROWS and kept == []  # readable only when it is closed
        return
    assert kept == [f".{name}.part", f".{name}.part.json"]
    assert 0 < sum(again) < ROWS
    went_on = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    assert aisle(command) == 0
    assert (tmp_path / name).read_bytes() == went_on
    lines = went_on.decode().splitlines()
    notes = (
        [json.loads(line)["note"] for line in lines]
        if name.endswith("jsonl")
        else [int(row["note"]) for row in csv.DictReader(lines)]
    )
    assert notes == list(range(ROWS))


@pytest.mark.parametrize("change", ["input", "profile"])
def test_what_was_asked_otherwise_begins_anew(
    change: str, pairs: Path, tiny_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: rows of another question are never taken for these."""
    monkeypatch.setattr(rescore, "_BATCH", 16)
    command = ["rescore", str(pairs), str(tmp_path / "out.jsonl"), "--bundles", str(tiny_bundles)]
    with monkeypatch.context() as cut:
        _cut_after(7, cut)
        assert aisle(command) != 0
    if change == "input":
        os.utime(pairs, (1, 1))
    else:
        command += ["--profile", "lexical"]
    again = _cut_after(0, monkeypatch)
    assert aisle(command) == 0
    assert sum(again) == ROWS


def test_a_killed_run_goes_on(pairs: Path, tiny_bundles: Path, tmp_path: Path) -> None:
    """kill -9, as a machine that is taken away does."""
    script = (
        "import sys, time\nfrom scripts import rescore\nfrom scripts.cli import main\n"
        "rescore._BATCH = 16\nwhole = rescore._Scorer.score\n"
        "rescore._Scorer.score = lambda self, rows: (time.sleep(0.05), whole(self, rows))[1]\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out.jsonl"
    command = ["rescore", str(pairs), str(out), "--bundles", str(tiny_bundles)]
    process = subprocess.Popen([sys.executable, "-c", script, *command], cwd=ROOT)
    _until((tmp_path / ".out.jsonl.part.json").exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (tmp_path / ".out.jsonl.part").open("ab") as part:
        part.write(b'{"query": "half a li')  # what the kill cut off
    assert aisle(command) == 0
    assert [json.loads(line)["note"] for line in out.read_text().splitlines()] == list(range(ROWS))
    assert _made(tmp_path) == ["out.jsonl"]


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
