"""What a look-up in a version's vocabulary costs beside a Python dict's and a list's, and what each of them holds.

    python -m tests.bench.bench_vocabulary --bundles build/scale [--json]

Both answer the same terms in turns, drawn by how many products hold them; times are the least of several rounds.
Memory is what is allocated for the terms and stays: the mapped text, too, is counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tracemalloc
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from app.index.bundle import BundleStore
from app.index.vocabulary import Vocabulary
from tests.bench.scale_data import ROOT

ROUNDS = 9


def nanoseconds(functions: dict[str, Callable[[str], object]], asked: list[str]) -> dict[str, int]:
    """Of one call of each, all taking turns."""
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = perf_counter()
            for text in asked:
                function(text)
            least[name] = min(least[name], perf_counter() - started)
    return {name: round(seconds / len(asked) * 1e9) for name, seconds in least.items()}


def measure(bundles: Path, count: int) -> dict[str, float]:
    store = BundleStore(bundles)
    folder = store.path(store.current() or "")
    starts = np.load(folder / "lexical.starts.npy", mmap_mode="r")
    Vocabulary.load(folder / "lexical.vocabulary")  # compiled by now
    gc.collect()
    tracemalloc.start()
    vocabulary = Vocabulary.load(folder / "lexical.vocabulary")
    compact = tracemalloc.get_traced_memory()[0] + (folder / "lexical.vocabulary").stat().st_size
    before = tracemalloc.get_traced_memory()[0]
    terms = [vocabulary[number] for number in range(len(vocabulary))]
    numbers = {term: number for number, term in enumerate(terms)}
    objects = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    random = np.random.default_rng(0)
    frequency = np.diff(starts)
    drawn = random.choice(len(terms), count, p=frequency / frequency.sum())
    asked = [vocabulary[number] for number in drawn.tolist()]  # not the dict's own objects
    functions: dict[str, Callable[[str], object]] = {
        "dict_ns": numbers.get,
        "number_ns": vocabulary.number,
        "bisect_ns": lambda text: bisect_left(terms, text),
        "place_ns": vocabulary.place,
    }
    held = {"terms": len(terms), "objects_b": objects / len(terms), "compact_b": compact / len(terms)}
    return {name: round(value, 1) for name, value in held.items()} | nanoseconds(functions, asked)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--terms", type=int, default=20_000, help="asked in a round")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.terms)
    print(
        json.dumps(figures) if arguments.json else "\n".join(f"{name:>10} {value}" for name, value in figures.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
