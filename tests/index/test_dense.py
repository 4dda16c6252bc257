"""Stored vectors: FAISS against brute force, scores that depend on nothing but the pair, files that are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faiss
import numba
import numpy as np
import numpy.typing as npt
import pytest

from app.errors import CorruptPart
from app.index import dense, dense_kernels
from app.index.dense import ExactIndex, FaissIndex
from app.index.dense_kernels import all_finite, dot_rows, nearest_rows, top_rows
from app.types import Floats
from tests.conftest import ROOT

DIMENSION = 48


def _vectors(count: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((20, DIMENSION))
    vectors = centres[random.integers(20, size=count)] + 0.7 * random.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["flat", "lists"])
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FaissIndex:
    """3,000 vectors in either type."""
    if request.param == "lists":
        monkeypatch.setattr(dense, "FLAT_UP_TO", 100)
        monkeypatch.setattr(dense, "EXACT_SCAN_UP_TO", 200)
    built = FaissIndex.build(_vectors(3000))
    assert built.kind.startswith("IVF") == (request.param == "lists")
    return built


def test_the_nearest_are_found(index: FaissIndex) -> None:
    """All of the exact top 100 by the flat scan, nearly all by the lists; scores are those of the stored vectors."""
    exact, shares = ExactIndex(_vectors(3000)), []
    for query in _vectors(30, seed=1):
        rows, scores = index.search(query, 100, None)
        wanted, expected = exact.search(query, 100, None)
        shares.append(len(set(rows.tolist()) & set(wanted.tolist())) / 100)
        assert len(rows) == 100
        np.testing.assert_allclose(scores, exact.scores(query, rows), atol=2e-4)
        if not index.kind.startswith("IVF"):
            np.testing.assert_allclose(scores, expected, atol=2e-4)
    assert np.mean(shares) >= (0.98 if index.kind.startswith("IVF") else 0.999)


def test_many_at_once_find_what_each_finds_alone(index: FaissIndex) -> None:
    """The same rows and the same bits."""
    queries = _vectors(30, seed=5)
    for query, (rows, scores) in zip(queries, index.search_many(queries, 40), strict=True):
        wanted, expected = index.search(query, 40, None)
        assert np.array_equal(rows, wanted) and np.array_equal(scores, expected)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.05, 0.001, 0.0])
def test_a_filter_is_kept_at_every_selectivity(index: FaissIndex, share: float) -> None:
    """No row outside it; min(depth, allowed) rows; recall against exact at least 0.99."""
    allowed = np.random.default_rng(2).random(3000) < share
    exact, found, wanted = ExactIndex(_vectors(3000)), 0, 0
    for query in _vectors(20, seed=3):
        rows, _ = index.search(query, 50, allowed)
        expected, _ = exact.search(query, 50, allowed)
        assert allowed[rows].all()
        assert len(rows) == len(expected)
        found += len(set(rows.tolist()) & set(expected.tolist()))
        wanted += len(expected)
    assert found >= 0.99 * wanted


def test_a_score_is_the_same_bits_in_any_company(index: FaissIndex) -> None:
    """Alone, among all, in another order."""
    query = _vectors(1, seed=4)[0]
    everything = np.arange(3000, dtype=np.int32)
    scores = index.scores(query, everything)
    assert np.array_equal(index.scores(query, everything[::-1].copy())[::-1], scores)
    assert all(index.scores(query, np.array([row], dtype=np.int32))[0] == scores[row] for row in range(0, 3000, 97))
    rows, found = index.search(query, 40, None)
    assert np.array_equal(found, scores[rows])


def test_ties_are_in_order_of_rows() -> None:
    """Equal vectors: the lower rows are within the depth, in ascending order."""
    index = FaissIndex.build(np.repeat(_vectors(1), 50, axis=0))
    rows, scores = index.search(_vectors(1)[0], 10, np.ones(50, dtype=np.bool_))
    assert rows.tolist() == list(range(10))
    assert len(set(scores.tolist())) == 1


def test_saving_and_loading_changes_no_bit(index: FaissIndex, tmp_path: Path) -> None:
    """Vectors, scores and search results; and building again from the stored vectors gives them again."""
    index.save(tmp_path)
    loaded = FaissIndex.load(tmp_path)
    query = _vectors(1, seed=5)[0]
    assert (loaded.kind, len(loaded), loaded.dimension) == (index.kind, 3000, DIMENSION)
    assert np.array_equal(loaded.search(query, 50, None)[0], index.search(query, 50, None)[0])
    stored = np.array([index.vector(row) for row in range(3000)])
    assert np.array_equal(np.array([loaded.vector(row) for row in range(3000)]), stored)
    again = FaissIndex.build(stored)
    assert np.array_equal(np.array([again.vector(row) for row in range(3000)]), stored)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a saved index of 3,000 vectors in lists."""
    monkeypatch.setattr(dense, "FLAT_UP_TO", 100)
    FaissIndex.build(_vectors(3000)).save(tmp_path)
    return tmp_path


