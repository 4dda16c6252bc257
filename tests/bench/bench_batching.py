"""How far batching pays at each stage: time a query at batch sizes 1 to 32, one thread, in one interleaved run.

    python -m tests.bench.bench_batching --bundles bundles

The last lines give the hop: what it costs to hand a finished job to a worker thread and back, against running it on the
event loop."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from app.index.bundle import BundleStore
from app.runtime.batcher import Batcher
from app.runtime.deadline import after_ms
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from tests.bench.bench_search import ROOT, texts

SIZES = (1, 2, 4, 8, 16, 32)
_ROUNDS = 25


def stages(searcher: Searcher, queries: list[str]) -> dict[str, Callable[[int], object]]:
    """Each stage as a function of the batch size, over the first so many queries."""
    encoder, depth = searcher.encoder, searcher.ranking.profiles["default"].depth
    model, tokenizer = encoder._query_model, encoder._query_tokens
    ids = [tokenizer.encode(text).ids for text in queries]
    vectors = encoder.queries(queries)
    index = searcher.vectors._index  # type: ignore[attr-defined]
    words = [searcher.words.parse(text) for text in queries]
    rows = [searcher.words.search(query, depth, None).rows for query in words]
    profile = searcher.ranking.profiles["default"]
    return {
        "tokenize": lambda n: tokenizer.encode_batch(queries[:n]),
        "encode, each alone": lambda n: model.encode(ids[:n]),
        "encode, padded together": lambda n: model._encode_padded(ids[:n]),
        "FAISS, one call": lambda n: index.search(vectors[:n], depth),
        "BM25": lambda n: [searcher.words.search(query, depth, None) for query in words[:n]],
        "features + rerank": lambda n: [searcher.rank(rows[i], words[i], vectors[i], profile) for i in range(n)],
    }


def measure(searcher: Searcher, queries: list[str]) -> dict[str, list[float]]:
    """Microseconds a query, p50 over the rounds, by stage and batch size."""
    samples: dict[str, list[list[float]]] = {}
    for turn in range(_ROUNDS + 2):
        for name, run in stages(searcher, queries[turn * 32 : turn * 32 + 32]).items():
            for place, size in enumerate(SIZES):
                started = perf_counter()
                run(size)
                spent = (perf_counter() - started) / size * 1e6
                if turn >= 2:  # the first rounds warm shapes up
                    samples.setdefault(name, [[] for _ in SIZES])[place].append(spent)
    return {name: [float(np.median(one)) for one in by_size] for name, by_size in samples.items()}


async def hop() -> tuple[float, float]:
    """Microseconds to run an empty job inline, and through the queue and a worker thread, p50."""
    batcher: Batcher[int] = Batcher(lambda jobs: None, workers=2, max_batch=4, max_waiting=64)
    batcher.start()
    inline, queued = [], []
    for _ in range(2000):
        started = perf_counter()
        batcher._process([0])
        inline.append(perf_counter() - started)
        started = perf_counter()
        await batcher.run(0, deadline=after_ms(1000))
        queued.append(perf_counter() - started)
        await asyncio.sleep(0.0005)  # an idle service's threads sleep between requests
    await batcher.stop()
    return float(np.median(inline)) * 1e6, float(np.median(queued)) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    store = BundleStore(parser.parse_args().bundles)
    searcher = load(store, store.current() or "", Encoders("cpu")).searcher
    measured = measure(searcher, texts(2))
    print(f"{'µs a query at batch':26}" + "".join(f"{size:>9}" for size in SIZES) + f"{'1 / 32':>9}")
    for name, values in measured.items():
        print(f"{name:26}" + "".join(f"{value:9.0f}" for value in values) + f"{values[0] / values[-1]:9.2f}")
    inline, queued = asyncio.run(hop())
    print(f"\nhop to a worker and back: {queued:.0f} µs (inline {inline:.1f} µs)")


if __name__ == "__main__":
    main()
