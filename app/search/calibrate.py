"""Stage 8: a raw score becomes the probability that the product is relevant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Link:
    """P(relevant) = 1 / (1 + exp(-(slope · raw + intercept))), strictly increasing. `calibrated` is false where the
    catalogue has no judgements of its own and inherits the shipped link. Source: Platt, 1999."""

    slope: float
    intercept: float
    calibrated: bool

    @classmethod
    def from_json(cls, value: Any) -> Link:
        """Raises ValueError for a link that is not strictly increasing."""
        slope, intercept = float(value["slope"]), float(value["intercept"])
        if not (math.isfinite(slope) and math.isfinite(intercept) and slope > 0):
            raise ValueError("link must have a positive slope")
        return cls(slope, intercept, bool(value["calibrated"]))

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope, "intercept": self.intercept, "calibrated": self.calibrated}

    def probability(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probabilities of raw scores, [n]."""
        with np.errstate(over="ignore"):
            result: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(self.slope * raw + self.intercept)))
        return result
