"""The encoder, the vector index and the whole service on a GPU: that they give what the CPU gives, and how fast.

    make gpu      (an environment with aisle[gpu]; python -m tests.bench.bench_gpu [--json] [--vectors N])

The float16 graphs are made from the shipped int8 weights. Correctness comes first: a figure outside its bound ends the
run with exit code 1. Without a CUDA device it says so and measures nothing; of the three parts, each runs that can.

The index holds N random vectors about random centres, unit length, 384 numbers. Both sides scan the same float16 codes
exactly, so the bound is equality: the same scores in the same order, and the same rows but for those that share the
score at the end of the list.

The service serves the shipped catalogue twice, on the device and on the cores, and both are asked in turns: one client,
then an open loop at ever closer rates for the highest at which p99 stays within 50 ms (tests/bench/bench_load.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from app.errors import EncoderUnavailable, IndexUnavailable
from app.index import dense
from app.index.analysis import normalize_text
from app.index.dense import GPU_KIND, FaissIndex, FewVectors
from app.index.dense_gpu import GpuIndex, gpu_is_built_in
from app.runtime.cores import usable_cores
from app.runtime.onnx import OnnxEncoder, cuda_is_built_in
from app.runtime.onnx_cuda import DEVICE
from app.search.embed import HALF, MODEL, Encoder
from app.search.probes import cosines
from app.types import Floats, Rows
from models.half import float_graph, with_half
from tests.bench.wire import Client, server

ROOT = Path(__file__).parents[2]
ENCODER = ROOT / "models" / "weights" / "MiniLM-L2-distilled-int8"
QUERIES = [ROOT / "data" / "esci" / f"{name}.queries.tsv" for name in ("dev", "train_positives")]
CATALOGUE = ROOT / "data" / "esci" / "products.jsonl.gz"
LEAST_FP16, LEAST_INT8, LEAST_OVERLAP, LEAST_SHARED = 0.999, 0.98, 0.98, 0.95
PARTS = ("encoder", "index", "service")
_PROBES = 6
_COMPARED = 32  # queries
_PAIR_TOKENS, _CANDIDATES = 96, 50
Vectors = npt.NDArray[np.float32]
Measured = tuple[dict[str, float | str], list[str]]
"""Figures by name, and what is wrong."""


def texts() -> list[str]:
    """The shipped queries."""
    lines = [line.split("\t")[1] for path in QUERIES for line in path.read_text("utf-8").splitlines()]
    return list(dict.fromkeys(normalize_text(line) for line in lines))


def products(most: int) -> list[str]:
    """Titles and bullets of the shipped catalogue."""
    import gzip

    with gzip.open(CATALOGUE, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(most), strict=False)]
    return [normalize_text(f"{row['title']} {row.get('brand', '')} {row.get('bullets', '')}"[:600]) for row in rows]


def overlap(one: Vectors, other: Vectors, held: Vectors, depth: int = 10) -> float:
    """Mean share of the ten nearest of `held` that both queries have in common."""
    nearest = [np.argsort(-(side @ held.T), axis=1, kind="stable")[:, :depth] for side in (one, other)]
    return float(np.mean([len(np.intersect1d(a, b)) / depth for a, b in zip(*nearest, strict=True)]))


def times(call: Callable[[int], object], rounds: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each of `rounds` calls after thirty that do not count."""
    spent = []
    for number in range(-30, rounds):
        started = perf_counter()
        call(number)
        if number >= 0:
            spent.append((perf_counter() - started) * 1e3)
    return np.array(spent)


def rate(call: Callable[[Sequence[str]], object], many: Sequence[str], rounds: int = 3) -> float:
    """Texts a second, the best of the rounds after one that does not count."""
    best = 0.0
    for number in range(rounds + 1):
        started = perf_counter()
        call(many)
        if number:
            best = max(best, len(many) / (perf_counter() - started))
    return best


