"""The two sizes of a promise's test: one that `make test` can afford, and the one that the bar speaks of."""

from __future__ import annotations

from typing import Any

import pytest


def forms(fast: Any, deep: Any) -> list[Any]:
    """Parameters of a test: the deep form carries its marker."""
    return [pytest.param(fast, id="fast"), pytest.param(deep, id="deep", marks=pytest.mark.deep)]
