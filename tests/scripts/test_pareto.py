"""aisle pareto through the command line: what it chooses is in the next version, and is what is served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.index.bundle import BundleStore, read_manifest
from app.index.dense import FaissIndex
from app.search.golden import GOLDEN
from app.search.searcher import Searcher
from app.settings import Settings
from models.relevance import Qrels, Queries
from models.serving import machine
from scripts.cli import main as aisle
from scripts.output import Output
from scripts.serve import as_recommended
from tests import tiny
from tests.conftest import open_current
from tests.models.report.reading import Page, outside

Told = pytest.CaptureFixture[str]
_QUICK = ("--rounds", "2", "--json")


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    """Three searches."""
    Queries({"a": "steel mug", "b": "bright lamp", "c": "quiet wooden speaker"}).save(tmp_path / "q.tsv")
    return tmp_path / "q.tsv"


@pytest.fixture
def bundles(tiny_bundles: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be tuned."""
    return Path(shutil.copytree(tiny_bundles, tmp_path / "b"))


@pytest.fixture
def listed(tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four hundred products in lists, as a large catalogue's are."""
    monkeypatch.setattr("app.index.dense.FLAT_UP_TO", 100)
    monkeypatch.setattr("app.index.dense._ROUGHLY", 1)
    catalogue = tiny.write_catalogue(tmp_path / "products.jsonl", tiny.products(400))
    built = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(tmp_path / "listed")]
    assert aisle([*built, "--force", "a fixture"]) == 0
    return tmp_path / "listed"


