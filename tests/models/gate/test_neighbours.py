"""The vectors that an index must hold where products are drawn towards their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from app.search.probes import cosines
from models.gate.neighbours import drawn

EMBEDDINGS = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float16)


def _by_definition(row: int, count: int, share: float) -> np.ndarray:
    """One product after the other, in float64."""
    vectors = EMBEDDINGS.astype(np.float64)
    others = [(float(vectors[row] @ v / np.linalg.norm(vectors[row]) / np.linalg.norm(v)), v) for v in vectors]
    near = sorted((pair for i, pair in enumerate(others) if i != row), key=lambda pair: -pair[0])[:count]
    weights = np.array([max(cosine, 1e-6) for cosine, _ in near])
    mean = (weights / weights.sum()) @ np.array([v for _, v in near])
    return np.asarray((1 - share) * vectors[row] + share * mean)


@pytest.mark.parametrize("chunk", [7, 100, 1000])
def test_a_vector_is_drawn_as_defined(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the catalogue is cut into chunks."""
    monkeypatch.setattr("models.gate.neighbours._CHUNK", chunk)
    rows = np.array([0, 6, 7, 99, 100, 299])
    expected = np.stack([_by_definition(row, 5, 0.5) for row in rows])
    np.testing.assert_allclose(drawn(EMBEDDINGS, rows, 5, 0.5), expected, atol=1e-4)


@pytest.mark.parametrize(("count", "share"), [(0, 0.5), (5, 0.0)])
def test_without_neighbours_a_vector_is_its_own(count: int, share: float) -> None:
    """And with them it is another (control)."""
    rows = np.arange(10)
    own = EMBEDDINGS[:10].astype(np.float32)
    np.testing.assert_array_equal(drawn(EMBEDDINGS, rows, count, share), own)
    assert cosines(drawn(EMBEDDINGS, rows, 5, 0.5), own).max() < 0.999
