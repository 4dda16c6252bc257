"""The curve's files hold its points."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace

from models.training.curve import COLUMNS, write_csv, write_page

POINTS = [
    SimpleNamespace(step=0, loss=math.nan, recall=0.1, mrr=0.05, minutes=0.0),
    SimpleNamespace(step=10, loss=2.5, recall=math.nan, mrr=math.nan, minutes=0.1),
    SimpleNamespace(step=20, loss=1.25, recall=0.5, mrr=0.25, minutes=0.2),
]


def test_the_table_has_a_row_a_point_and_blanks_for_what_is_unknown(tmp_path: Path) -> None:
    """A program reads it back."""
    write_csv(POINTS, tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["loss"] for row in rows] == ["", "2.5", "1.25"]
    assert [row["recall"] for row in rows] == ["0.1", "", "0.5"]


def test_the_page_draws_loss_and_recall_and_escapes_its_facts(tmp_path: Path) -> None:
    """Two drawings; nothing in a name can become markup."""
    write_page(POINTS, tmp_path / "curve.html", "Training of <x>", {"seed": "<b>0</b>"})
    page = (tmp_path / "curve.html").read_text("utf-8")
    assert page.count("<svg") == 2
    assert "2.500 at step 10, 1.250 at step 20" in page
    assert "<b>" not in page and "&lt;x&gt;" in page


def test_a_run_without_held_out_queries_has_one_drawing(tmp_path: Path) -> None:
    """No empty axes."""
    write_page(POINTS[1:2], tmp_path / "curve.html", "x", {})
    assert (tmp_path / "curve.html").read_text("utf-8").count("<svg") == 1
