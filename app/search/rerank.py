"""Stage 7: one raw score a candidate, as a sum of named contributions that a person can read.

raw = Σ weight × feature, in float64, added in the order of `features.NAMES`: the contributions are the score.
Additive, so that a person can read it and the sum can be exact; what each feature brings is in
docs/decisions/reranker.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.index.kernels import compiled
from app.search.calibrate import Link
from app.search.features import LEGS, NAMES, Features
from app.types import TIER_FAST, TIER_HYBRID, TIER_LEXICAL, Rows, record

TIER_DENSE = "dense"
_FEW = 50  # places; for more a sort of all is as quick


@dataclass(frozen=True, slots=True)
class Profile:
    """How one profile ranks. `depth`: products a leg may bring. `floor`: least dense score that makes a result.
    `static`: of a query's vector, the share that is looked up in the table fitted to the version; the rest is computed
    by the network (0: all of it)."""

    name: str
    depth: int
    floor: float
    weights: tuple[float, ...]
    link: Link
    static: float = 0.0

    @property
    def uses_dense(self) -> bool:
        return self.weights[0] != 0.0

    @property
    def uses_words(self) -> bool:
        return any(weight != 0.0 for weight in self.weights[1:LEGS])

    @property
    def looked_up(self) -> bool:
        """Whether a query's vector needs no run of the network."""
        return self.static == 1.0

    @property
    def reach(self) -> int:
        """Most products a result set can hold: what the legs bring together."""
        return self.depth * (int(self.uses_dense) + int(self.uses_words))

    @property
    def tier(self) -> str:
        """The tier that the profile reaches when nothing fails."""
        if not self.uses_dense:
            return TIER_LEXICAL
        if not self.uses_words:
            return TIER_DENSE
        return TIER_FAST if self.looked_up else TIER_HYBRID


@dataclass(frozen=True, slots=True)
class Ranking:
    """The profiles of a version; "default" and "lexical" are always there (the second is the tier to fall back to)."""

    profiles: Mapping[str, Profile]

    @classmethod
    def from_json(cls, value: Any) -> Ranking:
        """Raises CorruptPart for a configuration that cannot rank."""
        try:
            profiles = {name: _profile(name, one) for name, one in value["profiles"].items()}
        except KeyError as error:
            raise CorruptPart(f"manifest.json: the ranking lacks {error}: build the version anew") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CorruptPart(f"manifest.json: ranking configuration ({error})") from error
        if not {"default", "lexical"} <= profiles.keys():
            raise CorruptPart("manifest.json: ranking needs the profiles default and lexical")
        if profiles[TIER_LEXICAL].tier != TIER_LEXICAL:
            raise CorruptPart("manifest.json: the profile lexical must rank by words alone")
        return cls(profiles)

    def to_json(self) -> dict[str, Any]:
        return {
            "profiles": {
                name: {
                    "depth": one.depth,
                    "floor": one.floor,
                    "weights": dict(zip(NAMES, one.weights, strict=True)),
                    "link": one.link.to_json(),
                    "static": one.static,
                }
                for name, one in self.profiles.items()
            }
        }


@record()
class Ranked:
    """Candidates in rank order, all or the first of them: raw descending, row ascending."""

    rows: Rows
    raw: npt.NDArray[np.float64]
    _order: npt.NDArray[np.intp]
    _features: Features
    _weights: npt.NDArray[np.float64]

    @property
    def features(self) -> Features:
        """Float64 [n, len(NAMES)], in rank order."""
        return self._features[self._order]

    @property
    def contributions(self) -> npt.NDArray[np.float64]:
        """What each feature brings, float64 [n, len(NAMES)], in rank order."""
        parts: npt.NDArray[np.float64] = self.features * self._weights
        return parts


def raw_scores(features: Features, profile: Profile) -> npt.NDArray[np.float64]:
    """The ordered float64 sum of the contributions (weight × feature), [n]."""
    return _weighted_sums(features, _as_array(profile.weights))


@lru_cache
def _as_array(weights: tuple[float, ...]) -> npt.NDArray[np.float64]:
    return np.array(weights, dtype=np.float64)


@partial(compiled, nogil=False)
def _weighted_sums(features: Features, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Term by term, each product and each sum rounded: numpy's own sum may pair terms, and an explanation that adds up
    its contributions must come to the same bits."""
    sums = np.empty(features.shape[0], np.float64)
    for row in range(features.shape[0]):
        total = features[row, 0] * weights[0]
        for column in range(1, features.shape[1]):
            total += features[row, column] * weights[column]
        sums[row] = total
    return sums


def rank(rows: Rows, features: Features, profile: Profile, first: int | None = None) -> Ranked:
    """Score and order the candidates, ties as `rows` has them; only the `first` best where so few are asked for."""
    raw = raw_scores(features, profile)
    if first is None or first > _FEW:
        order = np.argsort(-raw, kind="stable")[:first]
    else:
        order = _best(raw, min(first, len(raw)))
    return Ranked(rows[order], raw[order], order, features, _as_array(profile.weights))


@partial(compiled, nogil=False)
def _best(raw: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """The places of the `count` largest, ties in their order; to sort some hundreds for ten takes ten times as long."""
    order = np.empty(count, np.intp)
    held = 0
    for at in range(len(raw)):
        if held < count:
            held += 1
        elif count == 0 or raw[at] <= raw[order[count - 1]]:
            continue
        place = held - 1
        while place > 0 and raw[at] > raw[order[place - 1]]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = at
    return order


def _profile(name: str, value: Any) -> Profile:
    weights = tuple(float(value["weights"][feature]) for feature in NAMES)
    depth, floor = int(value["depth"]), float(value["floor"])
    legs = weights[:LEGS]
    if len(value["weights"]) != len(NAMES) or not np.isfinite(sum(map(abs, weights))) or min(legs) < 0 or not any(legs):
        raise ValueError(f"weights of profile {name}")
    if not 1 <= depth <= 10_000 or not np.isfinite(floor):
        raise ValueError(f"depth or floor of profile {name}")
    static = float(value["static"])
    if not 0.0 <= static <= 1.0:
        raise ValueError(f"static share of profile {name}")
    return Profile(name, depth, floor, weights, Link.from_json(value["link"]), static)
