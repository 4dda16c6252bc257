"""FAISS on a GPU against FAISS on the CPU: with a stand-in for its GPU functions everywhere, and on a device where one
is."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app import metrics
from app.errors import IndexUnavailable, VersionRefused
from app.index import dense, dense_gpu
from app.index.bundle import BundleStore
from app.index.dense import EXACT_KINDS, ExactIndex, FaissIndex, FewVectors
from app.index.dense_gpu import GpuIndex, cpu_index
from app.index.live import Layout, LiveVectors
from app.search import versions
from app.search.collections import Collections
from app.search.job import SearchJob
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from app.types import Floats, SearchRequest
from tests.conftest import Client
from tests.index.gpu_stand_in import StandInGpu

DIMENSION, COUNT = 48, 3000


def _vectors(count: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, DIMENSION))
    vectors = centres[random.integers(20, size=count)] + 0.7 * random.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _failures(cause: str) -> float:
    return metrics.REGISTRY.get_sample_value("aisle_gpu_index_failures_total", {"cause": cause}) or 0.0


@pytest.fixture
def device() -> Iterator[Executor]:
    """The one thread that may touch the device."""
    with ThreadPoolExecutor(1, thread_name_prefix="device") as executor:
        yield executor


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInGpu]:
    """FAISS's GPU functions, stood in for; and catalogues of hundreds that count as large."""
    stand_in = StandInGpu()
    monkeypatch.setattr(dense_gpu, "faiss", stand_in)
    monkeypatch.setattr(dense_gpu, "_TRIAL", "")
    for module in (dense, dense_gpu):
        monkeypatch.setattr(module, "EXACT_SCAN_UP_TO", 200)
    monkeypatch.setattr(versions, "EXACT_SCAN_UP_TO", 50)
    dense_gpu._resources.cache_clear()
    yield stand_in
    dense_gpu._resources.cache_clear()
    dense_gpu._LET_GO.clear()


@pytest.fixture(params=["flat", "lists"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FaissIndex:
    """3,000 vectors in either type."""
    if request.param == "lists":
        monkeypatch.setattr(dense, "FLAT_UP_TO", 100)
    return FaissIndex.build(_vectors(COUNT))


@pytest.fixture
def flat() -> FaissIndex:
    """3,000 vectors in a flat index."""
    return FaissIndex.build(_vectors(COUNT))


def _settled(device: Executor) -> None:
    """Until the device thread has done all that it was given."""
    device.submit(lambda: None).result()


@pytest.mark.parametrize("depth", [1, 10, 100, 1000, 1985, 3000])
def test_the_device_finds_what_an_exact_scan_finds(
    depth: int, cpu: FaissIndex, gpu: StandInGpu, device: Executor
) -> None:
    """The same rows in the same order with the same bits of scores as the flat CPU index, also over a version whose CPU
    index is approximate; beyond 2,048 rows the CPU answers."""
    flat, index = FaissIndex(cpu._index, None) if cpu.kind == "SQfp16" else None, GpuIndex(cpu, device)
    exact = ExactIndex(_vectors(COUNT))
    assert index.kind == f"GPU flat fp16, {cpu.kind}" and (index.kind in EXACT_KINDS) == (cpu.kind == "SQfp16")
    asked = len(gpu.batches)
    for query in _vectors(20, seed=1):
        rows, scores = index.search(query, depth, None)
        assert np.array_equal(scores, cpu.scores(query, rows))
        if flat is not None:
            expected = flat.search(query, depth, None)
            assert np.array_equal(rows, expected[0]) and np.array_equal(scores, expected[1])
        elif depth <= 1984:
            np.testing.assert_allclose(scores, exact.search(query, depth, None)[1], atol=2e-4)
    assert (len(gpu.batches) > asked) == (depth + 64 <= 2048)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.1, 0.05, 0.001, 0.0])