def test_codes_beside_lists_are_mapped(listed: Path) -> None:
    """The vectors are in a file that numpy reads; loading leaves none of it in this process's own memory."""
    loaded = FaissIndex.load(listed)
    stored = np.load(listed / dense.CODES)
    assert (stored.dtype, stored.shape) == (np.float16, (3000, DIMENSION))
    assert np.array_equal(loaded.vector(17), stored[17].astype(np.float32))
    assert "dense.codes.npy" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("row", [-1, 3000, 0])
def test_lists_that_do_not_hold_every_row_once_are_refused(row: int, listed: Path) -> None:
    """A row that is none, and one that is there twice: the kernel would read out of bounds, or never find another."""
    index = faiss.read_index(str(listed / dense.FILE))
    number = next(one for one in range(index.nlist) if index.invlists.list_size(one) > 1)
    rows = faiss.rev_swig_ptr(index.invlists.get_ids(number), 2)
    rows[rows == 0] = 1
    rows[0] = rows[1] if row == 0 else row
    faiss.write_index(index, str(listed / dense.FILE))
    with pytest.raises(CorruptPart, match=f"{dense.FILE}: .* row"):
        FaissIndex.load(listed)


@pytest.mark.parametrize("change", ["fewer", "narrower", "another type", "not finite", "absent"])
def test_codes_that_do_not_fit_their_lists_are_refused(change: str, listed: Path) -> None:
    """Each kind of misfit names the file."""
    path = listed / dense.CODES
    codes = np.load(path)
    if change == "not finite":
        codes[2999, 3] = np.inf
    changed = {"fewer": codes[:-1], "narrower": codes[:, :-1], "another type": codes.astype(np.float32)}
    path.unlink()
    if change != "absent":
        np.save(path, changed.get(change, codes))
    with pytest.raises(CorruptPart, match=dense.CODES):
        FaissIndex.load(listed)


def test_a_graph_of_an_earlier_release_is_served(tmp_path: Path) -> None:
    """Versions over 20,000 products were built as HNSW: they load, and find what they found."""
    vectors = _vectors(3000)
    graph = faiss.IndexHNSWSQ(DIMENSION, faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT)
    graph.train(vectors)
    graph.add(vectors)
    faiss.write_index(graph, str(tmp_path / dense.FILE))
    loaded, exact = FaissIndex.load(tmp_path), ExactIndex(vectors)
    assert loaded.kind == "HNSW32,SQfp16"
    shares = []
    for query in _vectors(20, seed=1):
        wanted = exact.search(query, 50, None)[0]
        shares.append(len(set(loaded.search(query, 50, None)[0].tolist()) & set(wanted.tolist())) / 50)
    assert np.mean(shares) >= 0.98


@pytest.mark.promise("D7", "NaN and infinity are not indexed")
def test_vectors_that_are_not_finite_are_not_indexed() -> None:
    """NaN and infinity."""
    for bad in (np.nan, np.inf):
        vectors = _vectors(10)
        vectors[3, 3] = bad
        with pytest.raises(ValueError, match="finite"):
            FaissIndex.build(vectors)


@pytest.mark.parametrize("kind", ["flat ip", "l2", "garbage", "absent"])
def test_a_file_of_another_kind_is_refused(kind: str, tmp_path: Path) -> None:
    """Another index type, another metric, no index at all."""
    path = tmp_path / dense.FILE
    if kind == "flat ip":
        faiss.write_index(faiss.IndexFlatIP(8), str(path))
    elif kind == "l2":
        faiss.write_index(faiss.IndexScalarQuantizer(8, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2), str(path))
    elif kind == "garbage":
        path.write_bytes(b"not an index at all" * 10)
    with pytest.raises(CorruptPart, match=dense.FILE):
        FaissIndex.load(tmp_path)


