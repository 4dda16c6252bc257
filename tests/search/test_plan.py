"""Which tier fits: the cost model, and the choice between the steps of the ladder."""

from __future__ import annotations

import pytest

from app.runtime.batcher import Load
from app.search.plan import Costs, fitting, ladder
from app.search.searcher import Searcher

COSTS = {"default": 10.0, "fast": 2.0, "lexical": 1.0}


class Clock:
    """Time that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def costs() -> Costs:
    """Three tiers, measured without any doubt."""
    found = Costs(Clock())
    for tier, ms in COSTS.items():
        found.begin(tier, [ms] * 8)
    return found


def test_what_is_measured_at_the_start_is_expected(costs: Costs) -> None:
    """And nothing of a tier that nobody measured."""
    assert {tier: costs.ms(tier) for tier in COSTS} == COSTS and costs.ms("another") == 0.0


def test_a_version_like_the_one_before_it_begins_with_its_costs(costs: Costs) -> None:
    """Else its first searches are refused for costs that the loading of it made; what it learns is its own."""
    after = Costs(Clock())
    after.as_of(costs)
    assert {tier: after.ms(tier) for tier in COSTS} == COSTS
    after.seen("default", 90.0)
    assert after.ms("default") > 20.0 and costs.ms("default") == COSTS["default"]


def test_what_is_seen_moves_the_estimate_to_the_careful_side_and_time_moves_it_back() -> None:
    """A stalled encoder makes its tier dear at once; once nobody has tried it for seconds, it is as it was."""
    clock = Clock()
    costs = Costs(clock)
    costs.begin("default", [10.0] * 8)
    for _ in range(8):
        costs.seen("default", 500.0)
    assert costs.ms("default") > 300.0
    clock.at += 10.0
    assert costs.ms("default") < 100.0
    for _ in range(60):
        costs.seen("default", 10.0)
    assert costs.ms("default") == pytest.approx(10.0, rel=0.1)


def test_a_tier_that_nobody_tried_for_long_is_tried_once(costs: Costs, tiny_searcher: Searcher) -> None:
    """Or one that was measured on a busy machine would stay given up for good. While others wait nothing is tried."""
    steps = ladder(tiny_searcher.ranking.profiles["default"], tiny_searcher.ranking)
    costs._clock.at += 60.0  # type: ignore[attr-defined]
    assert fitting(steps, costs, 9.0, 100.0, Load(1, 2))[0].name == "lexical"
    assert [fitting(steps, costs, 9.0, 100.0)[0].name for _ in range(3)] == ["default", "fast", "fast"]


def test_the_ladder_goes_down_to_the_words(tiny_searcher: Searcher) -> None:
    """From each profile; one that has no words has nothing to fall back to."""
    profiles = tiny_searcher.ranking.profiles
    names = {name: [step.name for step in ladder(one, tiny_searcher.ranking)] for name, one in profiles.items()}
    assert names == {
        "default": ["default", "fast", "lexical"],
        "fast": ["fast", "lexical"],
        "lexical": ["lexical"],
        "dense": ["dense"],
    }


@pytest.mark.parametrize(
    ("left", "waiting", "expected"),
    [
        (100.0, 0, ("default", None)),
        (10.5, 0, ("default", None)),  # nobody waits: all of its time is its own
        (9.0, 0, ("fast", "deadline")),
        (1.5, 0, ("lexical", "deadline")),
        (86.0, 1, ("default", None)),
        (84.0, 1, ("fast", "load")),  # 75 of its 100 ms are kept in hand while others wait
        (41.0, 1, ("lexical", "load")),
        (99.0, 180, ("fast", "load")),  # 180 behind it on two workers take 90 ms of words alone
        (0.0, 0, ("lexical", "deadline")),
    ],
)
def test_the_best_tier_that_fits_is_taken(
    left: float, waiting: int, expected: tuple[str, str | None], costs: Costs, tiny_searcher: Searcher
) -> None:
    """By the time that is left of 100 ms, and by what waits behind on two workers."""
    steps = ladder(tiny_searcher.ranking.profiles["default"], tiny_searcher.ranking)
    profile, reason = fitting(steps, costs, left, 100.0, Load(waiting, 2))
    assert (profile.name, reason) == expected
    if expected[0] == "fast":  # who asks for it gets it where the default's place would be taken by it
        asked = ladder(tiny_searcher.ranking.profiles["fast"], tiny_searcher.ranking)
        assert fitting(asked, costs, left, 100.0, Load(waiting, 2)) == (profile, None)
