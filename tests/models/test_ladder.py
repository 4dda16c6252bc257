"""The ladder's blends and ablations, beside what a person would compute by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.index.arrays import load_array
from app.index.bundle import BundleStore
from app.search.features import NAMES
from app.search.rerank import Ranking
from app.search.searcher import Searcher
from app.types import Floats
from models.ladder import RRF_K, ablations, fixed_blends, latencies, tiers
from models.relevance import Gain, Qrels, Queries
from scripts.build import EMBEDDINGS
from tests.conftest import open_current

QUERIES = Queries({"a": "steel mug", "b": "bright lamp"})
QRELS = Qrels({"a": {"p005": 3.0, "p011": 0.0}, "b": {"p004": 3.0, "p010": 0.0}})


@pytest.fixture
def searcher(tiny_bundles: Path) -> Searcher:
    """A version of one's own."""
    return open_current(tiny_bundles)


@pytest.fixture
def embeddings(tiny_bundles: Path, searcher: Searcher) -> Floats:
    """The products' own vectors, float32 [60, dimension]."""
    store = BundleStore(tiny_bundles)
    path = store.path(searcher.version) / EMBEDDINGS
    return np.array(load_array(path, np.float16, 60, searcher.encoder.dimension), dtype=np.float32)


def test_the_fixed_blends_are_what_their_formulas_say(searcher: Searcher, embeddings: Floats) -> None:
    """Reciprocal ranks and min-max at 0.3, computed product by product."""
    blends = fixed_blends(searcher, embeddings, QUERIES, QRELS)
    for query_id, text in QUERIES.items():
        rows = np.arange(60, dtype=np.int32)
        words = [float(one) for one in searcher.words.scores(searcher.words.parse(text), rows)[:, 1]]
        dense = [float(one) for one in embeddings @ searcher.encoder.queries([text])[0]]
        fused, mixed = [0.0] * 60, [0.0] * 60
        for scores, weight in ((words, 0.7), (dense, 0.3)):
            for place, row in enumerate(sorted(range(60), key=lambda row, s=scores: (-s[row], row)), 1):
                fused[row] += 1 / (RRF_K + place) if scores[row] > 0 else 0.0
            low, high = min(scores), max(scores)
            mixed = [sum_ + weight * (one - low) / (high - low) for sum_, one in zip(mixed, scores, strict=True)]
        for name, expected in (("RRF", fused), ("min-max 0.3", mixed)):
            found = [searcher.catalog.row(product) for product, _ in blends[name][query_id]]
            assert np.allclose([expected[row or 0] for row in found], sorted(expected, reverse=True), atol=1e-6)


def test_an_ablation_changes_what_it_names_alone(searcher: Searcher, embeddings: Floats) -> None:
    """Without a feature the order is that of the default with this weight at 0; the ranking served is left alone."""
    before = searcher.ranking
    found = ablations(searcher, embeddings, QUERIES, QRELS, Gain(), fitted=False)
    assert searcher.ranking is before
    default = before.profiles["default"]
    changed = tuple(0.0 if place == NAMES.index("head") else weight for place, weight in enumerate(default.weights))
    searcher.ranking = Ranking({**before.profiles, "default": replace(default, weights=changed)})
    expected = tiers(searcher, QUERIES, QRELS, Gain(), fitted=False)["default"]
    assert {one: list(found["without head"][one]) for one in QUERIES} == {one: list(expected[one]) for one in QUERIES}
    assert {"without smoothing", "without mending of spelling", "without excluded", "legs alone"} <= found.keys()


def test_latencies_are_of_every_profile_that_was_asked_for(searcher: Searcher) -> None:
    """In milliseconds, the median not above the 99th percentile."""
    timed = latencies(searcher, ["steel mug"], ["lexical", "default"])
    assert list(timed) == ["lexical", "default"]
    assert all(0 < one.p50 <= one.p99 for one in timed.values())
