"""The page: the verdict first, then what it rests on, then the queries themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from models.relevance import Comparison, Interval
from models.relevance.compare import TIE
from models.report.curves import RECALL, precision_recall, reliability
from models.report.markup import Markup, element, foreign, join
from models.report.measurement import HEADLINE, Measurement
from models.report.plots import difference_plot, interval_mark, precision_recall_plot, reliability_plot, swatch
from models.report.queries import differences_by_query, queries
from models.report.segments import TOO_FEW, segment_figures, segments
from models.report.tables import (
    ends,
    figure,
    grouped_table,
    metric_name,
    shown,
    signed,
    signed_ends,
    table,
    table_row,
)

STYLE = Path(__file__).with_name("page.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # nothing in the page can run or load, whatever it holds
LEAST_P = 0.001  # smaller ones are told as "less than"
_FLOOR = "series-floor"


def page(measured: Measurement, title_of: Callable[[str], str], facts: Mapping[str, str]) -> str:
    """The whole file. `title_of` gives a product's title by id; `facts` are the lines of the footer, by name."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"Relevance of {measured.version}"),
        element("style", Markup(STYLE.read_text(encoding="utf-8"))),
    ]
    differences = differences_by_query(measured)
    losses = [query_id for query_id, by in reversed(differences) if by < -TIE]
    gains = [query_id for query_id, by in differences if by > TIE]
    over = f"{measured.profile} − {measured.better_leg.name}"
    body = [
        _header(measured),
        _section("Runs", _runs(measured)),
        _section("Compared query by query", _comparisons(measured)),
        _section("For whom", _segments(measured)),
        element("div", _precision_recall(measured), _calibration(measured), class_="pair"),
        _section("Where it is better and where worse", _difference_figure(measured, differences, over)),
        _section(f"The worst queries: {over}", *queries(measured, losses, title_of)),
        _section(f"The best queries: {over}", *queries(measured, gains, title_of)),
        element("footer", element("dl", *(_fact(name, value) for name, value in facts.items()))),
    ]
    document = element("html", element("head", *head), element("body", element("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"


def _header(measured: Measurement) -> Markup:
    against = [
        element(
            "li",
            element("strong", signed(one.difference.estimate)),
            f" {metric_name(one.metric)} against {one.baseline}, 95 % interval {signed_ends(one.difference)}, "
            f"p {_p(one) if one.p_holm < LEAST_P else f'= {_p(one)}'}",
        )
        for one in measured.comparisons
        if one.metric == HEADLINE
    ]
    basis = f"{len(measured.candidate.query_ids):,} judged queries, version {measured.version}; {measured.note}."
    return element("header", element("h1", measured.verdict), element("ul", *against), element("p", basis))


def _runs(measured: Measurement) -> Markup:
    figures, styles = measured.table, _styles(measured)
    order = [0, *range(3, len(figures.columns)), 1, 2]  # on a phone the figures come into sight before the counts
    rows = [
        [join([swatch(styles[str(row[0])]), " ", row[0]]), *(shown(row[at]) for at in order[1:])]
        for row in figures.rows
    ]
    caption = (
        "Mean over queries, with its 95 % bootstrap interval. Dropped are queries without a relevant product; the "
        "random order is what chance reaches."
    )
    return table(caption, [metric_name(figures.columns[at]) for at in order], rows)


def _comparisons(measured: Measurement) -> Markup:
    reach = _reach([one.difference for one in measured.comparisons])
    rows = [
        [
            f"{one.candidate} − {one.baseline}",
            metric_name(one.metric),
            _difference(one.difference, reach),
            _p(one),
            *(str(count) for count in (one.wins, one.ties, one.losses)),
            figure(one.candidate_mean),
            figure(one.baseline_mean),
        ]
        for one in measured.comparisons
    ]
    caption = (
        "Paired differences with 95 % bootstrap intervals; p by a two-sided randomisation test, corrected after Holm "
        "for the metrics held against one leg."
    )
    head = ["pair", "metric", "difference", "p", "wins", "ties", "losses", measured.profile, "leg"]
    return table(caption, head, rows)


def _segments(measured: Measurement) -> Markup:
    candidate, leg = measured.candidate, measured.better_leg
    parts = segments(candidate.query_ids, measured.texts, measured.qrels, candidate.gain)
    found = segment_figures(parts, measured.evaluations[1:], leg, candidate, HEADLINE)
    reach = _reach([one.comparison.difference for one in found if not one.too_few])
    names = [one.name for one in measured.evaluations[1:]]
    groups = []
    for family in dict.fromkeys(one.segment.family for one in found):
        rows = [
            [
                one.segment.name,
                str(len(one.segment.query_ids)),
                _few(one.comparison) if one.too_few else _difference(one.comparison.difference, reach),
                *(figure(one.means[name]) for name in names),
            ]
            for one in found
            if one.segment.family == family
        ]
        heading = element("th", family, colspan=len(names) + 3, scope="rowgroup", class_="family")
        groups.append(element("tbody", element("tr", heading), *map(table_row, rows)))
    caption = (
        f"Mean {metric_name(HEADLINE)} by kind of query, and the paired difference to {leg.name}, the better leg. "
        f"Segments of fewer than {TOO_FEW} queries are too few for an interval. The intervals stand each for itself."
    )
    return grouped_table(caption, ["segment", "queries", f"{candidate.name} − {leg.name}", *names], groups)


def _few(one: Comparison) -> Markup:
    return join([signed(one.difference.estimate), " ", element("em", "too few")])


def _precision_recall(measured: Measurement) -> Markup:
    gain, judged_only = measured.candidate.gain, measured.candidate.judged_only
    curves = {run.name: precision_recall(measured.qrels, run, gain, judged_only=judged_only) for run in measured.runs}
    styles = _styles(measured)
    legend = element("ul", *(element("li", swatch(styles[name]), " ", name) for name in curves), class_="legend")
    rows = [[f"{RECALL[at]:.1f}", *(figure(curve[at]) for curve in curves.values())] for at in range(0, 101, 10)]
    numbers = table("Mean interpolated precision at each level of recall.", ["recall", *curves], rows)
    return _section("Precision over recall", precision_recall_plot(curves, styles), legend, _details(numbers))


def _calibration(measured: Measurement) -> Markup:
    pairs = measured.pairs
    if pairs is None:
        return _section("Calibration", element("p", "The judged products are all relevant, or all irrelevant."))
    bins = reliability(measured.probabilities, measured.labels)
    rows = [
        [f"{b.low:.2f}–{b.high:.2f}", f"{b.pairs:,}", figure(b.mean_probability), figure(b.share_relevant)]
        for b in bins
    ]
    told = (
        f"Calibration error {figure(pairs.ece_width)}; Brier {figure(pairs.brier.estimate)}, skill over the base "
        f"rate {figure(pairs.brier_skill.estimate)} {ends(pairs.brier_skill)}. "
        f"{pairs.n_pairs // measured.repeats:,} judged pairs, of "
        f"which {pairs.base_rate:.0%} are relevant; dots and the bars below them grow with the pairs of a bin."
    )
    numbers = table(
        "Pairs by predicted probability.", ["probability", "pairs", "mean probability", "share relevant"], rows
    )
    return _section("Calibration", reliability_plot(bins), element("p", told), _details(numbers))


def _difference_figure(measured: Measurement, differences: list[tuple[str, float]], over: str) -> Markup:
    named = [(measured.texts[query_id], value) for query_id, value in differences]
    leg = measured.better_leg.name
    one = next(one for one in measured.comparisons if (one.baseline, one.metric) == (leg, HEADLINE))
    told = (
        f"{metric_name(HEADLINE)}, {over}, one bar a query. Up, {measured.profile} is better: {one.wins:,} queries. "
        f"Down, {leg} is better: {one.losses:,}. {one.ties:,} come out the same."
    )
    ends_told = [
        element("p", f"{what}: {signed(value)} for “", foreign(query), "”.")
        for what, (query, value) in (("Most gained", named[0]), ("Most lost", named[-1]))
    ]
    return element("div", difference_plot(named, over), element("div", element("p", told), *ends_told), class_="beside")


def _fact(name: str, value: str) -> Markup:
    return element("div", element("dt", name), element("dd", value))


def _styles(measured: Measurement) -> dict[str, str]:
    """The class of each run's line: the floor, the legs in order, the profile."""
    legs = {leg.name: f"series-{1 + place % 2}" for place, leg in enumerate(measured.legs)}
    return {measured.evaluations[0].name: _FLOOR, **legs, measured.profile: "series-0"}


def _section(title: str, *children: Markup) -> Markup:
    return element("section", element("h2", title), *children)


def _details(numbers: Markup) -> Markup:
    return element("details", element("summary", "The figures"), numbers, class_="figures")


def _difference(difference: Interval, reach: float) -> Markup:
    told = [signed(difference.estimate), " ", element("small", signed_ends(difference))]
    return join([element("span", *told, class_="told"), " ", interval_mark(difference, reach)])


def _reach(shown: Sequence[Interval]) -> float:
    return max((abs(end) for one in shown for end in (one.low, one.high)), default=0.0) or 1.0


def _p(one: Comparison) -> str:
    return f"< {LEAST_P:g}" if one.p_holm < LEAST_P else f"{one.p_holm:.3f}"
