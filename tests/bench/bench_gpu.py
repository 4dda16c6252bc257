"""The encoder on a GPU: that it makes the CPU's vectors, and how fast.

    make gpu      (an environment with onnxruntime-gpu and onnx; python -m tests.bench.bench_gpu [--json])

The float16 graphs are made from the shipped int8 weights. Correctness comes first: a figure outside its bound ends the
run with exit code 1. Without a CUDA device it says so and measures nothing.
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

import numpy as np
import numpy.typing as npt

from app.errors import EncoderUnavailable
from app.index.analysis import normalize_text
from app.runtime.onnx import OnnxEncoder, cuda_is_built_in
from app.search.embed import HALF, MODEL, Encoder
from app.search.probes import cosines
from models.half import float_graph, with_half

ROOT = Path(__file__).parents[2]
ENCODER = ROOT / "models" / "weights" / "MiniLM-L2-distilled-int8"
QUERIES = [ROOT / "data" / "esci" / f"{name}.queries.tsv" for name in ("dev", "train_positives")]
CATALOGUE = ROOT / "data" / "esci" / "products.jsonl.gz"
LEAST_FP16, LEAST_INT8, LEAST_OVERLAP = 0.999, 0.98, 0.98
_PAIR_TOKENS, _CANDIDATES = 96, 50
Vectors = npt.NDArray[np.float32]


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
        figures[f"{name}: saturated without tokenising, queries/s"] = rate(encoder._query_model.encode, tokens)  # type: ignore[arg-type]
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not cuda_is_built_in():
        print("skipped: this ONNX Runtime has no CUDA provider (pip install 'aisle[gpu]' onnx)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures, wrong = measure(Path(folder))
        except EncoderUnavailable as error:
            print(f"skipped: no CUDA device can run the encoder ({error.detail})")
            return 0
    device = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    figures = {"device": device.stdout.strip(), **figures}
    if arguments.json:
        print(json.dumps({**figures, "wrong": wrong}))
    else:
        print(
            "\n".join(
                f"{name:82} {value if isinstance(value, str) else round(value, 5)}" for name, value in figures.items()
            )
        )
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
