"""The fourth layer: a version that ranks worse than the one it would replace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.index.bundle import BundleStore
from models.gate import Judgements, Limits, Verdict, judge
from models.relevance import Gain, Qrels, Queries
from tests.models.gate.shop import Row, Shop

LATE = ("inputs", "fingerprint", "recall")


def _by_relevance_alone(verdict: Verdict) -> None:
    shown = verdict.table().text()
    assert verdict.layers == ("relevance",), shown
    assert all(check.outcome == "passed" for check in verdict.checks if check.layer in LATE), shown


def _titles_of_the_next(rows: list[Row]) -> list[Row]:
    """A join that is off by one: every field is filled, and every vector is that of its text."""
    return [{**row, "title": other["title"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]


def test_titles_joined_to_the_wrong_products_are_seen_by_relevance_alone(tiny_shop: Shop) -> None:
    """Nothing in the bundle contradicts itself."""
    _by_relevance_alone(tiny_shop.judge(tiny_shop.rebuilt(_titles_of_the_next(tiny_shop.rows))))


@pytest.mark.deep
def test_wrong_titles_of_real_products_are_seen_by_relevance_alone(real_shop: Shop) -> None:
    """Under the shipped encoder."""
    _by_relevance_alone(real_shop.judge(real_shop.rebuilt(_titles_of_the_next(real_shop.rows))))


def test_a_version_without_judgements_is_held_to_those_of_the_served_one(tiny_shop: Shop) -> None:
    """Here the weights that nobody fitted rank worse, and the served version's judgements show it."""
    verdict = tiny_shop.judge(tiny_shop.rebuilt(None, "--unjudged"))
    _by_relevance_alone(verdict)
    assert verdict.refused[0].figures["judgements"] == "of the served version"


def test_a_candidate_that_alone_has_seen_the_judgements_is_marked(tiny_shop: Shop, tmp_path: Path) -> None:
    """Its figures are in its own favour; where both were fitted to them, or neither, nothing is said (control)."""
    version = tiny_shop.rebuilt()

    def found(candidate: str) -> str:
        checks = {check.name: check for check in judge(store, candidate).checks}
        return checks["ndcg@10"].found

    shutil.copytree(tiny_shop.store.folder, tmp_path / "b")
    store = BundleStore(tmp_path / "b")
    assert "fitted" not in found(version)
    with store.building() as folder:
        shutil.copytree(store.path(version), folder, dirs_exist_ok=True)
        unfitted = store.seal(folder, {**store.verify(version).content, "judgements": None})
    store.publish(unfitted)
    assert "the candidate was fitted" in found(version)
    assert "fitted" not in found(unfitted)
    tiny_shop.judge(version)


def test_products_that_came_or_went_are_not_held_against_the_ranking(tiny_shop: Shop) -> None:
    """A sixth of the judged products gone: the figures are over what both versions hold."""
    rows = [row for at, row in enumerate(tiny_shop.rows) if at % 6 != 1]
    verdict = tiny_shop.judge(tiny_shop.rebuilt(rows))
    (recall,) = [check for check in verdict.checks if check.name == "recall@100"]
    assert recall.figures["candidate"] == recall.figures["served"] == 1.0


def test_a_margin_can_be_taken_away(tiny_shop: Shop) -> None:
    """With a margin of a whole point nothing is worse; the titles would pass."""
    version = tiny_shop.rebuilt(_titles_of_the_next(tiny_shop.rows))
    assert judge(tiny_shop.store, version, limits=Limits(margin=1.0)).outcome == "passed"
    tiny_shop.judge(version)


@pytest.mark.parametrize("count", [0, 9])
def test_with_too_few_judged_queries_a_version_is_ungated(count: int, tiny_shop: Shop, tmp_path: Path) -> None:
    """Of none, or of nine, nothing can be said; with ten it is gated (control)."""
    version = tiny_shop.rebuilt(_titles_of_the_next(tiny_shop.rows))
    products = {row["id"]: 3.0 for row in tiny_shop.rows[:5]}

    def outcome(queries: int) -> str:
        texts = {f"q{n}": "wireless mug" for n in range(max(1, queries))}
        qrels = Qrels({q: products if queries else {"nobody": 3.0} for q in texts})
        return judge(tiny_shop.store, version, Judgements(Queries(texts), qrels, Gain())).outcome

    assert outcome(count) == "ungated"
    assert outcome(10) != "ungated"
    tiny_shop.judge(version)
