"""What the gate found: one row a check, as a table to read and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.relevance import Table

LAYERS = ("inputs", "fingerprint", "recall", "relevance")
PASSED: Literal["passed"] = "passed"
REFUSED: Literal["refused"] = "refused"
NOT_RUN: Literal["not run"] = "not run"
UNGATED: Literal["ungated"] = "ungated"
Figures = Mapping[str, float | int | str | None]


@dataclass(frozen=True)
class Check:
    """One check of a layer: what was found, in words and in figures, and the limit that it was held to. `not run`
    carries the reason in `found`."""

    layer: str
    name: str
    outcome: Literal["passed", "refused", "not run"]
    found: str
    limit: str = ""
    figures: Figures = field(default_factory=dict)

    @classmethod
    def of(cls, layer: str, name: str, good: bool, found: str, limit: str, figures: Figures | None = None) -> Check:
        """A check that ran."""
        return cls(layer, name, PASSED if good else REFUSED, found, limit, figures or {})

    @classmethod
    def not_run(cls, layer: str, name: str, why: str) -> Check:
        return cls(layer, name, NOT_RUN, why)


@dataclass(frozen=True)
class Verdict:
    """The checks of one version against the served one (None where nothing is served), in the order of the layers."""

    version: str
    served: str | None
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Literal["passed", "refused", "ungated"]:
        """`ungated` where nothing was refused and no relevance check ran."""
        if self.refused:
            return REFUSED
        gated = any(check.layer == LAYERS[-1] and check.outcome == PASSED for check in self.checks)
        return PASSED if gated else UNGATED

    @property
    def refused(self) -> tuple[Check, ...]:
        """The checks that did not hold, the cheapest layer's first."""
        return tuple(check for check in self.checks if check.outcome == REFUSED)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that refuse, each once."""
        return tuple(dict.fromkeys(check.layer for check in self.refused))

    @property
    def summary(self) -> str:
        """One line."""
        if self.outcome == REFUSED:
            first = self.refused[0]
            return f"the gate's layer {', '.join(self.layers)} refuses {self.version}: {first.name}: {first.found}"
        if self.outcome == UNGATED:
            return f"{self.version} passes ungated: no judgements say whether it ranks as well as before"
        return f"{self.version} passes the gate"

    def table(self) -> Table:
        """A row a check."""
        rows = tuple((check.layer, check.name, check.outcome, check.found, check.limit) for check in self.checks)
        return Table(("layer", "check", "verdict", "found", "limit"), rows)

    def to_json(self) -> dict[str, Any]:
        """Everything, figures included."""
        return {
            "version": self.version,
            "served": self.served,
            "outcome": self.outcome,
            "layers_refusing": list(self.layers),
            "checks": [
                {
                    "layer": check.layer,
                    "check": check.name,
                    "verdict": check.outcome,
                    "found": check.found,
                    "limit": check.limit,
                    "figures": dict(check.figures),
                }
                for check in self.checks
            ],
        }
