"""The page of `aisle pareto`: the trade-off as a drawing and as a table, the choice, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.relevance import Table
from models.report.markup import Markup, element
from models.report.page import STYLE
from models.report.plots import trade_off_plot
from models.report.tables import shown, table

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def pareto_page(
    title: str,
    reason: str,
    drawings: Mapping[str, Sequence[tuple[str, float, float, str]]],
    tables: Mapping[str, Table],
    facts: Mapping[str, object],
) -> str:
    """The whole file, which loads nothing. `drawings`: of each measure, (setting, p50 in milliseconds, value, class) as
    `trade_off_plot` takes them."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(STYLE.read_text(encoding="utf-8"))),
    ]
    plots = [trade_off_plot(points, "p50 ms", measure) for measure, points in drawings.items()]
    body = [
        element("h1", title),
        element("p", reason),
        element("section", element("div", *plots, class_="pair")),
        *(
            element(
                "section", table(caption, one.columns, [["" if c is None else shown(c) for c in r] for r in one.rows])
            )
            for caption, one in tables.items()
        ),
        element("footer", element("dl", *(_fact(name, value) for name, value in facts.items()))),
    ]
    document = element("html", element("head", *head), element("body", element("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"


def _fact(name: str, value: object) -> Markup:
    return element("div", element("dt", name), element("dd", value))
