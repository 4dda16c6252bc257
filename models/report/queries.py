"""The queries that gain and lose most, with what both rankings put first, so that one sees why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from models.report.markup import Markup, element, foreign, join
from models.report.measurement import HEADLINE, Measurement
from models.report.tables import figure, metric_name, signed, table

SHOWN_QUERIES, SHOWN_PRODUCTS = 10, 5


def differences_by_query(measured: Measurement) -> list[tuple[str, float]]:
    """(query id, profile - better leg), the greatest gain first."""
    values = measured.candidate.values[HEADLINE] - measured.better_leg.values[HEADLINE]
    pairs = zip(measured.candidate.query_ids, map(float, values), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def queries(measured: Measurement, query_ids: Sequence[str], title_of: Callable[[str], str]) -> list[Markup]:
    """The first ten of the queries, each to unfold, the first one unfolded."""
    if not query_ids:
        return [element("p", "None.")]
    shown = [_query(measured, q, title_of, opened=place == 0) for place, q in enumerate(query_ids[:SHOWN_QUERIES])]
    return [element("p", "The grade stands before each title; – is not judged."), *shown]


def _query(measured: Measurement, query_id: str, title_of: Callable[[str], str], *, opened: bool) -> Markup:
    sides = (measured.candidate, measured.better_leg)
    values = [float(side.values[HEADLINE][side.query_ids.index(query_id)]) for side in sides]
    told = element("span", f"{signed(values[0] - values[1])}", class_="by")
    summary = element("summary", told, " ", foreign(measured.texts[query_id]))
    tops = [_top(measured, side.name, query_id) for side in sides]
    grades = measured.qrels[query_id]
    rows = []
    for place in range(max(map(len, tops))):
        held = [top[place] if place < len(top) else None for top in tops]
        rows.append([str(place + 1), *(_product(one, grades, title_of) for one in held)])
    head = ["rank", *(f"{side.name}: {figure(value)}" for side, value in zip(sides, values, strict=True))]
    caption = f"First {SHOWN_PRODUCTS} products and {metric_name(HEADLINE)} for {measured.texts[query_id]}"
    return element("details", summary, table(caption, head, rows, class_="sides"), open="" if opened else None)


def _top(measured: Measurement, name: str, query_id: str) -> list[str]:
    run = next(one for one in measured.runs if one.name == name)
    grades = measured.qrels[query_id]
    ids = [product for product, _ in run.get(query_id, ()) if product in grades or not measured.candidate.judged_only]
    return ids[:SHOWN_PRODUCTS]


def _product(product: str | None, grades: Mapping[str, float], title_of: Callable[[str], str]) -> Markup:
    if product is None:
        return Markup("")
    grade = f"{grades[product]:g}" if product in grades else "–"
    level = _level(grades.get(product), max(grades.values()))
    return join([element("span", grade, class_=f"grade {level}"), " ", element("span", foreign(title_of(product)))])


def _level(grade: float | None, best: float) -> str:
    """The class of a grade's box: the number says it, the colour only helps."""
    if grade is None:
        return "none"
    return "zero" if grade == 0 else "high" if grade == best else "low"
