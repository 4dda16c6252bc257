"""The learning curve as files: `curve.csv` for programs, `curve.html` for people. Needs no torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from models.report.markup import Markup, element
from models.report.page import STYLE
from models.report.plots import learning_plot

COLUMNS = ("step", "loss", "recall", "mrr", "minutes")


class Point(Protocol):
    """See models.training.checkpoint.Point."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def recall(self) -> float: ...
    @property
    def mrr(self) -> float: ...
    @property
    def minutes(self) -> float: ...


def write_csv(points: Sequence[Point], path: Path) -> None:
    """One row a point; what is not known is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for point in points:
            writer.writerow(["" if math.isnan(value := getattr(point, name)) else f"{value:.6g}" for name in COLUMNS])


def write_page(points: Sequence[Point], path: Path, title: str, facts: Mapping[str, str]) -> None:
    """A page with the loss and the held-out recall over the steps, and what was trained."""
    losses = [(point.step, point.loss) for point in points if not math.isnan(point.loss)]
    recalls = [(point.step, point.recall) for point in points if not math.isnan(point.recall)]
    plots = [learning_plot("Loss", losses)] if losses else []
    if recalls:
        plots.append(learning_plot("Recall@10 of held-out queries", recalls))
    terms = [element("div", element("dt", name), element("dd", value)) for name, value in facts.items()]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE.read_text(encoding="utf-8"))),
    ]
    body = element("main", element("h1", title), *(element("section", plot) for plot in plots), element("dl", *terms))
    document = element("html", element("head", *head), element("body", body), lang="en")
    path.write_text(f"<!doctype html>\n{document}\n", encoding="utf-8")
