"""The third layer: an index that loses what it holds."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from app.index.dense import ExactIndex, FaissIndex
from app.types import Floats
from models.gate import found_share
from tests.models.gate.shop import Shop


def _graph(vectors: Floats, *, torn: float = 0.0) -> FaissIndex:
    """HNSW; a share of its products has lost the links to others."""
    index: Any = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    links = faiss.vector_to_array(index.hnsw.neighbors)
    offsets = faiss.vector_to_array(index.hnsw.offsets)
    for row in range(int(torn * len(vectors))):
        links[offsets[row] : offsets[row + 1]] = -1
    links[np.isin(links, np.arange(int(torn * len(vectors))))] = -1
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    return FaissIndex(index)


@pytest.mark.parametrize(("torn", "layers"), [(0.0, ()), (0.5, ("recall",))])
def test_a_torn_graph_is_seen_by_recall_alone(
    torn: float, layers: tuple[str, ...], tiny_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every vector is the right one and the build's own answers agree with themselves; whole, it passes (control)."""
    monkeypatch.setattr(FaissIndex, "build", lambda vectors: _graph(vectors, torn=torn))
    monkeypatch.setattr("scripts.build._recall_probe", lambda *_: 1.0)  # a build's own probe would not even seal it
    verdict = tiny_shop.judge(tiny_shop.rebuilt())
    assert verdict.layers[: len(layers) or None] == layers, verdict.table().text()


def test_the_share_is_of_the_exact_best() -> None:
    """1 for a whole scan, near 1 for a graph, and far from it for a torn one."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((2000, 16)).astype(np.float32)
    queries = random.standard_normal((20, 16)).astype(np.float32)
    assert found_share(ExactIndex(vectors), queries) == 1.0
    assert found_share(FaissIndex.build(vectors), queries) == 1.0
    assert found_share(_graph(vectors), queries) > 0.95
    assert found_share(_graph(vectors, torn=0.5), queries) < 0.7
