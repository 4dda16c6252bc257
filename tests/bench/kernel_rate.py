"""The rate at which the raw kernels of a search alone run on all cores, the most that a service could reach.

    python -m tests.bench.kernel_rate BUNDLES

One thread a core, each one search after the other, in a process of its own. Prints "ready"; then each line
`{"profile": "fast", "seconds": 6}` on standard input is answered by a line of figures."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from app.index.bundle import BundleStore
from app.runtime.cores import usable_cores
from app.search.fuse import choose
from app.search.rerank import Profile
from app.search.retrieve import DenseHits
from app.search.searcher import Searcher
from app.search.static import blended
from app.search.versions import Encoders, load
from app.types import Floats, SearchRequest
from tests.bench.queries import distinct_texts

_TEXTS = 12_000  # a run of seconds may come round again: the kernels remember no text, and no core holds so many
_WARM_UP = 100  # searches a thread
_STOP_S = 10.0


@dataclass(frozen=True)
class KernelRate:
    """Searches a second of all threads together, and the share of their cores that they got (below 1: they waited for
    the interpreter, or somebody else was at work)."""

    rate: float
    cpu_share: float


def kernels(searcher: Searcher, profile: Profile) -> Callable[[str], object]:
    """A function that runs the kernels of one search for a normalised text, each as barely as its library allows: no
    request, no floor, no probabilities, no answer."""
    index = searcher.vectors._index  # type: ignore[attr-defined]
    depth = min(profile.depth, len(searcher.vectors))
    parameters = searcher.vectors._parameters(None, depth, 1.0)  # type: ignore[attr-defined]
    vector_of = _vector_of(searcher, profile)

    def one(text: str) -> object:
        vector = vector_of(text)
        scores, rows = index.search(vector, depth, params=parameters)
        words = searcher.words.parse(text)
        hits = searcher.words.search(words, depth, None)
        chosen = choose(hits, DenseHits(rows[0].astype(np.int32), scores[0], cut=True)).rows
        return searcher.rank(chosen, words, vector[0], profile)

    return one


def _vector_of(searcher: Searcher, profile: Profile) -> Callable[[str], Floats]:
    tokenize, run = searcher.encoder._query_tokens.encode, searcher.encoder._query_model._session.run
    static, share = searcher.static, profile.static

    def computed(text: str) -> Floats:
        row = np.array([tokenize(text).ids], dtype=np.int64)
        vector: Floats = run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})[0]
        return vector

    if static is None or not share:
        return computed
    if profile.looked_up:
        return lambda text: static.queries([text])
    return lambda text: blended(computed(text), static.queries([text]), share)


def measure(one: Callable[[str], object], texts: Sequence[str], seconds: float, threads: int) -> KernelRate:
    """Run `one` over the texts for so long, in as many threads, each with texts of its own."""
    done = [0] * threads
    begin = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        mine = texts[number::threads]
        begin.wait()
        end, count = perf_counter() + seconds, 0
        while perf_counter() < end:
            one(mine[count % len(mine)])
            count += 1
        done[number] = count

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    started, used = perf_counter(), process_time()
    for worker in workers:
        worker.join()
    took = perf_counter() - started
    return KernelRate(sum(done) / took, (process_time() - used) / (took * threads))


@contextmanager
def kernels_apart(bundles: Path) -> Iterator[Callable[[str, float], KernelRate]]:
    """`rate(profile, seconds)` measures in a process of its own, which sleeps between two calls."""
    command = [sys.executable, "-m", "tests.bench.kernel_rate", str(bundles)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def line() -> str:
        read = stdout.readline()
        if not read:
            raise RuntimeError(f"the process of the kernels ended, exit code {process.wait()}")
        return read

    def rate(profile: str, seconds: float) -> KernelRate:
        stdin.write(json.dumps({"profile": profile, "seconds": seconds}) + "\n")
        stdin.flush()
        return KernelRate(**json.loads(line()))

    try:
        line()
        yield rate
    finally:
        process.terminate()
        process.wait(timeout=_STOP_S)


def main() -> None:
    store = BundleStore(Path(sys.argv[1]))
    searcher = load(store, store.current() or "", Encoders("cpu")).searcher
    asked = [searcher.query(SearchRequest(text)).text or "" for text in islice(distinct_texts(), _TEXTS)]
    ready = {name: kernels(searcher, profile) for name, profile in searcher.ranking.profiles.items()}
    for name in ("default", "fast"):
        for text in asked[-_WARM_UP:]:
            ready[name](text)
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        rate = measure(ready[wanted["profile"]], asked, wanted["seconds"], usable_cores())
        print(json.dumps(asdict(rate)), flush=True)


if __name__ == "__main__":
    main()
