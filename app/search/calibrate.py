"""Stage 8: a raw score becomes the probability that the product is relevant.

The raw score compares products for one query; how likely its products are to be relevant at all depends on the query,
too. Three things tell of that (query performance prediction: Cronen-Townsend et al. 2002, Shtok et al. 2012): one
product far ahead of the fortieth is a find, while forty that answer the words alike are the accessories of something
else; the same goes for the spread of the forty nearest; a query whose two readings disagree is understood by neither.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from app.index.kernels import compiled
from app.types import Floats

CLARITY = ("words_best", "words_fortieth", "agreement", "spread")
"""What a link may know of a query as a whole, by its vector and its unfiltered lists: the best and the fortieth score
of the lexical one; the vector's length, less than 1 as far as its readings disagree; and the standard deviation of the
forty best dense scores. 0 where a list was not asked for, or is shorter."""
NEAREST = 40
NO_CLARITY = (0.0,) * len(CLARITY)
Clarity = tuple[float, ...]


def clarity_of(words: Floats, vector: Floats | None, near: Floats) -> Clarity:
    """The CLARITY of a query by its lexical and its dense scores, best first, and its vector."""
    best = float(words[0]) if len(words) else 0.0
    fortieth = float(words[NEAREST - 1]) if len(words) >= NEAREST else 0.0
    length = 0.0 if vector is None else math.sqrt(float(np.dot(vector, vector)))
    return best, fortieth, length, _spread(near[:NEAREST]) if len(near) >= NEAREST else 0.0


@partial(compiled, nogil=False)
def _spread(scores: Floats) -> float:
    """Standard deviation; numpy's own takes twenty times as long on forty numbers."""
    total = 0.0
    for score in scores:
        total += score
    mean, squares = total / len(scores), 0.0
    for score in scores:
        squares += (score - mean) ** 2
    return math.sqrt(squares / len(scores))


@dataclass(frozen=True, slots=True)
class Link:
    """P(relevant) = 1 / (1 + exp(-(slope · raw + weights · clarity + intercept))), strictly increasing in raw.
    `calibrated` is false where the catalogue has no judgements of its own and inherits the shipped link. Source: Platt,
    1999."""

    slope: float
    intercept: float
    calibrated: bool
    weights: tuple[float, ...] = NO_CLARITY

    @classmethod
    def from_json(cls, value: Any) -> Link:
        """Raises ValueError for a link that is not strictly increasing."""
        slope, intercept = float(value["slope"]), float(value["intercept"])
        weights = tuple(float(value["clarity"][name]) for name in CLARITY) if "clarity" in value else NO_CLARITY
        if not (math.isfinite(slope) and math.isfinite(intercept) and slope > 0 and all(map(math.isfinite, weights))):
            raise ValueError("link must have a positive slope and finite weights")
        return cls(slope, intercept, bool(value["calibrated"]), weights)

    def to_json(self) -> dict[str, Any]:
        link = {"slope": self.slope, "intercept": self.intercept, "calibrated": self.calibrated}
        return link | ({"clarity": dict(zip(CLARITY, self.weights, strict=True))} if self.uses_clarity else {})

    @property
    def uses_clarity(self) -> bool:
        return any(self.weights)

    def offset(self, clarity: Clarity) -> float:
        """What the logit of every product of a query gets: the intercept and what its clarity says."""
        return self.intercept + math.fsum(map(operator.mul, self.weights, clarity))

    def probability(self, raw: npt.NDArray[np.float64], clarity: Clarity = NO_CLARITY) -> npt.NDArray[np.float64]:
        """Probabilities of one query's raw scores, [n]."""
        return _probabilities(np.ascontiguousarray(raw), self.slope, self.offset(clarity))


@partial(compiled, nogil=False)
def _probabilities(raw: npt.NDArray[np.float64], slope: float, offset: float) -> npt.NDArray[np.float64]:
    result = np.empty(len(raw))
    for at in range(len(raw)):
        result[at] = 1.0 / (1.0 + math.exp(-(slope * raw[at] + offset)))
    return result
