"""Bulk work beside the raw encoder: embedding a catalogue, and rescoring pairs of queries and texts, in one run.

    python -m tests.bench.bench_bulk --bundles bundles [--products 512] [--rounds 5] [--json]

*Raw*: the product encoder on the same texts, as many threads as there are cores, nothing else. All three take turns,
block by block, so that the machine's moods meet all alike; a ratio is the median of its rounds. Memory: how much more
the process holds after the last round than after the first, whose arenas and caches fill once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

from app.index.analysis import normalize_text
from app.index.bundle import BundleStore
from app.index.product_text import dense_texts
from app.runtime.cores import usable_cores
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from models.encode import product_vectors
from scripts.readers import open_catalogue
from scripts.rescore import _Scorer
from tests.bench.bench_search import texts

ROOT = Path(__file__).parents[2]
ESCI = ROOT / "data" / "esci"
_BLOCK = 128
_CANDIDATES = 20  # texts a query
Figures = dict[str, float]


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _rate(call: Callable[[], int]) -> float:
    started = perf_counter()
    count = call()
    return count / (perf_counter() - started)


def _raw(searcher: Searcher, wholes: Sequence[str]) -> int:
    parts = [wholes[at : at + 16] for at in range(0, len(wholes), 16)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return sum(len(made) for made in pool.map(searcher.encoder.products, parts))


def _embedded(searcher: Searcher, pairs: Sequence[tuple[str, str]]) -> int:
    product_vectors(searcher.encoder, pairs)
    return sum(1 + (title != whole) for title, whole in pairs)


def _rescored(searcher: Searcher, wholes: Sequence[str], queries: Sequence[str]) -> int:
    scorer = _Scorer(searcher, "default")
    rows = [{"query": queries[at // _CANDIDATES], "text": whole} for at, whole in enumerate(wholes)]
    parts = [rows[at : at + _CANDIDATES] for at in range(0, len(rows), _CANDIDATES)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        made = [row for some in pool.map(scorer.score, parts) for row in some]
    assert all(row["error"] is None for row in made)
    return len(made)


def measure(bundles: Path, count: int, rounds: int) -> Figures:
    """Texts a second of each, and the ratios to the raw encoder."""
    store = BundleStore(bundles)
    searcher = load(store, store.current() or "", Encoders("cpu")).searcher
    reader = open_catalogue(ESCI / "products.jsonl.gz", ESCI / "mapping.toml")
    products = [one for one, _ in zip(reader.products(), range(count), strict=False)]
    pairs = [dense_texts(one, reader.schema) for one in products]
    wholes = [normalize_text(whole) for _, whole in pairs]
    queries = texts(1)
    rates: dict[str, list[float]] = {"raw": [], "embedding": [], "rescoring": [], "raw of the pairs": []}
    held = 0.0
    for turn in range(rounds):
        for at in range(0, count, _BLOCK):
            block, some = wholes[at : at + _BLOCK], pairs[at : at + _BLOCK]
            both = [text for pair in some for text in dict.fromkeys(pair)]
            rates["raw"].append(_rate(lambda block=block: _raw(searcher, block)))  # type: ignore[misc]
            rates["rescoring"].append(_rate(lambda block=block: _rescored(searcher, block, queries)))  # type: ignore[misc]
            rates["raw of the pairs"].append(_rate(lambda both=both: _raw(searcher, both)))  # type: ignore[misc]
            rates["embedding"].append(_rate(lambda some=some: _embedded(searcher, some)))  # type: ignore[misc]
        held = held if turn else _rss_mb()
    median = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        **{f"{name}, texts/s": round(value, 1) for name, value in median.items()},
        "rescoring / raw": round(float(np.median(np.divide(rates["rescoring"], rates["raw"]))), 3),
        "embedding / raw": round(float(np.median(np.divide(rates["embedding"], rates["raw of the pairs"]))), 3),
        "memory grown, MB": round(_rss_mb() - held, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--products", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.products, arguments.rounds)
    print(
        json.dumps(figures)
        if arguments.json
        else "\n".join(f"{name:28}{value:10.3f}" for name, value in figures.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