def test_half_floats_are_read_exactly() -> None:
    """Every finite half float, subnormals and signs included, times one."""
    codes = np.arange(2**16, dtype=np.uint16)
    values = codes.view(np.float16)
    codes = codes[np.isfinite(values)].reshape(-1, 1)
    rows = np.arange(len(codes), dtype=np.int32)
    scores = dot_rows(codes, rows, np.ones(1, dtype=np.float32))
    assert np.array_equal(scores, codes[:, 0].view(np.float16).astype(np.float32))


def test_a_code_that_is_not_finite_is_seen_anywhere() -> None:
    """Infinities and NaN of either sign, first and last; the largest finite numbers pass."""
    codes = np.full((5, 7), np.float16(65504)).view(np.uint16)
    assert all_finite(codes) and all_finite((-codes.view(np.float16)).view(np.uint16))
    for place in ((0, 0), (4, 6)):
        for bad in (np.inf, -np.inf, np.nan):
            changed = codes.copy()
            changed.view(np.float16)[place] = bad
            assert not all_finite(changed)


def test_top_rows_is_a_sort_cut_short() -> None:
    """Against the sort itself, with many ties, scores of both signs and both zeros."""
    random = np.random.default_rng(6)
    for count in (0, 1, 5, 40, 400):
        rows = np.sort(random.choice(1000, count, replace=False)).astype(np.int32)
        scores = random.integers(-3, 3, count).astype(np.float32) / np.float32(3.0)
        scores[::7] *= np.float32(-1.0)
        for depth in (1, 3, 50, 500):
            order = np.lexsort((rows, -scores))[:depth]
            found, kept = top_rows(rows, scores, depth)
            assert found.tolist() == rows[order].tolist()
            assert kept.tolist() == scores[order].tolist()


