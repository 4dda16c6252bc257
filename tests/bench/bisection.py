"""A search for the highest rate that passes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Bisection:
    """The highest rate that passes, between `low` and `high` or beyond them where all or none pass; geometric, as rates
    are told apart by ratios. `best` is a rate that did pass, 0 where none has."""

    low: float
    high: float
    best: float = 0.0
    failed: bool = False

    @property
    def rate(self) -> float:
        """What to try next."""
        return float((self.low * self.high) ** 0.5)

    def tell(self, passed: bool) -> None:
        """How `rate` went."""
        if passed:
            self.best = self.low = self.rate
            if not self.failed:
                self.high = max(self.high, 1.2 * self.low)
        else:
            self.high, self.failed = self.rate, True
            if not self.best:
                self.low = min(self.low, self.high / 1.5)
