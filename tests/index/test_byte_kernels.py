"""The first look in bytes misses none of the nearest, and changes nothing of what a search finds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.index import byte_kernels, dense
from app.index.byte_kernels import ByteCodes
from app.index.dense import FaissIndex
from app.types import Floats

pytestmark = pytest.mark.skipif(
    not byte_kernels.multiplies_bytes(), reason="this processor does not multiply bytes (AVX-512 VNNI)"
)


def _vectors(count: int, dimension: int, seed: int = 3) -> Floats:
    random = np.random.default_rng(seed)
    vectors: Floats = random.normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("dimension", [1, 20, 64, 100, 384])
@pytest.mark.parametrize("queries", [1, 2, 4, 7])
def test_the_nearest_are_among_those_found(dimension: int, queries: int) -> None:
    """Of rows of very different lengths, too, of which some are nought; and most of the others are not."""
    rows = _vectors(3000, dimension)
    rows[::3] *= np.float32(0.01)
    rows[5::700] = 0.0
    halves = rows.astype(np.float16)
    asked = _vectors(queries, dimension, seed=4) * np.float32(0.7)
    found = ByteCodes(halves.view(np.uint16)).nearest(asked, 50)
    for query, one in zip(asked, found, strict=True):
        scores = halves.astype(np.float32) @ query
        assert set(np.flatnonzero(scores >= np.sort(scores)[-50])) <= set(one.tolist())
        assert (np.diff(one) > 0).all()
        assert dimension < 64 or len(one) < 500


def test_many_threads_find_what_one_finds() -> None:
    """The kernels let go of the interpreter; what they read must stay theirs while others take and free memory."""
    codes = ByteCodes(_vectors(2000, 384).astype(np.float16).view(np.uint16))
    asked = [_vectors(count, 384, seed=count) for count in (2, 3, 5, 8)]
    expected = [[rows.tolist() for rows in codes.nearest(queries, 40)] for queries in asked]

    def search(number: int) -> None:
        for turn in range(60):
            at = (number + turn) % len(asked)
            noise = [np.full((4, 384), turn, np.int8) for _ in range(50)]
            assert [rows.tolist() for rows in codes.nearest(asked[at], 40)] == expected[at]
            del noise

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(search, range(4)))


def test_a_query_of_nought_and_more_than_there_is_find_every_row() -> None:
    halves = _vectors(300, 64).astype(np.float16)
    codes = ByteCodes(halves.view(np.uint16))
    assert len(codes.nearest(np.zeros((1, 64), np.float32), 10)[0]) == 300
    assert len(codes.nearest(_vectors(2, 64), 1000)[1]) == 300


def test_the_bound_is_needed() -> None:
    """Control: without it rows are missed that lie as near as those found."""
    halves = _vectors(3000, 384).astype(np.float16)
    codes, asked = ByteCodes(halves.view(np.uint16)), _vectors(20, 384, seed=4)
    exact = [np.argsort(-(halves.astype(np.float32) @ query))[:50] for query in asked]

    def missed() -> int:
        return sum(len(set(near) - set(one)) for near, one in zip(exact, codes.nearest(asked, 50), strict=True))

    assert not missed()
    codes._error = codes._length = 0.0
    assert missed()


def test_a_search_finds_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and scores, alone and in company, ties among them; and a processor without such an instruction serves."""
    vectors = _vectors(2000, 96)
    vectors[100:200] = vectors[300:400]
    quick = FaissIndex.build(vectors)
    monkeypatch.setattr(byte_kernels, "multiplies_bytes", lambda: False)
    plain = FaissIndex.build(vectors)
    assert quick._bytes is not None and plain._bytes is None
    asked = _vectors(9, 96, seed=5)
    for depth in (1, 40, 2000, 3000):
        for one, other in (
            (quick.search_many(asked, depth), plain.search_many(asked, depth)),
            ([quick.search(query, depth, None) for query in asked], plain.search_many(asked, depth)),
        ):
            for (rows, scores), (expected, sums) in zip(one, other, strict=True):
                assert rows.tolist() == expected.tolist() and scores.tolist() == sums.tolist()


def test_an_index_of_nothing_has_none() -> None:
    assert FaissIndex.build(np.empty((0, 8), np.float32))._bytes is None
    assert dense.FaissIndex.build(np.empty((0, 8), np.float32)).search(np.ones(8, np.float32), 5, None)[0].size == 0
