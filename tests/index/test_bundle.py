"""The bundle: published atomically, verified, rolled back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from app.errors import BundleError, CorruptPart, NotFound
from app.index.bundle import BundleStore, collections_in


@pytest.fixture
def store(tiny_bundles: Path, tmp_path: Path) -> BundleStore:
    """A private copy of the tiny bundle."""
    shutil.copytree(tiny_bundles, tmp_path / "bundles")
    return BundleStore(tmp_path / "bundles")


def _current(store: BundleStore) -> str:
    version = store.current()
    assert version is not None
    return version


def _another(store: BundleStore, note: str) -> str:
    """A second intact version: the same parts, another manifest."""
    old = store.path(_current(store))
    with store.building() as folder:
        for path in old.iterdir():
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        content = json.loads((old / "manifest.json").read_text())["content"]
        return store.seal(folder, {**content, "note": note})


def test_a_version_is_named_after_its_manifest(store: BundleStore) -> None:
    """Date, and the first eight hex digits of the manifest's sha256."""
    manifest = store.verify(_current(store))
    assert _current(store).split("-")[1] == manifest.sha256[:8]


@pytest.mark.parametrize("position", [0.0, 0.3, 0.7, 0.999])
def test_one_flipped_bit_in_any_part_is_found_and_named(store: BundleStore, position: float) -> None:
    """Every part, the manifest included; and unflipped it passes again (control)."""
    folder = store.path(_current(store))
    for path in sorted(folder.iterdir()):
        raw = bytearray(path.read_bytes())
        at = int(position * len(raw))
        raw[at] ^= 1 << (at % 8)
        path.write_bytes(raw)
        with pytest.raises(CorruptPart) as refused:
            store.verify(_current(store))
        assert path.name in refused.value.detail
        raw[at] ^= 1 << (at % 8)
        path.write_bytes(raw)
    store.verify(_current(store))


@pytest.mark.parametrize("fault", ["missing", "truncated", "extra", "symlink", "hard link", "fifo", "folder"])
def test_a_part_that_is_not_a_plain_file_of_its_own_is_refused(store: BundleStore, fault: str, tmp_path: Path) -> None:
    """Absent, shortened, added, or something else under a part's name."""
    folder = store.path(_current(store))
    part = folder / "dense.faiss"
    aside = tmp_path / "aside"
    if fault == "extra":
        part = folder / "surprise.bin"
        part.write_bytes(b"x")
    elif fault == "truncated":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        shutil.move(part, aside)
        if fault == "symlink":
            part.symlink_to(aside)
        elif fault == "hard link":
            os.link(aside, part)
        elif fault == "fifo":
            os.mkfifo(part)
        elif fault == "folder":
            part.mkdir()
    with pytest.raises(CorruptPart, match=part.name):
        store.verify(_current(store))


def test_publishing_and_rolling_back_move_current(store: BundleStore) -> None:
    """A, B, C, back to B, back to A, and no further."""
    first = _current(store)
    second, third = _another(store, "second"), _another(store, "third")
    store.publish(second)
    store.publish(third)
    assert store.current() == third
    assert [store.roll_back(), store.roll_back()] == [second, first]
    with pytest.raises(NotFound):
        store.roll_back()
    assert store.current() == first


def test_a_roll_back_after_a_crash_between_its_two_writes_goes_back_one_step(store: BundleStore) -> None:
    """CURRENT was replaced, HISTORY was not: the next publish and roll back still see the truth."""
    first, second = _current(store), _another(store, "second")
    store.publish(second)
    (store.folder / "CURRENT").write_text(first + "\n")  # as a roll back leaves it when killed half-way
    third = _another(store, "third")
    store.publish(third)
    assert store.roll_back() == first


def test_a_corrupt_version_is_not_published(store: BundleStore) -> None:
    """And CURRENT stays what it was."""
    first, second = _current(store), _another(store, "second")
    part = store.path(second) / "golden.json"
    part.write_bytes(part.read_bytes() + b" ")
    with pytest.raises(CorruptPart, match="golden.json"):
        store.publish(second)
    assert store.current() == first


def test_a_build_that_dies_leaves_nothing_that_counts(store: BundleStore) -> None:
    """A temporary folder is no version, and is removed on the way out."""
    before = store.versions()
    with pytest.raises(RuntimeError, match="killed"), store.building() as folder:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError("killed")
    assert store.versions() == before
    assert not list(store.folder.glob(".building-*"))


@pytest.mark.parametrize("text", ["", "../../etc", "20261123-XYZ", "20261123-abcdef012", "\x00", "20261123-abcdef01 x"])
def test_a_current_that_is_no_version_is_refused(store: BundleStore, text: str) -> None:
    """CURRENT is input like any other."""
    (store.folder / "CURRENT").write_text(text)
    with pytest.raises(CorruptPart):
        store.current()


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "x" * 65, "-a", None, 7])
def test_a_collection_has_a_plain_name(tmp_path: Path, name: object) -> None:
    """Nothing that could leave the folder."""
    with pytest.raises(BundleError):
        BundleStore(tmp_path, name)  # type: ignore[arg-type]


def test_collections_live_beside_the_default(store: BundleStore, tmp_path: Path) -> None:
    """And a version made for one is refused in another."""
    version = _current(store)
    other = BundleStore(tmp_path / "bundles", "other")
    other.folder.mkdir(parents=True)
    shutil.copytree(store.path(version), other.folder / version)
    (other.folder / "CURRENT").write_text(version)
    assert collections_in(tmp_path / "bundles") == ["default", "other"]
    with pytest.raises(CorruptPart, match="collection"):
        other.verify(version)
