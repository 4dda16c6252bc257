"""Versions to publish, to break and to sign anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from app.index.bundle import MANIFEST, BundleStore
from scripts.cli import main as aisle
from tests import tiny

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Pair:
    """A store with two whole versions of disjoint ids: those of the first begin with "a", of the second with "b"."""

    store: BundleStore
    first: str
    second: str

    @property
    def root(self) -> Path:
        return self.store.folder

    def letter(self, version: str) -> str:
        """What every id of a version begins with."""
        return {self.first: "a", self.second: "b"}[version]

    def copied_to(self, root: Path) -> Pair:
        """The same in a folder of its own, with the first published."""
        shutil.copytree(self.root, root)
        copy = Pair(BundleStore(root), self.first, self.second)
        copy.store.publish(self.first)
        return copy


def pair_of(folder: Path, encoder: Path) -> Pair:
    """Build both through the command line."""
    store = BundleStore(folder / "bundles")
    versions = []
    for letter, seed in (("a", 7), ("b", 8)):
        rows = [{**row, "id": letter + row["id"][1:]} for row in tiny.products(seed=seed)]
        catalogue = tiny.write_catalogue(folder / f"{letter}.jsonl", rows)
        command = ["build", str(catalogue), "--encoder", str(encoder), "--bundles", str(store.folder)]
        with redirect_stdout(StringIO()):
            assert aisle([*command, "--force", "a fixture"]) == 0
        versions.append(store.current() or "")
    return Pair(store, *versions)


def parts(folder: Path) -> list[Path]:
    """Every file of a version, the manifest among them."""
    return sorted(folder.iterdir())


def content(folder: Path) -> dict[str, Any]:
    """What the manifest says beside the digests."""
    held: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())["content"]
    return held


def signed_anew(store: BundleStore, version: str, change: Change, more: dict[str, Any] | None = None) -> str:
    """Another version: the parts of one, changed, under digests that fit."""
    old = store.path(version)
    with store.building() as folder:
        for path in parts(old):
            if path.name != MANIFEST:
                shutil.copyfile(path, folder / path.name)
        change(folder)
        return store.seal(folder, {**content(old), **(more or {})})
