"""How well held-out queries find their products: what decides when to stop. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.types import Floats
from models.training.data import Corpus, Pair

_POOL = 4  # purpose of the random draw; see models.training.data


@dataclass(frozen=True)
class HeldOut:
    """Query texts, the products among which they search, and each query's answers as places in that pool."""

    queries: tuple[str, ...]
    rows: tuple[int, ...]
    answers: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair], corpus: Corpus, pool: int, seed: int) -> HeldOut:
        """The pairs' queries, and their products among `pool` others."""
        wanted: dict[str, set[int]] = {}
        for pair in pairs:
            wanted.setdefault(pair.query, set()).add(pair.row)
        answers = set().union(*wanted.values()) if wanted else set()
        others = [row for row in range(len(corpus)) if row not in answers]
        random = np.random.default_rng((seed, _POOL))
        drawn = random.permutation(len(others))[:pool]
        rows = sorted(answers | {others[at] for at in drawn})
        place = {row: at for at, row in enumerate(rows)}
        return cls(tuple(wanted), tuple(rows), tuple(frozenset(place[row] for row in own) for own in wanted.values()))

    def recall_and_mrr(self, queries: Floats, products: Floats, depth: int = 10) -> tuple[float, float]:
        """Mean recall and mean reciprocal rank of the first answer, both at `depth`; vectors in the order of `queries`
        and `rows`. Both are nan without a query."""
        recalls, ranks = [], []
        for query, answers in zip(queries, self.answers, strict=True):
            top = np.argsort(-(products @ query), kind="stable")[:depth]
            hits = [place for place, row in enumerate(top) if int(row) in answers]
            recalls.append(len(hits) / min(len(answers), depth))
            ranks.append(1.0 / (1 + hits[0]) if hits else 0.0)
        if not recalls:
            return float("nan"), float("nan")
        return float(np.mean(recalls)), float(np.mean(ranks))
