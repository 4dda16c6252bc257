"""Queries by kind."""

from __future__ import annotations

from itertools import groupby

import pytest

from models.relevance import Gain, Qrels
from models.report.segments import Segment, segment_figures, segments
from tests.models.report.test_report import measurement

TEXTS = {
    "a": "drill",
    "b": "desk chair without wheels",
    "c": "16 gb memory card for a phone",
    "d": "shoes that aren’t leather",
    "e": "nothing notebook",
    "f": "١٢ mugs",
}
QRELS = Qrels({q: {f"p{i}": 3.0 for i in range(1 + place)} | {"x": 1.0} for place, q in enumerate(TEXTS)})


def _named(name: str) -> set[str]:
    found: list[Segment] = segments(list(TEXTS), TEXTS, QRELS, Gain())
    return set(next(one.query_ids for one in found if one.name == name))


def test_every_family_parts_the_queries() -> None:
    """Each query is in exactly one segment of each family."""
    found = segments(list(TEXTS), TEXTS, QRELS, Gain())
    families = [list(group) for _, group in groupby(found, key=lambda one: one.family)]
    assert len(families) == 4
    for family in families:
        assert sorted(q for one in family for q in one.query_ids) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("name", "query_ids"),
    [
        ("1–2 words", {"a", "e", "f"}),
        ("3–4 words", {"b", "d"}),
        ("5 words or more", {"c"}),
        ("with digits", {"c", "f"}),
        ("with negation", {"b", "d"}),
        ("head: more than 3", {"d", "e", "f"}),
        ("tail: at most 3", {"a", "b", "c"}),
    ],
)
def test_a_segment_holds_what_its_name_says(name: str, query_ids: set[str]) -> None:
    """Digits of any script, a typographic apostrophe; "nothing" and "notebook" negate nothing."""
    assert _named(name) == query_ids


def test_a_small_segment_is_marked_and_an_empty_one_left_out() -> None:
    """Below ten queries there is a mean and no interval to read."""
    measured = measurement(queries=12)
    ids = measured.candidate.query_ids
    parts = [Segment("f", "few", ids[:9]), Segment("f", "enough", ids[:10]), Segment("f", "none", ())]
    found = segment_figures(parts, measured.evaluations, measured.better_leg, measured.candidate, "ndcg@10")
    assert [(one.segment.name, one.too_few) for one in found] == [("few", True), ("enough", False)]
    assert found[0].means["default"] == pytest.approx(measured.candidate.values["ndcg@10"][:9].mean())
    assert found[0].comparison.n_queries == 9
