"""What a large catalogue costs beside a small one: latency, recall under filters, memory an item, start-up.

    python -m tests.bench.bench_scale --bundles build/scale --small bundles [--json]
    python -m tests.bench.bench_scale --bundles build/scale --indexes 200000     # index types, on so many products

tests/bench/scale_data.py makes the catalogue (its field `bucket`, which filters here, is seeded), `aisle build` the
version. Searches of both catalogues take turns in one process, each for words from its own titles, drawn by one seeded
rule; recall is against an exact scan, and of products that score alike any will do; memory is that of a process that
loaded the version and searched 200 times, less that of one that only imported the same modules.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from app.index.analysis import normalize_text
from app.index.bundle import BundleStore
from app.index.catalog import Catalog
from app.index.dense import FaissIndex, VectorIndex
from app.index.dense_kernels import dot_rows, top_rows
from app.index.filters import Range
from app.index.lexical import LexicalIndex
from app.search.job import SearchJob
from app.search.retrieve import allowed_by
from app.search.searcher import Searcher
from app.search.versions import Encoders, Served, load
from app.types import Floats, Mask, SearchRequest
from tests.bench.scale_data import BUCKETS, ROOT
from tests.bench.wire import server

DEPTH = 100
SEARCHES = 200
SHARES = (None, 1.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
_WORDS = (1, 4)
_BLOCK = 10
INDEXES = (
    "SQfp16",
    "HNSW32,SQfp16",
    "HNSW16,SQfp16",
    "IVF{lists},SQfp16",
    "IVF{lists},PQ96x4fs",
    "IVF{lists},PQ192x4fs",
)

Figures = dict[str, Any]


def current(bundles: Path) -> Served:
    """The served version, loaded as a service loads it."""
    store = BundleStore(bundles)
    return load(store, store.current() or "", Encoders("cpu"))


def texts(catalog: Catalog, count: int, seed: int = 0) -> list[str]:
    """Distinct queries of one to four words that stand together in a product's title."""
    random = np.random.default_rng(seed)
    role = catalog.schema.roles.title
    found: dict[str, None] = {}
    while len(found) < count:
        row = int(random.integers(len(catalog)))
        words = normalize_text(str(catalog.fields(row).get(role, ""))).split()
        length = min(int(random.integers(_WORDS[0], _WORDS[1] + 1)), len(words))
        first = int(random.integers(0, len(words) - length + 1))
        if words:
            found[" ".join(words[first : first + length])] = None
    return list(found)


def latency(searchers: dict[str, Searcher], count: int) -> Figures:
    """p50 and p99 in milliseconds of uncached searches under the default profile, and p50 of their stages."""
    asked = {name: texts(one.catalog, count + SEARCHES) for name, one in searchers.items()}
    spent: dict[str, list[float]] = {name: [] for name in searchers}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in searchers}
    for start in range(0, count + SEARCHES, _BLOCK):
        for name, searcher in searchers.items():
            for text in asked[name][start : start + _BLOCK]:
                milliseconds, job = _search(searcher, text)
                if start < SEARCHES:
                    continue  # warming up
                spent[name].append(milliseconds)
                for timing in job.timings:
                    stages[name].setdefault(timing.stage, []).append(timing.ms)
    return {
        name: {
            "products": len(searchers[name].catalog),
            "p50_ms": _percentile(values, 50),
            "p99_ms": _percentile(values, 99),
            "stages_ms": {stage: _percentile(times, 50) for stage, times in stages[name].items()},
        }
        for name, values in spent.items()
    }


def _search(searcher: Searcher, text: str) -> tuple[float, SearchJob]:
    started = perf_counter()
    job = SearchJob(searcher, searcher.query(SearchRequest(text)), started)
    searcher.search([job])
    if job.answer is None:
        raise RuntimeError(f"{text!r} was not answered: {job.error}")
    return (perf_counter() - started) * 1e3, job


def recall(searcher: Searcher, count: int) -> list[Figures]:
    """Recall@100 of the dense index against an exact scan, and its latency, at every selectivity of `bucket < n`."""
    asked = texts(searcher.catalog, count, seed=1)
    vectors = searcher.query_vectors(asked, searcher.ranking.profiles["default"])
    return [_recall_at(searcher, vectors, share) for share in SHARES]


