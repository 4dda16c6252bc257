"""Following what is published, whatever is published."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app import metrics
from app.errors import BundleError
from app.index import bundle
from app.index.bundle import BundleStore
from app.index.catalog import Catalog
from app.search import collections
from app.search.collections import Collections
from app.search.versions import Encoders, Served, load
from tests import tiny


@pytest.fixture
def store(tiny_bundles: Path, tmp_path: Path) -> BundleStore:
    """A private copy of the tiny bundle."""
    shutil.copytree(tiny_bundles, tmp_path / "bundles")
    return BundleStore(tmp_path / "bundles")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "_POLL_S", 0.01)


def _seal(
    store: BundleStore, note: str, *, like: BundleStore | None = None, whole: bool = True, encoder: Path | None = None
) -> str:
    """Another version with the same parts; one that is not `whole` cannot rank."""
    old = (like or store).path((like or store).current() or "")
    content = json.loads((old / "manifest.json").read_text())["content"] if whole else {}
    with store.building() as folder:
        for path in old.iterdir():
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        for path in encoder.iterdir() if encoder else ():
            shutil.copyfile(path, folder / path.name)
            (folder / "golden.json").write_text("[]")
        return store.seal(folder, {**content, "note": note})


def _refused() -> float:
    labels = {"collection": "default", "outcome": "refused"}
    return metrics.REGISTRY.get_sample_value("aisle_bundle_reloads_total", labels) or 0.0


def _refusals_are(count: float) -> bool:
    return _refused() == count


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


async def test_what_is_published_while_another_version_is_being_refused_is_served(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checking the broken one took so long that the good one came in between: the refusal is not held against it."""
    broken, good = _seal(store, "broken", whole=False), _seal(store, "good")

    def load_slowly(of: BundleStore, version: str, *others: Any) -> Served:
        if version == broken:
            (store.folder / "CURRENT").write_text(good)
        return load(of, version, *others)

    served = Collections(store.folder, "cpu")
    served.open()
    monkeypatch.setattr(collections, "load", load_slowly)
    before = _refused()
    served.follow()
    (store.folder / "CURRENT").write_text(broken)
    await _until(lambda: served.get("default").searcher.version == good)
    await served.close()
    assert _refused() == before + 1, "the broken one was never met"