def measure(folder: Path) -> tuple[dict[str, float | str], list[str]]:
    """Every figure by name, and those outside their bounds."""
    asked, sold = texts(), products(4096)
    gpu, cpu = Encoder(with_half(ENCODER, folder / "encoder"), "cuda"), Encoder(ENCODER, "cpu")
    figures: dict[str, float | str] = {"precision": gpu.precision, "texts": len(asked), "products": len(sold)}
    wrong = [] if gpu.precision == "fp16" else [f"precision is {gpu.precision}, not fp16"]
    figures["captured as CUDA graphs"] = str(gpu._query_model.captured)
    started = perf_counter()
    gpu.warm()
    figures["warm up, s"] = perf_counter() - started

    def held(name: str, value: float, least: float) -> None:
        figures[name] = value
        if not value >= least:
            wrong.append(f"{name} is {value:.5f}, the least is {least}")

    float_graph(ENCODER / MODEL, folder / "fp32.onnx", np.float32)
    plain = OnnxEncoder(folder / "fp32.onnx", "cpu")
    ids = [gpu._query_tokens.encode(text).ids for text in asked]
    found, reference = gpu.queries(asked), plain.encode(ids)
    held("cosine fp16 to fp32, least", float(cosines(found, reference).min()), LEAST_FP16)
    held(
        "cosine fp16 on the GPU to int8 on the CPU, mean", float(cosines(found, cpu.queries(asked)).mean()), LEAST_INT8
    )
    alone = np.concatenate([gpu.queries([text]) for text in asked])
    held("cosine alone to in a batch, least", float(cosines(alone, found).min()), LEAST_FP16)
    vectors = gpu.products(sold)
    held("top ten in common, fp16 and fp32", overlap(found, reference, vectors), LEAST_OVERLAP)
    held(
        "cosine of products to int8 on the CPU, mean",
        float(cosines(vectors[:200], cpu.products(sold[:200])).mean()),
        LEAST_INT8,
    )
    if strayed := gpu.strayed():
        wrong.append(strayed)

    for name, encoder in (("query encoder, 2 layers", gpu), ("product encoder, 6 layers", gpu.as_teacher())):
        encoder.warm()
        spent = times(lambda at, encoder=encoder: encoder.queries([asked[at % len(asked)]]), 2000)
        figures[f"{name}: one query, p50 ms"], figures[f"{name}: one query, p99 ms"] = np.percentile(
            spent, (50, 99)
        ).tolist()
        many = asked * 60
        figures[f"{name}: saturated, queries/s"] = rate(encoder.queries, many)
        tokens = [gpu._query_tokens.encode(text).ids for text in many]
        figures[f"{name}: saturated without tokenising, queries/s"] = rate(encoder._query_model.encode, tokens)  # type: ignore[arg-type]  # of tokens, not texts
    random = np.random.default_rng(0)
    pairs = [random.integers(1000, 20000, _PAIR_TOKENS).tolist() for _ in range(_CANDIDATES)]
    spent = times(lambda _: gpu._product_model.encode(pairs), 300)
    key = f"a cross-encoder's trunk, 6 layers, {_CANDIDATES} pairs of {_PAIR_TOKENS} tokens"
    figures[f"{key}, p50 ms"], figures[f"{key}, p99 ms"] = np.percentile(spent, (50, 99)).tolist()
    figures["product texts/s"] = rate(gpu.products, sold)
    unbound = OnnxEncoder(folder / "encoder" / HALF[MODEL], "cuda", alone=True)
    figures["query encoder, 2 layers, no bound shapes: one query, p50 ms"] = float(
        np.median(times(lambda at: unbound.encode([ids[at % len(ids)]]), 500))
    )
    return figures, wrong


def same(one: tuple[Rows, Floats], other: tuple[Rows, Floats]) -> bool:
    """Whether both lists are one allowing ties: equal scores in order, equal rows above the last score."""
    (rows, scores), (others, theirs) = one, other
    if not np.array_equal(scores, theirs):
        return False
    above = scores > scores[-1:]
    return np.array_equal(rows[above], others[above])