def test_a_filter_is_kept_at_every_selectivity(
    share: float, flat: FaissIndex, gpu: StandInGpu, device: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's hits; the device is asked where it can hold enough of what is allowed, then suffices."""
    index = GpuIndex(flat, device)
    allowed = np.random.default_rng(2).random(COUNT) < share
    queries = _vectors(20, seed=3)
    expected = [flat.search(query, 50, allowed) for query in queries]
    asked, on_cpu, search = len(gpu.batches), [], flat.search
    monkeypatch.setattr(flat, "search", lambda *given: (on_cpu.append(given), search(*given))[1])
    for query, (rows, scores) in zip(queries, expected, strict=True):
        found, theirs = index.search(query, 50, allowed)
        assert allowed[found].all()
        assert np.array_equal(found, rows) and np.array_equal(theirs, scores)
    assert len(gpu.batches) - asked == (20 if share >= 0.1 else 0)
    assert len(on_cpu) <= 2 if share >= 0.1 else len(on_cpu) == 20


def test_what_a_filter_lets_through_may_lie_far_away(flat: FaissIndex, gpu: StandInGpu, device: Executor) -> None:
    """Half of the products, none of them near: the device is asked in vain, and the CPU's hits are the answer."""
    index, query = GpuIndex(flat, device), _vectors(1, seed=3)[0]
    far = np.argsort(flat.scores(query, np.arange(COUNT, dtype=np.int32)))[: COUNT // 2]
    allowed = np.zeros(COUNT, dtype=np.bool_)
    allowed[far] = True
    asked = len(gpu.batches)
    rows, _ = index.search(query, 50, allowed)
    assert len(gpu.batches) == asked + 1
    assert np.array_equal(rows, flat.search(query, 50, allowed)[0])


def test_ties_are_in_order_of_rows(gpu: StandInGpu, device: Executor) -> None:
    """Equal vectors, which the device gives in the opposite order."""
    index = GpuIndex(FaissIndex.build(np.repeat(_vectors(1), 60, axis=0)), device)
    rows, scores = index.search(_vectors(1)[0], 10, None)
    assert rows.tolist() == list(range(10)) and len(set(scores.tolist())) == 1


def test_many_queries_are_one_scan(flat: FaissIndex, gpu: StandInGpu, device: Executor) -> None:
    """Each gets what it gets alone; no scan is of more than 64."""
    index, queries = GpuIndex(flat, device), _vectors(100, seed=4)
    del gpu.batches[:]
    found = index.search_many(queries, 40)
    assert gpu.batches == [(64, 128), (36, 128)]
    for query, (rows, scores) in zip(queries, found, strict=True):
        expected = flat.search(query, 40, None)
        assert np.array_equal(rows, expected[0]) and np.array_equal(scores, expected[1])


def test_one_thread_touches_the_device(flat: FaissIndex, gpu: StandInGpu, device: Executor) -> None:
    """Eight threads search at once, with and without filters: answers are those of one alone, and what waits while the
    device is busy is taken as one batch."""
    index, queries = GpuIndex(flat, device), _vectors(8 * 20, seed=5)
    half = np.arange(COUNT) % 2 == 0
    gpu.before_search = lambda: time.sleep(0.002)
    wrong: list[int] = []

    def ask(worker: int) -> None:
        for at in range(worker * 20, worker * 20 + 20):
            depth, allowed = 5 + at % 90, half if at % 3 == 0 else None
            rows, scores = index.search(queries[at], depth, allowed)
            expected, theirs = flat.search(queries[at], depth, allowed)
            if not (np.array_equal(rows, expected) and np.array_equal(scores, theirs)):
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert gpu.threads == {"device_0"}
    assert max(count for count, wanted in gpu.batches if wanted < 2048) > 1
    assert index.kind.startswith("GPU"), "no failure on the way"


def test_where_the_device_fails_the_cpu_answers(
    flat: FaissIndex, gpu: StandInGpu, device: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller sees its hits; it is counted, said once, and the device's memory is given back."""
    index, query, before = GpuIndex(flat, device), _vectors(1, seed=6)[0], _failures("raised")
    assert gpu.used_bytes == COUNT * DIMENSION * 2 and index.kind != flat.kind
    expected = flat.search(query, 30, None)

    def fails() -> None:
        raise RuntimeError("StandardGpuResources: alloc fail\n out of memory")

    gpu.before_search = fails
    for _ in range(3):
        assert np.array_equal(index.search(query, 30, None)[0], expected[0])
    assert np.array_equal(index.search_many(query.reshape(1, -1), 30)[0][0], expected[0])
    assert _failures("raised") == before + 1
    assert [record.message for record in caplog.records] == [
        "the index on the GPU failed (raised: RuntimeError: StandardGpuResources: alloc fail out of memory); "
        "the CPU's takes its place"
    ]
    assert index.kind == flat.kind
    _settled(device)
    assert gpu.used_bytes == 0


def test_a_device_that_hangs_is_not_waited_for(
    flat: FaissIndex, gpu: StandInGpu, device: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the CPU answers, and at once from then on."""
    monkeypatch.setattr(dense_gpu, "_PATIENCE_S", 0.05)
    index, query, before = GpuIndex(flat, device), _vectors(1, seed=6)[0], _failures("late")
    going_on = threading.Event()
    gpu.before_search = lambda: going_on.wait(10) and None
    started = time.perf_counter()
    for _ in range(3):
        assert np.array_equal(index.search(query, 30, None)[0], flat.search(query, 30, None)[0])
    assert time.perf_counter() - started < 2
    assert _failures("late") == before + 1 and index.kind == flat.kind
    going_on.set()
    _settled(device)
    assert gpu.used_bytes == 0


def test_an_index_nobody_uses_is_destroyed_by_the_device_thread(
    flat: FaissIndex, gpu: StandInGpu, device: Executor
) -> None:
    """At the next thing that happens on the device, whoever let go of it."""
    index, other = GpuIndex(flat, device), GpuIndex(flat, device)
    del index
    gc.collect()
    assert gpu.used_bytes == 2 * COUNT * DIMENSION * 2
    other.search(_vectors(1)[0], 10, None)
    assert gpu.used_bytes == COUNT * DIMENSION * 2
    assert gpu.threads == {"device_0"}


def test_memory_is_bounded(flat: FaissIndex, gpu: StandInGpu, device: Executor) -> None:
    """Work space of half a gibibyte, nothing pinned; the largest search has run before anybody asks."""
    GpuIndex(flat, device)
    assert (gpu.temporary_bytes, gpu.pinned_bytes) == (512 << 20, 0)
    assert gpu.batches == [(64, 2048)]


def test_a_device_that_is_too_small_is_refused(flat: FaissIndex, gpu: StandInGpu, device: Executor) -> None:
    """With FAISS's own words, and nothing stays behind on it."""
    gpu.memory_bytes, before = 1000, _failures("build")
    with pytest.raises(IndexUnavailable, match="the GPU cannot hold the index of 3000 products: .*alloc fail"):
        GpuIndex(flat, device)
    _settled(device)
    assert gpu.used_bytes == 0 and _failures("build") == before + 1


@pytest.mark.parametrize(
    "trial, word",
    [
        ("import sys; sys.exit('no CUDA device')", "FAISS cannot search on a GPU: no CUDA device"),
        (
            'import os, sys; print("Faiss assertion failed; details: CUDA error 209", file=sys.stderr); os.abort()',
            "FAISS cannot search on a GPU: Faiss assertion failed; details: CUDA error 209",
        ),
        ("import os; os.abort()", "FAISS cannot search on a GPU: the trial ended with -6"),
        ("import time; time.sleep(60)", "FAISS could not be tried on a GPU: TimeoutExpired"),
    ],
)
def test_what_would_end_the_process_is_tried_in_another(
    trial: str, word: str, flat: FaissIndex, gpu: StandInGpu, device: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS aborts on most CUDA errors."""
    monkeypatch.setattr(dense_gpu, "_TRIAL", trial)
    monkeypatch.setattr(dense_gpu, "_TRIAL_S", 0.5 if "sleep" in trial else 60)
    with pytest.raises(IndexUnavailable, match=word):
        GpuIndex(flat, device)
    assert not gpu.threads, "the device was not touched from here"


def test_the_trial_itself_runs() -> None:
    """The shipped lines, with the FAISS that is installed: they find a device, or say that there is none."""
    said = None
    try:
        dense_gpu._try_apart()
    except IndexUnavailable as error:
        said = error.detail
    assert said in (None, "FAISS cannot search on a GPU: no CUDA device")


def test_a_faiss_without_gpu_functions_is_named(
    flat: FaissIndex, device: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to install, too."""
    monkeypatch.setattr(dense_gpu, "faiss", SimpleNamespace())
    with pytest.raises(IndexUnavailable, match=r"no GPU functions \(pip install 'aisle\[gpu\]'\)"):
        GpuIndex(flat, device)


def test_changes_are_searched_beside_the_device(flat: FaissIndex, gpu: StandInGpu, device: Executor) -> None:
    """A version with changed products answers as over the CPU's index, one query and many, also where so many of the
    best have gone that a mask is needed; what is kept for good is chosen by the CPU."""
    index = GpuIndex(flat, device)
    few = FewVectors.of(_vectors(40, seed=7))
    part: Any = SimpleNamespace(
        catalog=range(40), ids=[f"x{at:02}" for at in range(40)], before=np.arange(40, dtype=np.int64) * 70
    )
    query = _vectors(1, seed=8)[0]
    nearest = flat.search(query, 400, None)[0]
    for gone in (np.arange(0, COUNT, 5), nearest):
        live = np.ones(COUNT + 40, dtype=np.bool_)
        live[gone] = False
        layout = Layout(COUNT, [part], live)
        changed, expected = LiveVectors([index, few], layout), LiveVectors([flat, few], layout)
        assert changed.kind == index.kind != expected.kind
        queries = np.concatenate([query.reshape(1, -1), _vectors(9, seed=8)])
        together = changed.search_many(queries, 30)
        for one, (rows, scores) in zip(queries, together, strict=True):
            wanted = expected.search(one, 30, None)
            assert np.array_equal(rows, wanted[0]) and np.array_equal(scores, wanted[1])
            assert np.array_equal(changed.search(one, 30, None)[0], wanted[0])
            assert live[rows].all()
    assert cpu_index(index) is flat and cpu_index(flat) is flat


def test_the_searcher_asks_for_a_batch_at_once(
    tiny_searcher: Searcher, gpu: StandInGpu, device: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries without a filter in one scan, those with one by themselves; answers are the CPU's bytes."""
    texts = ["wooden lamp", "blue kettle", "garden hose", "lamp"]
    requests = [SearchRequest(text) for text in texts] + [SearchRequest("lamp", filter={"field": "price", "lt": 50})]

    def answers(searcher: Searcher) -> list[bytes]:
        jobs = [SearchJob(searcher, searcher.query(request), 0.0) for request in requests]
        searcher.search(jobs)
        assert all({"dense", "score"} <= {timing.stage for timing in job.timings} for job in jobs)
        return [job.answer.tail if job.answer else b"" for job in jobs]

    expected = answers(tiny_searcher)
    assert isinstance(tiny_searcher.vectors, FaissIndex) and all(expected)
    index = GpuIndex(tiny_searcher.vectors, device)
    searcher = tiny_searcher.changed(tiny_searcher.catalog, tiny_searcher.words, index, tiny_searcher.state)
    del gpu.batches[:]
    assert answers(searcher) == expected
    assert gpu.batches[0][0] == len(texts)

    def fails() -> None:
        raise RuntimeError("lost")

    gpu.before_search = fails
    assert answers(searcher) == expected


async def test_the_provider_decides(
    tiny_bundles: Path, gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto`: the device where it can, else the CPU with one warning; `cuda`: the device or nothing; `cpu`: never."""
    store, encoders = BundleStore(tiny_bundles, "default"), Encoders("cpu")
    version = store.current() or ""
    for provider, kind in (("auto", "GPU flat fp16, SQfp16"), ("cuda", "GPU flat fp16, SQfp16"), ("cpu", "SQfp16")):
        assert load(store, version, encoders, provider).searcher.vectors.kind == kind  # type: ignore[arg-type]  # a Literal
    assert load(store, version, encoders).searcher.vectors.kind == "SQfp16", "what runs offline measures the version"
    with monkeypatch.context() as small:
        small.setattr(versions, "EXACT_SCAN_UP_TO", 60)
        for provider in ("auto", "cuda"):
            assert load(store, version, encoders, provider).searcher.vectors.kind == "SQfp16", "few are scanned at once"  # type: ignore[arg-type]  # a Literal
    caplog.clear()
    monkeypatch.setattr(dense_gpu, "_TRIAL", "import sys; sys.exit('no CUDA device')")
    assert load(store, version, encoders, "auto").searcher.vectors.kind == "SQfp16"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "FAISS cannot search on a GPU: no CUDA device; vectors are searched on the CPU"
    ]
    with pytest.raises(IndexUnavailable, match="AISLE_PROVIDER=cuda, but FAISS cannot search on a GPU: no CUDA device"):
        load(store, version, encoders, "cuda")


async def test_a_service_says_where_it_searches(
    tiny_bundles: Path, gpu: StandInGpu, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/v1/versions` names the index; a search over HTTP is the device's; a version that does not fit the device is
    refused where it is insisted on, and the one before goes on."""
    shutil.copytree(tiny_bundles, tmp_path / "bundles")
    async with client(tmp_path / "bundles", provider="auto") as http:
        listed = (await http.get("/v1/versions")).json()["collections"][0]
        assert listed["index"] == "GPU flat fp16, SQfp16"
        asked = len(gpu.batches)
        answer = (await http.post("/v1/search", json={"query": "wooden lamp"})).json()
        assert answer["hits"] and len(gpu.batches) > asked
        gpu.before_search = lambda: (_ for _ in ()).throw(RuntimeError("lost"))
        again = (await http.post("/v1/search", json={"query": "wooden lamps"})).json()
        assert again["hits"] and not again["degraded"]["is"]
        listed = (await http.get("/v1/versions")).json()["collections"][0]
        assert listed["index"] == "SQfp16"
    gpu.before_search = lambda: None
    monkeypatch.setattr(versions, "Encoder", lambda folder, provider: _Encoder(folder, "cpu"))
    collections = Collections(tmp_path / "bundles", "cuda", tmp_path / "changes")
    collections.open()
    gpu.memory_bytes = gpu.used_bytes
    collections._served["default"] = SimpleNamespace(searcher=SimpleNamespace(version="another"))  # type: ignore[assignment]  # a stand-in
    with pytest.raises(VersionRefused, match="AISLE_PROVIDER=cuda, but the GPU cannot hold the index of 60 products"):
        await collections.reload("default")


_Encoder = versions.Encoder


def test_on_a_device_faiss_finds_what_it_finds_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing: rows, order and bits of scores, alone and in batches, with and without filters."""
    if not dense_gpu.gpu_is_built_in():
        pytest.skip("this FAISS has no GPU functions (pip install 'aisle[gpu]')")
    from app.runtime.onnx_cuda import DEVICE

    vectors = np.random.default_rng(0).standard_normal((50_000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(dense, "FLAT_UP_TO", 100_000)
    cpu = FaissIndex.build(vectors)
    try:
        index = GpuIndex(cpu, DEVICE)
    except IndexUnavailable as error:
        pytest.skip(f"no CUDA device can run FAISS ({error.detail})")
    queries = vectors[::2500] + np.float32(0.05)
    for allowed in (None, np.arange(50_000) % 2 == 0, np.arange(50_000) % 25 == 0):
        for query in queries:
            rows, scores = index.search(query, 100, allowed)
            expected, theirs = cpu.search(query, 100, allowed)
            assert np.array_equal(rows, expected) and np.array_equal(scores, theirs)
    for query, (rows, _) in zip(queries, index.search_many(queries, 100), strict=True):
        assert np.array_equal(rows, cpu.search(query, 100, None)[0])
    assert index.kind.startswith("GPU"), "no failure on the way"