def _recall_at(searcher: Searcher, vectors: Floats, share: float | None) -> Figures:
    condition = None if share is None else Range("bucket", lt=float(round(BUCKETS * share)))
    allowed = allowed_by(condition, searcher.catalog)
    shares, spent = _against_exact(searcher.vectors, vectors, allowed)
    return {
        "share": "no filter" if share is None else f"{share:.2%}",
        "allowed": len(searcher.catalog) if allowed is None else int(np.count_nonzero(allowed)),
        "recall_at_100": round(float(np.mean(shares)), 4),
        "p50_ms": _percentile(spent, 50),
        "p99_ms": _percentile(spent, 99),
    }


def _against_exact(index: VectorIndex, vectors: Floats, allowed: Mask | None) -> tuple[list[float], list[float]]:
    """Recall and milliseconds of each query vector [n, dimension]."""
    every = np.arange(len(index), dtype=np.int32)
    rows = every if allowed is None else every[allowed]
    depth = min(DEPTH, len(rows))
    shares, spent = [], []
    for vector in vectors:
        started = perf_counter()
        scores = index.search(vector, depth, allowed)[1]
        spent.append((perf_counter() - started) * 1e3)
        least = top_rows(rows, index.scores(vector, rows), depth)[1][-1]
        shares.append(float(np.count_nonzero(scores >= least)) / depth)
    return shares, spent


def memory(bundles: Path, small: Path) -> Figures:
    """Bytes an item, after loading and 200 searches: all that an empty process with the same imports does not take,
    over all products (encoder and compiled kernels are in it, too), and what each product beyond those of the small
    catalogue costs."""
    empty = _in_a_process("--held")
    little, full = (_in_a_process("--held", "--bundles", str(one)) for one in (small, bundles))
    parts = {name: full[name] - empty[name] for name in ("RssAnon", "RssFile")}
    further = sum(full[name] - little[name] for name in parts) / (full["products"] - little["products"])
    each = round(sum(parts.values()) / full["products"], 1)
    return {**parts, "bytes_an_item": each, "bytes_a_further_item": round(further, 1)}


