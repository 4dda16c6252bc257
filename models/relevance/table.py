"""Figures as a table: for a terminal, for Markdown, for another program."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.relevance.compare import RESAMPLES, Comparison, Interval, intervals
from models.relevance.metrics import Evaluation

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """Named columns and rows of cells; each row is as long as ``columns`` (ValueError otherwise)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    decimals: int = 3

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} columns")

    def text(self) -> str:
        """Aligned columns, numbers to the right, a rule under the head."""
        widths, lines = self._layout([list(self.columns), *self._cells()])
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])

    def markdown(self) -> str:
        """A GitHub table, numbers to the right."""
        head = [column.replace("|", "\\|") for column in self.columns]
        marks = ["---:" if right else "---" for right in self._to_the_right()]
        body = [[cell.replace("|", "\\|") for cell in row] for row in self._cells()]
        return "\n".join(f"| {' | '.join(row)} |" for row in [head, marks, *body])

    def json(self) -> str:
        """A list of objects with the figures in full; an interval is ``{estimate, low, high}``, nan is null."""
        rows = [{column: _plain(cell) for column, cell in zip(self.columns, row, strict=True)} for row in self.rows]
        return json.dumps(rows, ensure_ascii=False, allow_nan=False)

    def _cells(self) -> list[list[str]]:
        return [[_shown(cell, self.decimals) for cell in row] for row in self.rows]

    def _to_the_right(self) -> list[bool]:
        return [
            bool(self.rows) and not any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))
        ]

    def _layout(self, rows: list[list[str]]) -> tuple[list[int], list[str]]:
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        right = self._to_the_right()
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
            for row in rows
        ]
        return widths, lines


def evaluation_table(evaluations: Sequence[Evaluation], *, resamples: int = RESAMPLES, seed: int = 0) -> Table:
    """One row per run: its queries, those dropped, and each metric's mean with its interval.

    Raises ValueError unless all were evaluated on the same metrics.
    """
    if not evaluations:
        raise ValueError("nothing to show")
    metrics = tuple(evaluations[0].values)
    rows: list[tuple[Cell, ...]] = []
    for evaluation in evaluations:
        if tuple(evaluation.values) != metrics:
            raise ValueError(f"{evaluation.name!r} was evaluated on other metrics")
        figures = intervals(evaluation, resamples=resamples, seed=seed)
        dropped = len(evaluation.without_relevant)
        rows.append((evaluation.name, len(evaluation.query_ids), dropped, *(figures[metric] for metric in metrics)))
    return Table(("run", "queries", "dropped", *metrics), tuple(rows))


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per comparison: both means, the paired difference with its interval, Holm's p, and who won."""
    head = ("candidate", "baseline", "metric", "queries", "candidate mean", "baseline mean", "difference", "p (Holm)")
    rows: list[tuple[Cell, ...]] = []
    for c in comparisons:
        means = (c.candidate_mean, c.baseline_mean, c.difference)
        rows.append((c.candidate, c.baseline, c.metric, c.n_queries, *means, c.p_holm, c.wins, c.ties, c.losses))
    return Table((*head, "wins", "ties", "losses"), tuple(rows))


def _shown(cell: Cell, decimals: int) -> str:
    match cell:
        case None:
            return "-"
        case Interval(estimate, low, high):
            return f"{estimate:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
        case float():
            return f"{cell:.{decimals}f}" if math.isfinite(cell) else "-"
        case _:
            return str(cell)


def _plain(cell: Cell) -> object:
    match cell:
        case Interval(estimate, low, high):
            return {"estimate": _plain(estimate), "low": _plain(low), "high": _plain(high)}
        case float():
            return float(cell) if math.isfinite(cell) else None
        case _:
            return cell
