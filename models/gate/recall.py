"""Third layer: what the vector index finds of what is there."""

from __future__ import annotations

import numpy as np

from app.index.analysis import normalize_text
from app.index.dense import VectorIndex
from app.search.searcher import Searcher
from app.types import Floats
from models.gate.limits import Limits
from models.gate.verdict import Check
from models.parity import PROBE_TEXTS as TEXTS

LAYER = "recall"
PROBES = 50
_DEPTH = 100


def check(candidate: Searcher, texts: tuple[str, ...], limits: Limits) -> Check:
    """Probes are products' own vectors, as in a build, and queries: an approximate index may find the neighbours of
    what it holds and lose those of what it is asked (queries lie elsewhere in the space)."""
    index = candidate.vectors
    if not len(index):
        return Check.not_run(LAYER, "top 100", "the version holds no products")
    rows = np.random.default_rng(0).permutation(len(index))[:PROBES]
    asked = [text for text in map(normalize_text, texts) if text][:PROBES] or list(TEXTS)
    shares = {
        "products": found_share(index, np.stack([index.vector(int(row)) for row in rows])),
        "queries": found_share(index, candidate.encoder.queries(asked)),
    }
    found = ", ".join(f"{share:.1%} for {name}" for name, share in shares.items())
    good = min(shares.values()) >= limits.recall
    return Check.of(LAYER, "top 100", good, f"{found} ({index.kind})", f"at least {limits.recall:.0%} each", shares)


def found_share(index: VectorIndex, probes: Floats) -> float:
    """Share of the exact top 100 that the index finds, mean over probe vectors [n, dimension]. Of products that score
    alike (one text, many sizes) any will do."""
    depth = min(_DEPTH, len(index))
    every = np.arange(len(index), dtype=np.int32)
    shares = []
    for probe in probes:
        exact = index.scores(probe, every)
        least = np.partition(exact, len(exact) - depth)[len(exact) - depth]
        found, _ = index.search(probe, depth, None)
        shares.append(np.count_nonzero(exact[found] >= least) / depth)
    return float(np.mean(shares))