def _in_a_process(*options: str) -> dict[str, int]:
    run = subprocess.run([sys.executable, "-m", __spec__.name, *options], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    held: dict[str, int] = json.loads(run.stdout)
    return held


def held(bundles: Path | None) -> dict[str, int]:
    """Memory of this process in bytes; with `bundles` once it has loaded what is served there and searched."""
    products = 0
    if bundles is not None:
        searcher = current(bundles).searcher
        products = len(searcher.catalog)
        for text in texts(searcher.catalog, SEARCHES, seed=2):
            _search(searcher, text)
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")} | {"products": products}


def start_up(bundles: Path) -> Figures:
    """Seconds from `aisle serve` to its being ready, and what it does by then, one by one. Files in the page cache."""
    started = perf_counter()
    with server("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0"):
        ready = perf_counter() - started  # it listens once every collection is loaded, checked and warm
    parts: dict[str, float] = {}
    store = BundleStore(bundles)
    version = store.current() or ""
    folder = store.path(version)
    with _timed(parts, "verify digests"):
        store.verify(version)
    for name, load_part in (
        ("catalogue", Catalog.load),
        ("lexical index", LexicalIndex.load),
        ("dense index", FaissIndex.load),
    ):
        with _timed(parts, name):
            load_part(folder)
    return {"ready_s": round(ready, 2), "parts_s": parts}


@contextmanager
def _timed(parts: dict[str, float], name: str) -> Iterator[None]:
    started = perf_counter()
    yield
    parts[name] = round(perf_counter() - started, 2)


def indexes(searcher: Searcher, count: int, queries: int) -> list[Figures]:
    """Index types over the same evenly spaced vectors: what each costs for the recall that it gives. All of them only
    choose: the best are scored by our kernel, ten times as many where the index's own codes are coarse."""
    import faiss

    index = searcher.vectors
    step = max(1, len(index) // count)
    stored = np.stack([index.vector(row) for row in range(0, len(index), step)])
    codes = stored.astype(np.float16).view(np.uint16)
    codes.flags.writeable = False
    asked = searcher.query_vectors(texts(searcher.catalog, queries, seed=1), searcher.ranking.profiles["default"])
    every = np.arange(len(codes), dtype=np.int32)
    least = [top_rows(every, dot_rows(codes, every, one), DEPTH)[1][-1] for one in asked]
    lists = 1 << round(np.log2(4 * np.sqrt(len(codes))))
    table = []
    for spec in INDEXES:
        name = spec.format(lists=lists)
        built = faiss.index_factory(stored.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        started = perf_counter()
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        built.train(stored)
        built.add(stored)
        faiss.omp_set_num_threads(1)
        seconds = perf_counter() - started
        size = len(faiss.serialize_index(built)) / len(codes) + (0 if "fp16" in name else stored.shape[1] * 2)
        for setting, parameters in _settings(faiss, name):
            wanted = (DEPTH + 32) * (10 if "PQ" in name else 1)
            shares, spent = [], []
            for one, bound in zip(asked, least, strict=True):
                began = perf_counter()
                found = built.search(one.reshape(1, -1), wanted, params=parameters)[1][0]
                rows = found[found >= 0].astype(np.int32)
                scores = top_rows(rows, dot_rows(codes, rows, one), DEPTH)[1]
                spent.append((perf_counter() - began) * 1e3)
                shares.append(np.count_nonzero(scores >= bound) / DEPTH)
            table.append(
                {
                    "index": f"{name} {setting}".strip(),
                    "recall_at_100": round(float(np.mean(shares)), 4),
                    "p50_ms": _percentile(spent, 50),
                    "bytes_an_item": round(size),
                    "build_s": round(seconds, 1),
                }
            )
    return table


def _settings(faiss: Any, name: str) -> list[tuple[str, Any]]:
    if name.startswith("HNSW"):
        return [(f"ef {ef}", faiss.SearchParametersHNSW(efSearch=ef)) for ef in (128, 256, 512)]
    if name.startswith("IVF"):
        return [(f"read {read}", faiss.SearchParametersIVF(nprobe=read)) for read in (64, 128, 256, 512)]
    return [("", None)]


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 3)


def report(figures: Figures) -> str:
    """The figures for a person."""
    lines: list[str] = []
    for name, table in (("recall@100 of the dense index", "recall"), ("index types", "indexes")):
        if table in figures:
            rows = figures[table]
            lines += [name, "  ".join(f"{key:>22}" for key in rows[0])]
            lines += ["  ".join(f"{value:>22}" for value in row.values()) for row in rows] + [""]
    if "latency" in figures:
        for name, one in figures["latency"].items():
            stages = ", ".join(f"{stage} {ms}" for stage, ms in one["stages_ms"].items())
            lines.append(
                f"{name}, {one['products']:,} products: p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms ({stages})"
            )
        lines.append(f"ratio of the p50: {figures['ratio']}")
    if "memory" in figures:
        held = figures["memory"]
        lines.append(
            f"memory an item: {held['bytes_an_item']} B, a further one {held['bytes_a_further_item']} B "
            f"({held['RssAnon']:,} anonymous, {held['RssFile']:,} mapped)"
        )
    if "start_up" in figures:
        parts = ", ".join(f"{name} {seconds}" for name, seconds in figures["start_up"]["parts_s"].items())
        lines.append(f"start-up to ready: {figures['start_up']['ready_s']} s (of it, s: {parts})")
    return "\n".join(lines)


def measure(arguments: argparse.Namespace) -> Figures:
    large = current(arguments.bundles).searcher
    if arguments.indexes:
        return {"indexes": indexes(large, arguments.indexes, arguments.queries)}
    steps: dict[str, Callable[[], Any]] = {
        "latency": lambda: latency({"small": current(arguments.small).searcher, "large": large}, arguments.queries),
        "recall": lambda: recall(large, arguments.queries),
        "memory": lambda: memory(arguments.bundles, arguments.small),
        "start_up": lambda: start_up(arguments.bundles),
    }
    figures = {name: step() for name, step in steps.items() if name in (arguments.only or steps)}
    if "latency" in figures:
        both = figures["latency"]
        figures["ratio"] = round(both["large"]["p50_ms"] / both["small"]["p50_ms"], 3)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="folder of the large version (default: build/scale)")
    parser.add_argument("--small", type=Path, default=ROOT / "bundles")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--only", nargs="*", choices=("latency", "recall", "memory", "start_up"))
    parser.add_argument("--indexes", type=int, metavar="N", help="compare index types on about N of the products")
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.held:
        print(json.dumps(held(arguments.bundles)))
        return 0
    arguments.bundles = arguments.bundles or ROOT / "build" / "scale"
    figures = measure(arguments)
    print(json.dumps(figures) if arguments.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
