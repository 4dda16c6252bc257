"""aisle fold, and what a build makes of changes that its catalogue has, or lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.index.bundle import BundleStore, read_manifest
from app.index.changes import ChangeLog, Edit
from app.search.live import LiveVersion
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from app.types import SearchRequest
from scripts.cli import main as aisle
from tests import tiny
from tests.search.test_live import _answer


@pytest.fixture
def bundles(tiny_bundles: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundles, tmp_path / "bundles"))


def _live(bundles: Path) -> tuple[LiveVersion, Searcher]:
    store = BundleStore(bundles)
    version = store.current() or ""
    live = LiveVersion(load(store, version, Encoders("cpu")), store.path(version), bundles / "changes")
    while live.listen():
        live.step()
    return live, live.served.searcher


def _keep(bundles: Path, *edits: Edit) -> None:
    ChangeLog(bundles / "changes").append([list(edits)])


_EDITS = (
    Edit("put", "new", {"title": "zebra mug of steel", "price": 3.0, "brand": "Zeta"}),
    Edit("patch", "p005", {"price": 0.5}),
    Edit("delete", "p001", {}),
)


def test_a_fold_makes_a_version_of_what_is_live(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same products, nothing left to take in; its statistics are its own, so scores may differ, finds do not."""
    _keep(bundles, *_EDITS)
    before, searcher = _live(bundles)
    assert before.changed == 3
    assert aisle(["fold", "--bundles", str(bundles), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["published"] and told["vectors"]["reused"] >= 58
    after, folded = _live(bundles)
    assert after.changed == 0 and folded.version == told["version"] != searcher.version
    assert list(after.products()) == list(before.products())
    ids = [_ids(one, "zebra steel mug") for one in (searcher, folded)]
    assert ids[0][0] == ids[1][0] == "new"
    manifest = json.loads((BundleStore(bundles).path(told["version"]) / "manifest.json").read_bytes())
    assert manifest["content"]["changes"]["sequence"] == 3


def test_changes_after_a_fold_are_taken_in_over_it(bundles: Path) -> None:
    """And those before it are not taken in twice, though they stay in the log."""
    _keep(bundles, *_EDITS)
    assert aisle(["fold", "--bundles", str(bundles)]) == 0
    _keep(bundles, Edit("patch", "new", {"price": 9.0}))
    live, searcher = _live(bundles)
    assert live.changed == 1 and live.sequence == 4
    assert json.loads(searcher.product("new"))["product"]["price"] == 9.0
    assert searcher.catalog.row("p001") is None


def test_a_roll_back_over_a_fold_loses_no_change(bundles: Path) -> None:
    """The version before it takes them in again."""
    _keep(bundles, *_EDITS)
    assert aisle(["fold", "--bundles", str(bundles)]) == 0
    assert aisle(["rollback", "--bundles", str(bundles)]) == 0
    live, searcher = _live(bundles)
    assert live.changed == 3 and searcher.catalog.row("new") is not None


def test_nothing_changed_is_nothing_to_fold(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The served version stays."""
    assert aisle(["fold", "--bundles", str(bundles), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == 0
    assert len(BundleStore(bundles).versions()) == 1


@pytest.mark.parametrize(("as_of", "price"), [("2001-01-01T00:00:00Z", 0.5), ("2101-01-01T00:00:00Z", None)])
def test_a_build_keeps_changes_that_are_younger_than_its_catalogue(
    bundles: Path, tiny_encoder: Path, tmp_path: Path, as_of: str, price: float | None
) -> None:
    """One exported before the change is altered by it when it is served; one exported afterwards knows better."""
    _keep(bundles, Edit("patch", "p005", {"price": 0.5}))
    catalogue = tiny.write_catalogue(tmp_path / "products.jsonl", tiny.products(61))
    command = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(bundles), "--as-of", as_of]
    assert aisle([*command, "--force", "a test"]) == 0
    _, searcher = _live(bundles)
    assert searcher.catalog.products == 61
    found: dict[str, Any] = json.loads(searcher.product("p005"))["product"]
    assert found.get("price") == price


def _ids(searcher: Searcher, text: str) -> list[str]:
    return [hit["id"] for hit in _answer(searcher, SearchRequest(text, k=60))["hits"]]


def test_a_fold_keeps_what_was_tuned(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recommended way to serve; a breadth where the index has one (a flat one has none)."""
    store = BundleStore(bundles)
    source = store.path(store.current() or "")
    manifest = read_manifest(source)
    with store.building() as folder:
        for name in manifest.parts:
            shutil.copyfile(source / name, folder / name)
        store.publish(store.seal(folder, {**manifest.content, "serving": {"cores": 2, "processes": 1}}))
    _keep(bundles, *_EDITS)
    assert aisle(["fold", "--bundles", str(bundles), "--json"]) == 0
    folded = read_manifest(store.path(json.loads(capsys.readouterr().out)["version"]))
    assert folded.content["serving"] == {"cores": 2, "processes": 1}
    assert "nprobe" not in folded.content["dense"]
