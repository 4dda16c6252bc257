"""Which settings are on the front, which one is chosen, and when none is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from app.index.dense import FaissIndex
from app.search.golden import golden_answers
from app.search.searcher import Searcher
from models.pareto import (
    FOUND,
    KEPT,
    NDCG,
    Bounds,
    Point,
    Setting,
    at,
    finalists,
    front,
    halved,
    nearest,
    preferred,
    present,
    qualities,
    race,
    settings_of,
)
from models.relevance import Gain, Qrels

LOOSE = Bounds(100.0, 0.5)
QUERIES = 50


def _point(depth: int, ms: float, found: float, kept: float, **more: float) -> Point:
    """A point whose searches all take `ms`, with one in twenty at three times that."""
    times = np.full((4, QUERIES), ms)
    times[:, ::20] = 3 * ms
    quality = {FOUND: np.full(QUERIES, found), KEPT: np.full(QUERIES, kept)}
    return Point(Setting(depth, 0), quality | {name: np.full(QUERIES, value) for name, value in more.items()}, times)


QUICK, MIDDLE, SLOW = _point(100, 1.0, 0.90, 0.80), _point(200, 2.0, 0.95, 0.90), _point(400, 4.0, 0.99, 1.0)
WORSE = _point(300, 3.0, 0.94, 0.89)


def test_a_setting_that_is_worse_in_all_is_not_on_the_front() -> None:
    """Slower than the middle one, and finds less; the others each have something for them, the quickest first."""
    assert front([SLOW, WORSE, QUICK, MIDDLE]) == [QUICK, MIDDLE, SLOW]
    assert MIDDLE.dominates(WORSE) and not WORSE.dominates(MIDDLE)
    assert not QUICK.dominates(SLOW) and not SLOW.dominates(QUICK)


def test_equals_do_not_drive_each_other_out() -> None:
    """Two settings with the same figures are both on the front."""
    twins = [_point(1, 1.0, 0.9, 0.9), _point(2, 1.0, 0.9, 0.9)]
    assert front(twins) == twins


def test_halving_leaves_out_what_is_dominated_and_nothing_else() -> None:
    """The dominated one goes, unless it is the present setting; a front is never cut down."""
    points = [QUICK, MIDDLE, WORSE, SLOW]
    assert halved(points, SLOW.setting) == [QUICK, MIDDLE, SLOW]
    assert halved(points, WORSE.setting) == points
    assert halved([QUICK, MIDDLE, SLOW], QUICK.setting) == [QUICK, MIDDLE, SLOW]


def test_at_most_half_are_left_out_at_a_time() -> None:
    """One dominates nine: the five that most dominate go first."""
    points = [_point(depth, float(depth), 1 - depth / 100, 1 - depth / 100) for depth in range(1, 11)]
    assert [one.setting.depth for one in halved(points, points[0].setting)] == [1, 2, 3, 4, 5]


def test_a_goal_that_nobody_meets_is_refused_and_the_nearest_is_named() -> None:
    """Positive control: a p99 of 3 ms at the least, a goal of 2; the floor counts beside it."""
    points = [QUICK, MIDDLE, SLOW]
    assert preferred(points, Bounds(2.0, 0.5), "quality") == []
    assert nearest(points, Bounds(2.0, 0.5)) is QUICK
    assert Bounds(2.0, 0.5).missed(QUICK, points) == {"p99": pytest.approx(0.5)}
    strict = Bounds(7.0, 0.97)
    assert preferred(points, strict, "speed") == []
    assert strict.missed(SLOW, points).keys() == {"p99"} and strict.missed(MIDDLE, points).keys() == {FOUND}
    assert nearest(points, strict) is MIDDLE  # by 2 % of the recall, not by 71 % of the time


def test_within_the_goal_the_best_is_chosen_or_the_quickest() -> None:
    """By quality the slowest that the goal allows, with the quicker ones to stand in for it; by speed the quickest."""
    points = [SLOW, QUICK, MIDDLE]
    assert preferred(points, LOOSE, "quality") == [SLOW, MIDDLE, QUICK]
    assert preferred(points, Bounds(7.0, 0.5), "quality") == [MIDDLE, QUICK]
    assert preferred(points, LOOSE, "speed") == [QUICK]
    assert preferred(points, Bounds(100.0, 0.92), "speed") == [MIDDLE]


def test_a_difference_within_the_noise_is_not_paid_for() -> None:
    """Top tens that differ for one query in fifty by a tenth cannot be told apart: the quicker is chosen."""
    best, alike = _point(400, 4.0, 1.0, 1.0), _point(100, 1.0, 1.0, 1.0)
    alike.quality[KEPT][7] = 0.9
    assert preferred([best, alike], LOOSE, "quality")[0] is alike
    alike.quality[KEPT][:] = 0.9
    assert preferred([best, alike], LOOSE, "quality")[0] is best


def test_judgements_decide_where_there_are_any() -> None:
    """The floor of nDCG is a share of the best, and what the top ten kept no longer counts."""
    low, high = _point(100, 1.0, 1.0, 1.0, **{NDCG: 0.70}), _point(200, 2.0, 1.0, 0.5, **{NDCG: 0.75})
    assert high.decisive == NDCG
    assert preferred([low, high], LOOSE, "quality")[0] is high
    floor = Bounds(100.0, 0.5, ndcg=0.99)
    assert floor.missed(low, [low, high]).keys() == {NDCG} and not floor.missed(high, [low, high])
    assert preferred([low, high], floor, "speed") == [high]


def test_the_interval_of_the_p99_holds_it() -> None:
    """Of a known sample; and of all that is the same it has no width."""
    found = MIDDLE.p99_interval()
    assert found.low <= found.estimate == MIDDLE.p99 <= found.high
    flat = Point(Setting(1, 0), {FOUND: np.ones(3)}, np.full((2, 3), 5.0)).p99_interval()
    assert (flat.low, flat.high) == (5.0, 5.0)


@pytest.fixture
def listed(tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> Searcher:
    """The tiny version over lists, as a large one is."""
    monkeypatch.setattr("app.index.dense.FLAT_UP_TO", 10)
    searcher = at(tiny_searcher, present(tiny_searcher))
    searcher.vectors = FaissIndex.build(np.stack([tiny_searcher.vectors.vector(row) for row in range(60)]))
    return searcher


def test_breadths_that_come_to_the_same_reading_are_one_setting(listed: Searcher) -> None:
    """Sixty products are in few lists: all that is wanted of them needs every one."""
    index = listed.vectors
    assert isinstance(index, FaissIndex)
    lists = index.reads(400)
    assert settings_of(listed, (100, 400), (1, 2, 512)) == tuple(Setting(depth, lists) for depth in (100, 200, 400))
    assert len(settings_of(listed, (1,), (1, 2, 512))) >= 2


def test_a_flat_index_has_depths_alone(tiny_searcher: Searcher) -> None:
    """The present depth is among them."""
    here = tiny_searcher.ranking.profiles["default"].depth
    assert settings_of(tiny_searcher, (5, 10)) == tuple(Setting(depth, 0) for depth in sorted({5, 10, here}))


def _texts() -> Mapping[str, str]:
    return {"a": "steel mug", "b": "bright lamp", "c": "quiet wooden speaker"}


def test_quality_is_whole_where_everything_is_looked_at(tiny_searcher: Searcher) -> None:
    """Sixty products within a depth of 100: the exact hundred and the unrestricted ten, each to the last; at depth 3
    three of sixty, and less of the ten."""
    found = qualities(tiny_searcher, [Setting(100, 0), Setting(3, 0)], _texts(), None, Gain())
    assert found[Setting(100, 0)][FOUND].tolist() == found[Setting(100, 0)][KEPT].tolist() == [1.0] * 3
    assert found[Setting(3, 0)][FOUND].tolist() == pytest.approx([3 / 60] * 3)
    assert found[Setting(3, 0)][KEPT].mean() < 1.0


def test_judged_quality_is_that_of_a_search(tiny_searcher: Searcher) -> None:
    """nDCG@10 of the ranking that the searcher itself gives."""
    text = _texts()["a"]
    first = golden_answers(tiny_searcher, [text])[0]["ids"][0]
    found = qualities(tiny_searcher, [Setting(100, 0)], {"a": text}, Qrels({"a": {first: 3.0}}), Gain())
    assert found[Setting(100, 0)][NDCG].tolist() == [1.0]


def test_a_race_times_every_query_every_round_and_keeps_the_present(tiny_searcher: Searcher) -> None:
    """The present setting has all rounds; whoever was left out has fewer, and does not compare."""
    settings = settings_of(tiny_searcher, (10, 100, 400))
    texts = _texts()
    measured = qualities(tiny_searcher, settings, texts, None, Gain())
    ticks: list[int] = []
    points = race(tiny_searcher, measured, list(texts.values()), rounds=3, tick=ticks.append)
    assert {one.setting for one in points} == set(settings) and ticks == [1, 1, 1]
    assert all(one.times.shape[1] == 3 and (one.times > 0).all() for one in points)
    assert present(tiny_searcher) in {one.setting for one in finalists(points)}
    assert all(len(one.times) == 3 for one in finalists(points))


def test_a_setting_is_that_of_the_default_and_of_its_stand_in(tiny_searcher: Searcher) -> None:
    """Legs that answer alone keep their depth, and the version that is served keeps all of its own."""
    before = tiny_searcher.ranking.to_json()
    profiles = at(tiny_searcher, Setting(7, 0)).ranking.profiles
    assert profiles["default"].depth == 7
    assert profiles["lexical"].depth == tiny_searcher.ranking.profiles["lexical"].depth
    assert tiny_searcher.ranking.to_json() == before