def _told(capsys: Told, code: int, bundles: Path, queries: Path, *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert aisle(["pareto", "--bundles", str(bundles), "--queries", str(queries), *_QUICK, *more]) == code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes what it looks at: a millisecond for a hundred products a leg, and one for a hundred lists."""

    def price(searcher: Searcher, text: str) -> float:
        index = searcher.vectors
        assert isinstance(index, FaissIndex)
        return (searcher.ranking.profiles["default"].depth + index.breadth) / 100

    monkeypatch.setattr("models.pareto._search", price)


@pytest.mark.usefixtures("priced")
def test_the_choice_is_written_into_the_next_version(
    bundles: Path, queries: Path, tmp_path: Path, capsys: Told
) -> None:
    """The quickest within the floor is served; every part but the golden answers is the same, byte for byte; legs that
    answer alone keep their depth; the page loads nothing. The next time nothing moves."""
    store = BundleStore(bundles)
    before = store.current() or ""
    page = tmp_path / "p.html"
    options = ("--p99-ms", "1.5", "--depths", "20,150", "--prefer", "speed", "--least-recall", "0.1", "--no-load")
    value = _told(capsys, 0, bundles, queries, *options, "--html", str(page))
    depths = {one["depth"]: one for one in value["settings"]}
    assert depths.keys() == {20, 150, 200} and depths[20]["dense recall@100"] == pytest.approx(1 / 3, abs=1e-3)
    assert value["chosen"] == depths[20] and value["chosen"]["p99_ms"] == 0.2
    read = Page(page.read_text(encoding="utf-8"))
    assert outside(read) == [] and before in read.text and value["version"] in read.text and read.count("svg") == 2

    assert value["published"] is True and store.current() == value["version"] != before
    old, new = read_manifest(store.path(before)), read_manifest(store.path(value["version"]))
    assert {name for name in old.parts if old.parts[name] != new.parts.get(name)} <= {GOLDEN}
    assert all(path.stat().st_nlink == 1 for path in store.path(value["version"]).iterdir())
    assert new.content["pareto"]["chosen"] == value["chosen"] and new.content["pareto"]["before"] == before
    served = open_current(bundles).ranking.profiles
    assert (served["default"].depth, served["lexical"].depth) == (20, 200)

    again = _told(capsys, 0, bundles, queries, *options)
    assert again["version"] is None and store.current() == value["version"]


@pytest.mark.usefixtures("priced")
def test_goal_and_floor_together_may_leave_nobody(bundles: Path, queries: Path, capsys: Told) -> None:
    """The one is quick enough, the other finds enough: exit code 3, and both are said of the nearest."""
    options = ("--p99-ms", "1", "--depths", "20", "--least-recall", "0.9", "--no-load")
    value = _told(capsys, 3, bundles, queries, *options)
    assert "the nearest, depth 20, misses dense recall@100 by 63.0%" in value["error"]
    met = _told(capsys, 0, bundles, queries, "--p99-ms", "2", "--depths", "20", "--least-recall", "0.9", "--no-load")
    assert met["chosen"]["depth"] == 200 and met["version"] is None


def test_a_goal_that_nobody_meets_is_refused(bundles: Path, queries: Path, capsys: Told) -> None:
    """A microsecond: exit code 3, the nearest with what it misses by, the tables all the same; nothing is made."""
    store = BundleStore(bundles)
    versions = store.versions()
    value = _told(capsys, 3, bundles, queries, "--p99-ms", "0.001")
    assert "no setting keeps to p99 0.001 ms" in value["error"] and "the nearest, depth" in value["error"]
    assert value["chosen"] is None and value["settings"] and value["exit_code"] == 3
    assert store.versions() == versions


def test_judgements_decide_and_are_left_to_the_gate(bundles: Path, queries: Path, tmp_path: Path, capsys: Told) -> None:
    """nDCG@10 and recall@100 are among the figures, each setting's and the chosen one's."""
    Qrels({"a": {"p005": 3.0, "p011": 0.0}, "b": {"p004": 3.0}}).save(tmp_path / "r.tsv")
    options = ("--qrels", str(tmp_path / "r.tsv"), "--p99-ms", "10000", "--no-load", "--no-publish")
    value = _told(capsys, 0, bundles, queries, *options)
    assert all({"ndcg@10", "recall@100", "top ten kept"} <= one.keys() for one in value["settings"])
    assert value["goal"]["least_ndcg"] == 0.99
    assert value["published"] is False


@pytest.mark.usefixtures("priced")
def test_lists_read_are_chosen_written_and_applied_on_load(listed: Path, queries: Path, capsys: Told) -> None:
    """The number of lists is in the manifest, the loaded index reads as many, and finds less than when it read all."""
    store = BundleStore(listed)
    before = open_current(listed)
    assert isinstance(before.vectors, FaissIndex)
    assert read_manifest(store.path(store.current() or "")).content["dense"]["nprobe"] == 208
    options = ("--p99-ms", "1", "--depths", "20", "--breadths", "1,400", "--least-recall", "0.01", "--prefer", "speed")
    value = _told(capsys, 0, listed, queries, *options, "--no-load", "--force", "a test")
    assert len({(one["depth"], one["nprobe"]) for one in value["settings"]}) == 3
    chosen = value["chosen"]
    after = open_current(listed)
    assert isinstance(after.vectors, FaissIndex)
    assert read_manifest(store.path(value["version"])).content["dense"]["nprobe"] == chosen["nprobe"]
    assert after.vectors.breadth == chosen["nprobe"] == after.vectors.reads(20) < before.vectors.reads(200)
    probes = np.random.default_rng(1).standard_normal((40, after.vectors.dimension)).astype(np.float32)
    exact = [set(before.vectors.exact().search(one, 20, None)[0].tolist()) for one in probes]
    shares = []
    for index in (before.vectors, after.vectors):
        found = [set(index.search(one, 20, None)[0].tolist()) for one in probes]
        shares.append(sum(len(one & top) for one, top in zip(found, exact, strict=True)) / (20 * len(exact)))
    assert shares[1] < shares[0]


def test_the_way_to_serve_is_found_under_load_and_recommended(bundles: Path, queries: Path, capsys: Told) -> None:
    """In processes of their own; the manifest says for which machine."""
    store = BundleStore(bundles)
    load = ("--rate", "50", "--seconds", "0.1")
    value = _told(capsys, 0, bundles, queries, "--p99-ms", "10000", *load, "--no-publish")
    (ways,) = value["load"].values()
    assert len(ways) == len({(one["processes"], one["workers"], one["max_batch"]) for one in ways}) > 3
    if value["version"] is not None:
        found = read_manifest(store.path(value["version"])).content["serving"]
        assert {name: found[name] for name in machine()} == machine() and found["processes"] >= 1


@pytest.mark.usefixtures("priced")
def test_a_setting_too_slow_under_load_is_refused(bundles: Path, queries: Path, capsys: Told) -> None:
    """Alone all of them keep to two milliseconds; of six thousand searches a second nobody does."""
    load = ("--rate", "6000", "--seconds", "0.02", "--p99-ms", "2", "--least-recall", "0.1", "--depths", "20,200")
    value = _told(capsys, 3, bundles, queries, *load)
    assert "under 6000 searches/s no setting keeps to p99 2 ms" in value["error"]
    assert "the nearest, depth" in value["error"] and value["chosen"] is None and value["version"] is None
    assert BundleStore(bundles).versions() == [value["before"]]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--p99-ms", "0"),
        ("--p99-ms", "5", "--least-recall", "2"),
        ("--p99-ms", "5", "--least-ndcg", "0.9"),
        ("--p99-ms", "5", "--depths", "3"),
        ("--p99-ms", "5", "--rate", "nan"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_measured(
    wrong: tuple[str, ...], bundles: Path, queries: Path, capsys: Told
) -> None:
    """By the name of the option."""
    value = _told(capsys, 1, bundles, queries, *wrong)
    assert wrong[-2] in value["error"]


def _recommending(bundles: Path, **other: Any) -> None:
    """The published version's parts under a manifest that recommends."""
    store = BundleStore(bundles)
    source = store.path(store.current() or "")
    manifest = read_manifest(source)
    found = {**machine(), "processes": 1, "workers": 3, "max_batch": 2, **other}
    with store.building() as folder:
        for name in manifest.parts:
            shutil.copyfile(source / name, folder / name)
        store.publish(store.seal(folder, {**manifest.content, "serving": found}))


def test_a_recommendation_is_taken_where_nobody_says_otherwise(bundles: Path) -> None:
    """Not where one of the three is set, even to its default."""
    _recommending(bundles)
    output = Output(as_json=True)
    taken = as_recommended(Settings.from_environment({"AISLE_BUNDLES": str(bundles)}), output)
    assert (taken.processes, taken.workers, taken.max_batch) == (1, 3, 2)
    for name in ("PROCESSES", "WORKERS", "MAX_BATCH"):
        told = Settings.from_environment({"AISLE_BUNDLES": str(bundles), f"AISLE_{name}": "0"})
        assert as_recommended(told, output) is told


@pytest.mark.parametrize("other", [{"cores": 4096}, {"provider": "other"}, {"workers": -1}, {"workers": "many"}])
def test_a_recommendation_for_another_machine_or_of_nonsense_is_left_out(other: dict[str, Any], bundles: Path) -> None:
    """The service starts as if there were none."""
    _recommending(bundles, **other)
    settings = Settings.from_environment({"AISLE_BUNDLES": str(bundles)})
    assert as_recommended(settings, Output(as_json=True)) is settings


def test_bundles_that_cannot_be_read_recommend_nothing(tmp_path: Path, bundles: Path) -> None:
    """No folder, no version, a broken CURRENT: the start says what is wrong."""
    for folder in (tmp_path / "none", bundles):
        settings = Settings.from_environment({"AISLE_BUNDLES": str(folder)})
        assert as_recommended(settings, Output(as_json=True)) is settings
        (bundles / "CURRENT").write_text("nonsense")
