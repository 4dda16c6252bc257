"""aisle ladder through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.relevance import Qrels, Queries
from scripts.cli import main as aisle


def _judged(folder: Path, query_id: str) -> list[str]:
    Queries({"a": "steel mug", "b": "bright lamp"}).save(folder / "q.tsv")
    Qrels({query_id: {"p005": 3.0, "p011": 0.0}}).save(folder / "r.tsv")
    return ["--queries", str(folder / "q.tsv"), "--qrels", str(folder / "r.tsv")]


def test_the_ladder_is_one_json_object_with_its_tables(
    tiny_bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiers, blends and parts, each as figures and as markdown; without timings where none are wanted."""
    assert aisle(["ladder", "--bundles", str(tiny_bundles), *_judged(tmp_path, "a"), "--json", "--no-latency"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["queries"] == 1 and value["out_of_fold"] is False
    assert {row["ranking"] for row in value["tiers"]} >= {"lexical", "default", "dense"}
    assert {row["ranking"] for row in value["fixed blends"]} >= {"BM25", "zero-shot", "RRF", "min-max 0.5"}
    assert all("p50 ms" not in row for row in value["tiers"])
    assert value["default with one part less"]
    assert all(table.startswith("| ") for table in value["markdown"].values())


def test_judgements_of_other_queries_are_refused(
    tiny_bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong pair of files is no ladder."""
    assert aisle(["ladder", "--bundles", str(tiny_bundles), *_judged(tmp_path, "other")]) == 1
    assert "none of the queries has judgements" in capsys.readouterr().err
