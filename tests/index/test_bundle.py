"""The bundle: published atomically, verified, rolled back."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.errors import BundleError, CorruptPart, NotFound
from app.index import bundle
from app.index.bundle import BundleStore, Manifest, collections_in


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


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "\ud800", "", "..", "a/b", "x" * 129, "manifest.json"])
def test_a_manifest_names_plain_files_only(store: BundleStore, name: str) -> None:
    """Whatever else a part is called, it is refused before the name is used."""
    raw = json.loads((store.path(_current(store)) / "manifest.json").read_text())
    raw["parts"][name] = next(iter(raw["parts"].values()))
    with pytest.raises(CorruptPart, match="part name"):
        Manifest.parse(json.dumps(raw).encode())


def test_a_part_that_cannot_be_read_is_refused(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, and not taken for a fault of the program."""

    def deny(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(bundle, "file_digest", deny)
    first = min(json.loads((store.path(_current(store)) / "manifest.json").read_text())["parts"])
    with pytest.raises(CorruptPart, match=f"{first}: unreadable"):
        store.verify(_current(store))


def test_a_garbled_history_loses_no_publish(store: BundleStore) -> None:
    """Lines that name no version are passed over; CURRENT still says what to go back to."""
    first, second = _current(store), _another(store, "second")
    (store.folder / "HISTORY").write_bytes(b"\xff\xfe\n")
    assert store.history() == []
    store.publish(second)
    assert store.roll_back() == first


def test_the_default_collection_lives_in_the_folder_itself(store: BundleStore, tmp_path: Path) -> None:
    """One that lies under collections/ by that name is not taken for it."""
    shutil.copytree(store.folder, tmp_path / "other" / "collections" / "default")
    assert collections_in(tmp_path / "other") == []


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_publish_killed_at_any_step_leaves_a_whole_version(
    store: BundleStore, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the step fails once: CURRENT names the old or the new version, both verify, and the next try ends
    well with one step back to the old one."""
    first, second = _current(store), _another(store, "second")
    whole, failed = getattr(os, step), 0
    for survivors in range(20):
        calls = 0

        def fail(*arguments: object, survivors: int = survivors) -> object:
            nonlocal calls
            calls += 1
            if calls > survivors:
                raise OSError(28, "No space left on device")
            return whole(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            try:
                store.publish(second)
            except OSError:
                failed += 1
        assert _current(store) in (first, second)
        store.verify(_current(store))
        assert not list(store.folder.glob(".CURRENT-*")) + list(store.folder.glob(".HISTORY-*"))
        if calls <= survivors:
            break
        store.publish(second)
        assert store.roll_back() == first
    assert failed > 1, "nothing failed"
    assert _current(store) == second


def test_what_a_killed_build_left_is_removed_by_the_next(store: BundleStore) -> None:
    """The folder that nobody holds goes; that of a build under way stays, and its version can be sealed."""
    left = store.folder / ".building-killed"
    left.mkdir()
    (left / "dense.faiss").write_bytes(b"half")
    with store.building() as slow:
        assert not left.exists()
        (slow / "part").write_bytes(b"kept")
        with store.building() as quick:
            assert slow.exists() and quick != slow
        version = store.seal(slow, {})
    assert (store.path(version) / "part").read_bytes() == b"kept"
    assert not list(store.folder.glob(".building-*"))


def test_what_a_killed_publish_left_is_removed_by_the_next(store: BundleStore) -> None:
    """Half-written files beside CURRENT, HISTORY and a gate record; two publishers take turns, so that neither takes
    away what the other is writing."""
    first, second = _current(store), _another(store, "second")
    store.keep_gate_record(second, {"outcome": "passed"})
    left = [store.folder / ".CURRENT-killed", store.folder / ".HISTORY-killed"]
    left.append(store.folder / "GATE" / f".{second}.json-killed")
    for path in left:
        path.write_text("half")
    with ThreadPoolExecutor(1) as other:
        with bundle._locked(store.folder):
            publishing = other.submit(store.publish, second)
            with pytest.raises(TimeoutError):
                publishing.result(0.3)
            assert _current(store) == first and left[0].exists()
        publishing.result(10)
    store.keep_gate_record(second, {"outcome": "forced"})
    assert not any(path.exists() for path in left)
    assert _current(store) == second and store.roll_back() == first
