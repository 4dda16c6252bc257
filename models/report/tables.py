"""Tables and the figures in them, written one way everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.relevance import Interval
from models.report.markup import Markup, element, join

_LABELS = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "precision": "Precision", "recall": "Recall", "f1": "F1"}


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], *, class_: str | None = None) -> Markup:
    """Rows of cells under a head; the first cell of a row is its heading."""
    return grouped_table(caption, head, [element("tbody", *map(table_row, rows))], class_=class_)


def grouped_table(caption: str, head: Sequence[str], bodies: Sequence[Markup], *, class_: str | None = None) -> Markup:
    """A table of `tbody` elements, which scrolls inside its own frame where the screen is narrow."""
    top = element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
    lead = element("caption", element("span", caption, class_="lead"))
    whole = element("table", lead, top, *bodies, class_=class_)
    return element("div", whole, class_="scroll", tabindex=0, role="group", aria_label=caption)


def table_row(cells: Sequence[object]) -> Markup:
    """One row."""
    return element("tr", element("th", cells[0], scope="row"), *(element("td", cell) for cell in cells[1:]))


def shown(cell: object) -> Markup:
    """A cell of a `Table` as it stands in the page."""
    if isinstance(cell, Interval):
        return join([figure(cell.estimate), " ", element("small", ends(cell))])
    return join([figure(cell) if isinstance(cell, float) else cell])


def metric_name(metric: str) -> str:
    """ndcg@10 → nDCG@10; what is no metric stays as it is."""
    kind, at, cutoff = metric.partition("@")
    return f"{_LABELS.get(kind, kind)}{at}{cutoff}"


def figure(value: float) -> str:
    """Three decimals; a dash where it is not defined."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """With its sign, as wide for a loss as for a gain."""
    return f"{value:+.3f}".replace("-", "−")


def ends(interval: Interval) -> str:
    """[low, high]"""
    return f"[{figure(interval.low)}, {figure(interval.high)}]"


def signed_ends(interval: Interval) -> str:
    """[low, high] of a difference."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]"