async def test_whatever_a_version_raises_the_next_one_is_served(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody thought of refuses its version, and does not end the following."""
    first, bad, good = store.current(), _seal(store, "bad"), _seal(store, "good")
    served = Collections(store.folder, "cpu")
    served.open()
    before = _refused()
    with monkeypatch.context() as patched:

        def load_wildly(folder: Path) -> Catalog:
            raise ZeroDivisionError(folder.name)

        patched.setattr(Catalog, "load", load_wildly)
        served.follow()
        (store.folder / "CURRENT").write_text(bad)
        await _until(partial(_refusals_are, before + 1))
        assert served.get("default").searcher.version == first
    (store.folder / "CURRENT").write_text(good)
    await _until(lambda: served.get("default").searcher.version == good)
    await served.close()


async def test_a_refused_version_is_tried_again_once_another_was_published(store: BundleStore) -> None:
    """What failed may have been the machine: publishing it anew asks for another try."""
    first, bad = store.current(), _seal(store, "bad", whole=False)
    served = Collections(store.folder, "cpu")
    served.open()
    served.follow()
    for _ in range(2):
        before = _refused()
        (store.folder / "CURRENT").write_text(bad)
        await _until(partial(_refusals_are, before + 1))
        (store.folder / "CURRENT").write_text(str(first))
        await _until(lambda: not served._refused)
    await served.close()


async def test_a_version_that_could_not_be_read_is_tried_again(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that had no descriptors left for a moment does not stay behind the others; the refusal is counted once.
    One that was read and found wrong is not read again."""
    monkeypatch.setattr(collections, "_AGAIN_S", 0.05)
    good, bad = _seal(store, "good"), _seal(store, "bad", whole=False)
    served = Collections(store.folder, "cpu")
    served.open()
    tries: list[str] = []
    whole = BundleStore._verify

    def verify(self: BundleStore, version: str) -> Any:
        tries.append(version)
        if tries.count(good) in (1, 2):
            raise OSError(24, "Too many open files", "catalog.json")
        return whole(self, version)

    monkeypatch.setattr(BundleStore, "_verify", verify)
    before = _refused()
    served.follow()
    (store.folder / "CURRENT").write_text(good)
    await _until(lambda: served.get("default").searcher.version == good)
    assert tries.count(good) == 3 and _refused() == before + 1
    (store.folder / "CURRENT").write_text(bad)
    await _until(partial(_refusals_are, before + 2))
    await asyncio.sleep(0.3)
    await served.close()
    assert tries.count(bad) == 1


async def test_a_garbled_current_is_counted_once(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every look: the old version goes on, and the log stays readable."""
    served = Collections(store.folder, "cpu")
    served.open()
    looks, whole = 0, bundle.collections_in

    def look(root: Path) -> list[str]:
        nonlocal looks
        looks += 1
        return whole(root)

    monkeypatch.setattr(bundle, "collections_in", look)
    before = _refused()
    (store.folder / "CURRENT").write_text("soon")
    served.follow()
    await _until(lambda: looks >= 10)
    await served.close()
    assert _refused() == before + 1


async def test_one_collection_that_cannot_be_read_does_not_hold_up_the_others(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`default` is looked at first and its new version cannot be opened; `other`, new as well, is served."""
    other = BundleStore(store.folder, "other")
    served = Collections(store.folder, "cpu")
    served.open()
    whole = BundleStore.verify

    def verify(self: BundleStore, version: str) -> Any:
        if self.collection == "default":
            raise PermissionError(13, "Permission denied")
        return whole(self, version)

    (store.folder / "CURRENT").write_text(_seal(store, "unreadable"))
    other.publish(_seal(other, "other", like=store))
    monkeypatch.setattr(BundleStore, "verify", verify)
    served.follow()
    await _until(lambda: "other" in served.all())
    await served.close()


def test_a_version_like_the_one_served_takes_over_its_costs(store: BundleStore, tmp_path: Path) -> None:
    """What is measured beside searches would refuse the first of them; with another encoder it is measured anew."""
    encoders = Encoders("cpu")
    first = load(store, store.current() or "", encoders)
    for _ in range(50):
        first.searcher.costs.seen("default", 40.0)
    like = load(store, _seal(store, "same"), encoders, "cpu", first)
    assert like.searcher.costs.ms("default") > 20.0
    other = _seal(store, "changed", encoder=tiny.write_encoder(tmp_path / "changed", seed=5))
    assert 0.0 < load(store, other, encoders, "cpu", first).searcher.costs.ms("default") < 20.0


def test_an_encoder_that_no_version_uses_any_more_is_let_go(store: BundleStore, tmp_path: Path) -> None:
    """Two versions with one encoder share it; a service that follows changing encoders does not keep them all."""
    encoders = Encoders("cpu")
    first, second = load(store, store.current() or "", encoders), load(store, _seal(store, "same"), encoders)
    assert first.searcher.encoder is second.searcher.encoder
    gone = weakref.ref(first.searcher.encoder)
    changed = _seal(store, "changed", encoder=tiny.write_encoder(tmp_path / "changed", seed=5))
    third = load(store, changed, encoders)
    del first, second
    gc.collect()
    assert gone() is None and third.searcher.encoder is not None


def test_a_folder_that_cannot_be_read_is_an_error_of_the_bundle(tmp_path: Path) -> None:
    """So that start-up says so in one line."""
    with pytest.raises(BundleError, match="cannot be read"):
        Collections(tmp_path / ("x" * 300), "cpu").open()
