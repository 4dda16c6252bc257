"""A shop tunes what it serves: it gains where its judgements teach something, and keeps what it has where not."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.index.bundle import BundleStore, read_manifest
from app.search.golden import GOLDEN
from models.relevance import Qrels, Queries
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import open_current
from tests.models.report.reading import Page, outside

Told = pytest.CaptureFixture[str]
_SIZES = tuple(range(11, 19))
_QUERIES = 40


@dataclass(frozen=True)
class Shop:
    """A published version, and two sets of judgements of the same queries and products."""

    bundles: Path
    by_size: list[str]
    by_chance: list[str]


@pytest.fixture(scope="module")
def shop(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Products with a size at the front of their titles, where it is nobody's head noun. To `by_size` the size decides,
    to which untuned weights are blind; to `by_chance` a die."""
    folder = tmp_path_factory.mktemp("sized")
    random = np.random.default_rng(5)
    rows = [
        {**row, "title": f"{_SIZES[int(random.integers(len(_SIZES)))]} {row['title']}"} for row in tiny.products(160)
    ]
    catalogue = tiny.write_catalogue(folder / "products.jsonl", rows)
    built = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(folder / "b")]
    assert aisle([*built, "--force", "a fixture"]) == 0
    texts, by_size, by_chance = {}, {}, {}
    for number in range(_QUERIES):
        asked = rows[int(random.integers(len(rows)))]
        texts[f"q{number}"] = asked["title"]
        size = asked["title"].split()[0]
        by_size[f"q{number}"] = {row["id"]: 3.0 if row["title"].startswith(size) else 0.0 for row in rows}
        by_chance[f"q{number}"] = {row["id"]: 3.0 * float(random.random() < 0.1) for row in rows}
    return Shop(folder / "b", _saved(folder / "size", texts, by_size), _saved(folder / "chance", texts, by_chance))


def _saved(folder: Path, texts: dict[str, str], grades: dict[str, dict[str, float]]) -> list[str]:
    folder.mkdir()
    Queries(texts).save(folder / "q.tsv")
    Qrels(grades).save(folder / "r.tsv")
    return ["--queries", str(folder / "q.tsv"), "--qrels", str(folder / "r.tsv")]


def _tuned(bundles: Path, judged: list[str], capsys: Told, *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert aisle(["tune", "--bundles", str(bundles), *judged, "--json", *more]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_what_the_judgements_reward_is_moved_and_published(shop: Shop, tmp_path: Path, capsys: Told) -> None:
    """The weight of `numbers`, 0 before, grows; nDCG@10 gains out-of-fold; the other parts are the same bytes in files
    of their own, and the judgements of the gate are added; the next time there is nothing to gain."""
    bundles = tmp_path / "b"
    shutil.copytree(shop.bundles, bundles)
    store = BundleStore(bundles)
    before = store.current() or ""
    page = tmp_path / "page.html"
    value = _tuned(bundles, shop.by_size, capsys, "--html", str(page))
    moved = {move["what"]: move for move in value["moves"]}
    assert moved["numbers"]["before"] == 0 and moved["numbers"]["after"] > 0
    ndcg = next(one for one in value["comparisons"] if one["metric"] == "ndcg@10")
    assert ndcg["difference"]["low"] > 0.05
    assert value["published"] is True and store.current() == value["version"] != before

    old, new = read_manifest(store.path(before)), read_manifest(store.path(value["version"]))
    assert {name for name in old.parts if old.parts[name] != new.parts.get(name)} == {GOLDEN}
    assert new.parts.keys() - old.parts.keys() == {"gate.queries.tsv", "gate.qrels.tsv"}
    assert all(path.stat().st_nlink == 1 for path in store.path(value["version"]).iterdir())
    evidence = new.content["tuning"]
    assert evidence["before"] == before and evidence["comparisons"] == value["comparisons"]
    assert evidence["queries"] == Queries.load(Path(shop.by_size[1])).digest
    assert evidence["qrels"] == Qrels.load(Path(shop.by_size[3])).digest
    assert (evidence["seed"], evidence["folds"]) == (0, 5)
    assert open_current(bundles).ranking.to_json() == new.content["ranking"]

    read = Page(page.read_text(encoding="utf-8"))
    assert outside(read) == [] and "numbers" in read.text and before in read.text

    again = _tuned(bundles, shop.by_size, capsys)
    assert again["version"] is None and store.current() == value["version"]


def test_judgements_by_chance_change_nothing(shop: Shop, capsys: Told) -> None:
    """Nothing is better beyond doubt: no version is made, the served one stays, and that is no failure."""
    store = BundleStore(shop.bundles)
    before, versions = store.current(), store.versions()
    assert aisle(["tune", "--bundles", str(shop.bundles), *shop.by_chance]) == 0
    assert f"nothing to gain: {before} stays" in capsys.readouterr().out
    assert (store.current(), store.versions()) == (before, versions)


def test_a_version_can_be_made_without_being_served(shop: Shop, tmp_path: Path, capsys: Told) -> None:
    """--no-publish seals it beside the served one."""
    bundles = tmp_path / "b"
    shutil.copytree(shop.bundles, bundles)
    store = BundleStore(bundles)
    before = store.current()
    value = _tuned(bundles, shop.by_size, capsys, "--no-publish")
    assert value["version"] in store.versions() and value["published"] is False
    assert store.current() == before


def test_too_few_queries_are_refused_by_name(shop: Shop, tmp_path: Path, capsys: Told) -> None:
    """Four queries make no five folds."""
    texts = {f"q{number}": f"mug {number}" for number in range(4)}
    judged = _saved(tmp_path / "few", texts, {one: {"p001": 3.0, "p002": 0.0} for one in texts})
    assert aisle(["tune", "--bundles", str(shop.bundles), *judged]) == 1
    assert "cannot split 4 distinct queries into 5 folds" in capsys.readouterr().err
