"""Random judgements and runs with what real ones have: ties, missing queries, unjudged and unretrieved products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.relevance import Qrels, Run

Scenario = tuple[Qrels, Run]


@pytest.fixture
def random_scenario() -> Callable[[int], Scenario]:
    """Judgements with grades 0 to 3 and a run over them, by seed."""
    return _scenario


def _scenario(seed: int, queries: int = 25) -> Scenario:
    rng = np.random.default_rng(seed)
    grades: dict[str, dict[str, float]] = {}
    rankings: dict[str, list[tuple[str, float]]] = {}
    for q in range(queries):
        pool = [f"p{i}" for i in range(40)]
        judged = rng.choice(pool, size=int(rng.integers(1, 25)), replace=False)
        # Some queries have nothing relevant at all.
        top = 2 if rng.random() < 0.2 else 4
        grades[f"q{q}"] = {str(p): float(rng.integers(0, top)) for p in judged}
        if rng.random() < 0.9:
            retrieved = rng.choice(pool, size=int(rng.integers(0, 40)), replace=False)
            # Few distinct scores, so that there are many ties.
            rankings[f"q{q}"] = [(str(p), float(rng.integers(0, 6))) for p in retrieved]
    rankings["nobody-judged-this"] = [("p1", 1.0)]
    return Qrels(grades), Run(rankings)
