"""Which tier fits the time that is left.

A search that asks for the default may be answered by a cheaper tier where the default would come too late, or where it
would make those who wait behind it late: default → fast → lexical. What a tier costs was measured when the version was
loaded, and is corrected by what is seen. The plan is made after the lexical stage, just before the encoder would run,
and made again when the encoder has taken its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from math import inf

from app.runtime.batcher import IDLE, Load
from app.runtime.deadline import now
from app.search.rerank import Profile, Ranking
from app.types import TIER_FAST, TIER_LEXICAL

DEADLINE, LOAD = "deadline", "load"
"""Why a tier was left for a cheaper one: the time of this search would not do, or others wait."""
ENCODER_ERROR, ENCODER_STALLED = "encoder_error", "encoder_stalled"
ENCODER_ON_CPU = "encoder_on_cpu"
WORDS_ERROR = "words_error"
RANK_ERROR, RANK_STALLED = "rank_error", "rank_stalled"
"""Other reasons for an answer below its tier: a stage failed, or somebody stood still in it."""
WORDS = "words"
"""What the lexical stage itself costs, beside the tiers."""
# Of its time a search keeps this share in hand as long as others wait behind it: a queue then stands where the dearer
# tier is given up long before the deadline, and never where everything is late.
_RESERVE_COMPUTED, _RESERVE_LOOKED_UP = 0.75, 0.4
# A tier that nobody has tried for so long is tried once, whatever it is thought to cost: at worst that one search is
# answered by the words. It may have been measured on a busy machine.
_UNTRIED_S = 5.0
# An estimate that nobody has renewed goes back towards what was measured at the start, so that a tier that was given up
# while its encoder stalled is tried again.
_HALF_LIFE_S = 1.0
_RATE = 0.125
_DOUBT = 2.0


class _Cost:
    """Mean and mean deviation, in milliseconds, as TCP estimates its round trips (Jacobson 1988)."""

    __slots__ = ("_base", "_base_deviation", "_deviation", "_mean", "_renewed")

    def __init__(self) -> None:
        self._base = self._mean = self._deviation = self._base_deviation = 0.0
        self._renewed = -inf

    def begin(self, samples: Sequence[float], at: float) -> None:
        ordered = sorted(samples)  # the quicker half: others may be at work while a version is loaded
        self._base = self._mean = ordered[len(ordered) // 4]
        self._deviation = self._base_deviation = ordered[len(ordered) // 2] - self._mean
        self._renewed = at

    def seen(self, ms: float, at: float) -> None:
        self._mean, self._deviation = self._aged(at)
        off = ms - self._mean
        self._mean += _RATE * off
        self._deviation += _RATE * (abs(off) - self._deviation)
        self._renewed = at

    def untried(self, at: float) -> bool:
        """Whether it is time to try; then the next time is as far off again."""
        due = at - self._renewed > _UNTRIED_S
        if due:
            self._renewed = at
            self._mean, self._deviation = self._base, self._base_deviation
        return due

    def expected(self, at: float) -> float:
        mean, deviation = self._aged(at)
        return mean + _DOUBT * deviation

    def begun(self) -> float:
        return self._base + _DOUBT * self._base_deviation

    def _aged(self, at: float) -> tuple[float, float]:
        share: float = 0.5 ** max(0.0, (at - self._renewed) / _HALF_LIFE_S)
        mean = self._base + share * (self._mean - self._base)
        return mean, self._base_deviation + share * (self._deviation - self._base_deviation)


class Costs:
    """What each tier takes from the encoder on, of one version. Workers write it without a lock: a sample that is lost
    does no harm."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._tiers: dict[str, _Cost] = {}

    def begin(self, tier: str, samples_ms: Sequence[float]) -> None:
        """What was measured when the version was loaded."""
        self._tiers.setdefault(tier, _Cost()).begin(samples_ms, self._clock())

    def seen(self, tier: str, ms: float) -> None:
        """What one search took."""
        self._tiers.setdefault(tier, _Cost()).seen(ms, self._clock())

    def as_of(self, before: Costs) -> None:
        """Begin with the costs of a version like this one, which were measured when the machine was idle and learnt
        since: measured now they would be those beside searches."""
        self._tiers = {tier: copy(cost) for tier, cost in list(before._tiers.items())}

    def ms(self, tier: str) -> float:
        """What the next one is expected to take, on the careful side; 0 where nothing is known yet."""
        cost = self._tiers.get(tier)
        return 0.0 if cost is None else cost.expected(self._clock())

    def begun_ms(self, tier: str) -> float:
        """What it was expected to take when the version was loaded."""
        cost = self._tiers.get(tier)
        return 0.0 if cost is None else cost.begun()

    def least_ms(self, steps: Sequence[Profile]) -> float:
        """What a search takes at the last of the steps, its words included."""
        return self.ms(WORDS) + self.ms(steps[-1].name)

    def untried(self, tier: str) -> bool:
        """Whether a tier has not been tried for long; asking counts as a try."""
        cost = self._tiers.get(tier)
        return cost is not None and cost.untried(self._clock())


def ladder(profile: Profile, ranking: Ranking) -> tuple[Profile, ...]:
    """The profile and the cheaper ones that may stand in for it, from the dearest down."""
    if not (profile.uses_dense and profile.uses_words):
        return (profile,)
    fast = ranking.profiles.get(TIER_FAST)
    between = () if fast is None or profile.looked_up else (fast,)
    return (profile, *between, ranking.profiles[TIER_LEXICAL])


def fitting(
    steps: Sequence[Profile], costs: Costs, left_ms: float, budget_ms: float, load: Load = IDLE
) -> tuple[Profile, str | None]:
    """The best of the steps that fits, and why it is not the first (None where it is). `left_ms` until the deadline of
    a search that had `budget_ms` when it came."""
    reason: str | None = None
    queue_ms = load.waiting / load.workers * costs.least_ms(steps) if load.waiting else 0.0
    for profile in steps[:-1]:
        after = left_ms - costs.ms(profile.name)
        share = _RESERVE_LOOKED_UP if profile.looked_up else _RESERVE_COMPUTED
        if after >= max(share * budget_ms if load.waiting else 0.0, queue_ms):
            return profile, reason
        if not load.waiting and left_ms > 0 and costs.untried(profile.name):
            return profile, reason
        reason = reason or (DEADLINE if after < 0 else LOAD)
    return steps[-1], reason
