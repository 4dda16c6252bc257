"""An uncached search over a loopback socket beside the raw kernels it is made of, in one interleaved run.

    python -m tests.bench.bench_search --bundles bundles [--rounds 3] [--json]

One keep-alive client. "Uncached": the cache is on and misses, because no query text is asked twice. The kernels run in
this process on the same texts, in turns with the searches; every figure is a p50. The headline is the ratio of a search
to the sum of its kernels: absolute figures belong to the machine, the ratio to aisle."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

import numpy as np

from app.index.bundle import BundleStore
from app.search.searcher import Searcher
from app.search.static import blended
from app.search.versions import Encoders, load
from models.relevance import Queries
from tests.bench.wire import Client, server

ROOT = Path(__file__).parents[2]
PLOT = ROOT / "artifacts" / "bench" / "search.png"
_BLOCK = 20
Samples = dict[str, list[float]]

KERNELS = (
    "tokenizer.encode",
    "session.run",
    "static look-up",
    "index.search",
    "BM25",
    "features + rerank",
    "bare FastAPI POST",
)


def texts(rounds: int) -> list[str]:
    """Distinct query texts: the shipped queries, then the same words turned round, which have as many tokens."""
    shipped = [
        text
        for name in ("dev", "train_positives")
        for text in Queries.load(ROOT / "data" / "esci" / f"{name}.queries.tsv").values()
    ]
    turned = []
    for turn in range(rounds):
        for text in shipped:
            words = text.split()
            if turn < len(words):
                turned.append(" ".join(words[turn:] + words[:turn]))
    return list(dict.fromkeys(turned))


def measure(bundles: Path, rounds: int) -> dict[str, float | dict[str, float]]:
    """p50 in milliseconds of the search, its stages, and the kernels."""
    asked = texts(rounds)
    store = BundleStore(bundles)
    searcher = load(store, store.current() or "", Encoders("cpu")).searcher
    samples: Samples = {}
    stages: Samples = {}
    with server("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0") as address:
        client = Client(address)
        size = len(client.exchange(client.request("/v1/search", {"query": "a warm up", "k": 10}))[1])
        with server("tests.bench.bare_app", "--bytes", str(size)) as bare_address:
            bare = Client(bare_address)
            for _ in range(200):
                bare.exchange(bare.request("/v1/search", {"query": "a warm up", "k": 10}))
            warm_up = [f"{text} please" for text in asked[:200]]
            _searches(client, warm_up, {}, {})
            _kernels(searcher, warm_up[:50], {})
            for start in range(0, len(asked), _BLOCK):
                block = asked[start : start + _BLOCK]
                _searches(client, block, samples, stages)
                _cached(client, block, samples)
                _kernels(searcher, block, samples)
                for text in block:
                    request = bare.request("/v1/search", {"query": text, "k": 10})
                    _time(samples, "bare FastAPI POST", lambda request=request: bare.exchange(request))  # type: ignore[misc]
            bare.close()
        client.close()
    return _figures(samples, stages, len(asked))


def _searches(client: Client, block: Iterable[str], samples: Samples, stages: Samples) -> None:
    for text in block:
        request = client.request("/v1/search", {"query": text, "k": 10})
        started = perf_counter()
        head, body = client.exchange(request)
        samples.setdefault("search", []).append(perf_counter() - started)
        if b'"cached":true' in body[:200]:
            raise RuntimeError(f"{text!r} came from the cache")
        for stage, spent in re.findall(rb"(\w+);dur=([\d.]+)", head):
            stages.setdefault(stage.decode(), []).append(float(spent) / 1e3)


def _cached(client: Client, block: Iterable[str], samples: Samples) -> None:
    for text in block:
        request = client.request("/v1/search", {"query": text, "k": 10})
        _time(samples, "cached search", lambda request=request: client.exchange(request))  # type: ignore[misc]


def _kernels(searcher: Searcher, block: Iterable[str], samples: Samples) -> None:
    """Each kernel alone, called as barely as its library allows."""
    encoder, profile = searcher.encoder, searcher.ranking.profiles["default"]
    for text in block:
        query = searcher.query(_request(text)).text or ""
        ids = _time(samples, "tokenizer.encode", lambda: encoder._query_tokens.encode(query)).ids
        row = np.array([ids], dtype=np.int64)
        feed = {"input_ids": row, "attention_mask": np.ones_like(row)}
        computed = _time(samples, "session.run", lambda: encoder._query_model._session.run(None, feed))[0]
        vector = _time(samples, "static look-up", lambda: _blend(searcher, query, computed))[0]
        wide = vector.reshape(1, -1)
        index = searcher.vectors._index  # type: ignore[attr-defined]
        found = _time(samples, "index.search", lambda: index.search(wide, profile.depth))[1][0]
        words, hits = _time(samples, "BM25", lambda: _bm25(searcher, query, profile.depth))
        rows = np.union1d(hits.rows, found).astype(np.int32)
        _time(samples, "features + rerank", lambda: searcher.rank(rows, words, vector, profile))


def _blend(searcher: Searcher, query: str, computed):  # type: ignore[no-untyped-def]
    static, share = searcher.static, searcher.ranking.profiles["default"].static
    return computed if static is None else blended(computed, static.queries([query]), share)


def _request(text: str):  # type: ignore[no-untyped-def]
    from app.types import SearchRequest

    return SearchRequest(text)


def _bm25(searcher: Searcher, text: str, depth: int):  # type: ignore[no-untyped-def]
    words = searcher.words.parse(text)
    return words, searcher.words.search(words, depth, None)


def _time(samples: Samples, name: str, call: Callable[[], object]):  # type: ignore[no-untyped-def]
    started = perf_counter()
    result = call()
    samples.setdefault(name, []).append(perf_counter() - started)
    return result


def _figures(samples: Samples, stages: Samples, count: int) -> dict[str, float | dict[str, float]]:
    def p50(values: list[float]) -> float:
        return round(float(np.median(values)) * 1e3, 4)

    kernels = {name: p50(samples[name]) for name in KERNELS}
    floor = sum(kernels.values())
    return {
        "queries": float(count),
        "search_p50_ms": p50(samples["search"]),
        "search_p99_ms": round(float(np.percentile(samples["search"], 99)) * 1e3, 4),
        "cached_p50_ms": p50(samples["cached search"]),
        "kernels_ms": kernels,
        "kernels_sum_ms": round(floor, 4),
        "ratio_to_kernels": round(p50(samples["search"]) / floor, 3),
        "cached_ratio_to_bare": round(p50(samples["cached search"]) / kernels["bare FastAPI POST"], 3),
        "stages_ms": {name: p50(values) for name, values in stages.items()},
    }


def report(figures: dict[str, float | dict[str, float]]) -> str:
    """The figures for a person."""
    kernels, stages = figures["kernels_ms"], figures["stages_ms"]
    assert isinstance(kernels, dict) and isinstance(stages, dict)
    beside = {
        "tokenizer.encode": "",
        "session.run": "embed",
        "static look-up": "",
        "index.search": "dense",
        "BM25": "lexical",
        "features + rerank": "score",
        "bare FastAPI POST": "",
    }
    lines = [
        f"search / sum of its kernels: {figures['ratio_to_kernels']} "
        f"({figures['search_p50_ms']} ms / {figures['kernels_sum_ms']} ms, p50 of {figures['queries']:.0f} queries, "
        f"p99 {figures['search_p99_ms']} ms)",
        f"cached search / bare FastAPI POST with as many bytes: {figures['cached_ratio_to_bare']} "
        f"({figures['cached_p50_ms']} ms)",
        "",
        f"{'raw kernel':20} {'p50 ms':>8}   {'stage':10} {'p50 ms':>8}",
    ]
    for name, value in kernels.items():
        stage = beside[name]
        lines.append(f"{name:20} {value:8.3f}   {stage:10} " + (f"{stages[stage]:8.3f}" if stage else ""))
    others = ", ".join(f"{name} {value:.3f}" for name, value in stages.items() if name not in beside.values())
    return "\n".join([*lines, "", f"other stages: {others}"])


def plot(figures: dict[str, float | dict[str, float]], path: Path) -> None:
    """Stacked kernels beside the search they add up to."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kernels = figures["kernels_ms"]
    assert isinstance(kernels, dict)
    figure, axes = pyplot.subplots(figsize=(8, 3.2), constrained_layout=True)
    left = 0.0
    for shade, (name, value) in zip(
        pyplot.colormaps["viridis"](np.linspace(0.15, 0.85, len(kernels))), kernels.items(), strict=True
    ):
        axes.barh("raw kernels", value, left=left, color=shade, label=f"{name} {value:.3f}")
        left += value
    axes.barh("uncached search", figures["search_p50_ms"], color="#444444")
    axes.barh("cached search", figures["cached_p50_ms"], color="#999999")
    axes.set_xlabel("milliseconds, p50, one client over a loopback socket")
    axes.set_title(f"search / sum of its kernels = {figures['ratio_to_kernels']}")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.rounds)
    try:
        plot(figures, PLOT)
    except ImportError:
        print("no plot: matplotlib is not installed (the bench extra)", file=sys.stderr)
    print(json.dumps(figures) if arguments.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