def measure_index(count: int) -> tuple[dict[str, float | str], list[str]]:
    """The index on the GPU against an exact scan by the CPU's kernel; figures, and what is wrong."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, 384), dtype=np.float32)

    def drawn(number: int) -> Vectors:
        vectors = centres[random.integers(1000, size=number)] + random.standard_normal((number, 384), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    vectors, queries = drawn(count), drawn(256)
    with patch.object(dense, "FLAT_UP_TO", count):  # lists of a million take minutes to train, and are not exact
        cpu = FaissIndex.build(vectors)
    exact = FewVectors(cpu._codes)
    before, started = device_mib(), perf_counter()
    gpu = GpuIndex(cpu, DEVICE)
    figures: dict[str, float | str] = {"index: vectors": count, "index": gpu.kind}
    figures["index: tried, copied and warm, s"] = perf_counter() - started
    figures["index: device memory, MiB, with what FAISS works in"] = device_mib() - before
    wrong = []
    filters = [(f"{share:.0%}", random.random(count) < share) for share in (0.9, 0.5, 0.1, 0.01)]
    for name, allowed in [("no filter", None), *filters]:
        differ = found = wanted = 0
        for query in queries[:_COMPARED]:
            ours, theirs = gpu.search(query, 100, allowed), exact.search(query, 100, allowed)
            differ += not same(ours, theirs)
            found, wanted = found + len(np.intersect1d(ours[0], theirs[0])), wanted + len(theirs[0])
        figures[f"index, {name}: recall of the exact top 100"] = found / wanted
        if differ:
            wrong.append(f"index, {name}: {differ} of {_COMPARED} lists are not those of the exact scan")
    some = queries[:_COMPARED]
    together = gpu.search_many(some, 100)
    if not all(same(ours, exact.search(query, 100, None)) for query, ours in zip(some, together, strict=True)):
        wrong.append("index: lists of a batch are not those of the exact scan")
    for name, index, rounds in (("GPU", gpu, 500), (f"CPU {cpu.kind}", cpu, 50)):
        for filtered, allowed in (("", None), (", half filtered out", filters[1][1])):
            spent = times(lambda at, i=index, a=allowed: i.search(queries[at % 256], 100, a), rounds)  # type: ignore[misc]  # defaults of a lambda
            for share in (50, 99):
                figures[f"{name}: one query{filtered}, p{share} ms"] = float(np.percentile(spent, share))
    for size in (4, 16, 64):
        spent = times(lambda at, size=size: gpu.search_many(queries[:size], 100), 200)  # type: ignore[misc]  # defaults of a lambda
        figures[f"GPU: a batch of {size}, p50 ms"] = float(np.median(spent))
    if not gpu.kind.startswith(GPU_KIND):
        wrong.append("index: the device failed on the way")
    return figures, wrong


def measure_service(folder: Path, seconds: float) -> tuple[dict[str, float | str], list[str]]:
    """The service on the device beside the same on the cores; figures, and what is wrong."""
    # Loaded here: the encoder and the index are measured without what load tests need.
    from tests.bench.bench_load import uncached
    from tests.bench.bisection import Bisection

    OnnxEncoder(ENCODER / MODEL, "cuda")  # a machine without a device is told before anything is built
    figures: dict[str, float | str] = {"service: cores": usable_cores()}
    wrong: list[str] = []
    bundles, data = folder / "bundles", ROOT / "data" / "esci"
    started = perf_counter()
    command = ["build", str(CATALOGUE), "--mapping", str(data / "mapping.toml"), "--bundles", str(bundles), "--gpu"]
    subprocess.run([sys.executable, "-m", "scripts.cli", *command], check=True, stdout=subprocess.DEVNULL)
    figures["service: the catalogue built, s"] = perf_counter() - started
    serve = ("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0")
    with (
        server(*serve, AISLE_PROVIDER="cuda") as on_device,
        server(*serve, AISLE_PROVIDER="cpu") as on_cores,
    ):
        clients = {"cuda": Client(on_device), "cpu": Client(on_cores)}
        spent: dict[str, list[float]] = {name: [] for name in clients}
        common = []
        for number, text in enumerate([f"{text} please" for text in texts()[:100]] + texts()):
            hits = []
            for name, client in clients.items():
                request = client.request("/v1/search", {"query": text, "k": 10})
                began = perf_counter()
                body = json.loads(client.exchange(request)[1])
                if number >= 100:  # those before only warm up
                    spent[name].append((perf_counter() - began) * 1e3)
                hits.append({hit["id"] for hit in body["hits"]})
            common.append(len(hits[0] & hits[1]) / max(len(hits[1]), 1))
        for name, client in clients.items():
            client.close()
            for share in (50, 99):
                figures[f"service on {name}: one client, p{share} ms"] = float(np.percentile(spent[name], share))
        shared = figures["service: first ten hits in common, float16 on the device and int8 on the cores"] = float(
            np.mean(common)
        )
        if not shared >= LEAST_SHARED:
            wrong.append(f"service: {shared:.4f} of the first ten hits in common, the least is {LEAST_SHARED}")
        for profile in ("default", "fast"):
            sides = {name: (uncached(client, profile), Bisection(300, 5000)) for name, client in
                     (("cuda", on_device), ("cpu", on_cores))}  # fmt: skip
            for target, _ in sides.values():
                target.offer(200, 2)
            for _ in range(_PROBES):
                for target, bisection in sides.values():
                    bisection.tell(target.offer(bisection.rate, seconds).passed)
            for name, (_, bisection) in sides.items():
                figures[f"service on {name}: {profile}, saturated within 50 ms, searches/s"] = bisection.best
    return figures, wrong


def device_mib() -> float:
    """Memory in use on the first device, all processes; NaN where nvidia-smi cannot say."""
    said = nvidia_smi("memory.used").splitlines()
    return float(said[0].split()[0]) if said and said[0][:1].isdigit() else float("nan")


def nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="in the index (default: a million)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run of load")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="(default: all)")
    arguments = parser.parse_args()
    figures: dict[str, float | str] = {"device": nvidia_smi("name,driver_version")}
    wrong: list[str] = []
    no_cuda = "" if cuda_is_built_in() else "this ONNX Runtime has no CUDA provider (pip install 'aisle[gpu]')"
    no_faiss = "" if gpu_is_built_in() else "this FAISS has no GPU functions (pip install 'aisle[gpu]')"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, tuple[str, Callable[[], Measured]]] = {
            "encoder": (no_cuda, lambda: measure(folder)),
            "index": (no_faiss, lambda: measure_index(arguments.vectors)),
            "service": (no_cuda or no_faiss, lambda: measure_service(folder, arguments.seconds)),
        }
        for part in arguments.only:
            missing, run = parts[part]
            try:
                if missing:
                    raise EncoderUnavailable(missing)
                found, amiss = run()
            except (EncoderUnavailable, IndexUnavailable) as error:
                print(f"skipped the {part}: {error.detail}", flush=True)
                continue
            for key, value in found.items():
                print(f"{key:96} {value if isinstance(value, str) else round(value, 5)}", flush=True)
            figures |= found
            wrong += amiss
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    if arguments.json and len(figures) > 1:
        arguments.json.write_text(json.dumps({**figures, "wrong": wrong}, indent=2) + "\n", "utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