@pytest.mark.parametrize("by_instruction", sorted({False, dense_kernels._converts_halves()}))
def test_every_float16_becomes_the_float32_that_it_stands_for(
    by_instruction: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subnormals and signed zeros too, with an instruction for it and without."""
    monkeypatch.setattr(dense_kernels, "_converts_halves", lambda: by_instruction)
    single = dense_kernels._single

    @numba.njit
    def singles(codes: npt.NDArray[np.uint16], into: Floats) -> None:
        for at in range(len(codes)):
            into[at] = single(codes[at])

    codes = np.arange(1 << 16, dtype=np.uint16)
    codes = codes[np.isfinite(codes.view(np.float16))]
    found = np.empty(len(codes), np.float32)
    singles(codes, found)
    assert len(codes) == 2 * 31 * 1024
    np.testing.assert_array_equal(found.view(np.uint32), codes.view(np.float16).astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("wanted", [1, 30, 299, 300, 500])
def test_nearest_rows_hold_those_wanted_and_few_more(wanted: int) -> None:
    """Of queries of any number; all rows where nothing tells them apart."""
    vectors = _vectors(300).astype(np.float16)
    queries = np.concatenate([_vectors(6, seed=4), np.zeros((1, DIMENSION), np.float32)])
    assert [len(rows) for rows in nearest_rows(np.empty((0, DIMENSION), np.uint16), queries, 0)] == [0] * len(queries)
    *found, of_zeros = nearest_rows(vectors.view(np.uint16), queries, wanted)
    assert of_zeros.tolist() == list(range(300))
    for query, rows in zip(queries, found, strict=False):
        nearest = np.argsort(-(vectors.astype(np.float32) @ query))[:wanted]
        assert set(nearest.tolist()) <= set(rows.tolist()) and rows.tolist() == sorted(rows.tolist())
        assert len(rows) <= wanted + 30
    for count in range(1, len(queries)):
        some = nearest_rows(vectors.view(np.uint16), queries[:count], wanted)
        assert [rows.tolist() for rows in some] == [rows.tolist() for rows in found[:count]]


_NOWHERE_TO_WRITE = """
from numba.core import caching

def refuse(locator):
    raise OSError("read-only")

for one in vars(caching).values():
    if isinstance(one, type) and hasattr(one, "ensure_cache_path"):
        one.ensure_cache_path = refuse
from numba import njit
try:
    njit(cache=True)(lambda: None)
except RuntimeError:
    import app.index.kernels, app.index.dense_kernels
else:
    raise SystemExit("the fault did not happen")
"""


def test_kernels_load_where_nothing_can_be_written() -> None:
    """A read-only file system has no place for compiled code: it is compiled in memory."""
    run = subprocess.run([sys.executable, "-c", _NOWHERE_TO_WRITE], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


def _graph(folder: Path, vectors: Floats) -> None:
    graph = faiss.IndexHNSWSQ(DIMENSION, faiss.ScalarQuantizer.QT_fp16, 8, faiss.METRIC_INNER_PRODUCT)
    graph.train(vectors)
    graph.add(vectors)
    faiss.write_index(graph, str(folder / dense.FILE))


def _recall(index: FaissIndex, depth: int) -> float:
    exact, shares = index.exact(), []
    for query in _vectors(40, seed=8):
        wanted = exact.search(query, depth, None)[0]
        shares.append(len(set(index.search(query, depth, None)[0].tolist()) & set(wanted.tolist())) / depth)
    return float(np.mean(shares))


def test_ef_search_of_a_manifest_is_applied_and_changes_the_search(tmp_path: Path) -> None:
    """FAISS counts the nodes that it compares: at 512 more than at 1, where it is still as many as are wanted; and the
    recall grows with it."""
    _graph(tmp_path, _vectors(3000))
    narrow = FaissIndex.load(tmp_path, {"ef_search": 1})
    broad = FaissIndex.load(tmp_path, {"ef_search": 512})
    assert (narrow.breadth, broad.breadth) == (1, 512)
    assert (narrow.reads(5), broad.reads(5)) == (37, 512)
    compared = {}
    for index in (narrow, broad):
        faiss.cvar.hnsw_stats.reset()
        for query in _vectors(20, seed=9):
            index.search(query, 5, None)
        compared[index.breadth] = faiss.cvar.hnsw_stats.ndis
    assert compared[512] > 2 * compared[1]
    assert _recall(broad, 5) > _recall(narrow, 5) + 0.01


def test_nprobe_of_a_manifest_is_applied_and_changes_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As few lists as hold what is wanted, and all of them; without a number it is as it ever was.
    A filter reads more in the same proportion. Vectors without clusters are the hard case."""
    monkeypatch.setattr(dense, "FLAT_UP_TO", 100)
    FaissIndex.build(np.random.default_rng(7).standard_normal((3000, DIMENSION)).astype(np.float32)).save(tmp_path)
    narrow, broad = FaissIndex.load(tmp_path, {"nprobe": 1}), FaissIndex.load(tmp_path, {"nprobe": 512})
    assert FaissIndex.load(tmp_path).parameters == {"nprobe": 208}
    assert narrow.reads(5) < broad.reads(5)
    assert _recall(narrow, 5) < _recall(broad, 5) - 0.05
    assert narrow._read(1, 0.5) == round(narrow.breadth * 512 / 208)


def test_the_same_index_can_be_read_twice_as_broadly(listed: Path) -> None:
    """Side by side, over the same codes."""
    one = FaissIndex.load(listed)
    other = one.read_to(3)
    assert (one.breadth, other.breadth) == (208, 3)
    assert np.shares_memory(one._codes, other._codes)


@pytest.mark.parametrize("breadth", [0, -1, 2**30, "64", 1.5, True])
def test_a_breadth_that_is_none_is_refused(breadth: object, listed: Path) -> None:
    """The manifest is named."""
    with pytest.raises(CorruptPart, match=r"manifest.json: dense: nprobe"):
        FaissIndex.load(listed, {"nprobe": breadth})


def test_a_flat_index_has_no_breadth(tmp_path: Path) -> None:
    """It reads every row, and says so."""
    FaissIndex.build(_vectors(50)).save(tmp_path)
    flat = FaissIndex.load(tmp_path, {"nprobe": 5})
    assert (flat.parameter, flat.parameters, flat.reads(10)) == (None, {}, 0)
    with pytest.raises(ValueError, match="every row"):
        flat.read_to(5)
