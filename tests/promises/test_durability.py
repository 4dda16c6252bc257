"""D3: what was published survives a loss of power."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.index.bundle import BundleStore
from tests import tiny
from tests.ledger import Promise
from tests.promises.trace import lapses, permitted, traced


def test_a_build_makes_every_part_durable_before_it_is_named(
    tiny_encoder: Path, promise: Promise, tmp_path: Path
) -> None:
    """`aisle build` under strace: fsync(file) → rename → fsync(folder), for every part, CURRENT and HISTORY."""
    if why_not := permitted():
        pytest.skip(why_not)
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products())
    store = BundleStore(tmp_path / "bundles", "shop")
    command = [sys.executable, "-m", "scripts.cli", "build", str(catalogue), "--encoder", str(tiny_encoder)]
    command += ["--bundles", str(tmp_path / "bundles"), "--collection", "shop"]
    with promise("D3", "fsync(file) → rename → fsync(folder) for each part, CURRENT and HISTORY") as found:
        calls = traced(command, tmp_path / "trace")
        version = store.current() or ""
        parts = [*store.verify(version).parts, "manifest.json"]
        told = lapses(calls, store.folder, parts, version)
        made = [path for path in (tmp_path, tmp_path / "bundles") if not any(call.path == path for call in calls)]
        found.figure = f"{len(parts)} parts, CURRENT and HISTORY in order, the folders above them durable"
        syncs = [
            number
            for number, call in enumerate(calls)
            if call.name == "fsync" and store.folder in (call.path, *call.path.parents)
        ]
        missed = [
            number for number in syncs if lapses([*calls[:number], *calls[number + 1 :]], store.folder, parts, version)
        ]
        found.control = f"without any one of its fsyncs {len(missed)} of {len(syncs)} traces are found wanting"
        found.metric = "none: the publisher is no server"
        assert not told, told
        assert not made, f"their new entries are not durable: {made}"
        assert len(missed) >= len(parts) + 5
