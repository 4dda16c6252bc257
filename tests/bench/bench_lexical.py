"""BM25 engines side by side in one run: `python -m tests.bench.bench_lexical [esci zh foods]`.

Ours, bm25s (its numba backend) and tantivy index the same tokens in the same two fields and answer the same queries,
interleaved query by query on one thread, so that engines are compared and not analysers. Reads the data sets that
AISLE_TEST_DATA names. Engines that are not installed are skipped with a word.

A query is timed from its text to the rows of its 200 best products. bm25s and tantivy do not combine fields by their
bounds: theirs is the sum of both fields' scores.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app.index.analysis import normalize_text, token_weight, tokens
from app.index.lexical import LexicalIndex
from models.relevance import Gain, Qrels, Queries, Run, compare, evaluate

DEPTH = 200
GIVEN = 100
ADDED = 100
ROUNDS = 5

Texts = list[tuple[str, str]]


@dataclass(frozen=True)
class DataSet:
    """A catalogue as normalised (title, all) texts in order of id, with queries and, if there are any, judgements."""

    name: str
    ids: list[str]
    texts: Texts
    queries: dict[str, str]
    qrels: Qrels | None
    gain: Gain
    metric: str


class Engine(Protocol):
    """What every engine can do; `add` returns when the added texts can be found."""

    name: str

    def search(self, query: str) -> Sequence[int]: ...
    def score(self, query: str, rows: list[int]) -> object: ...
    def add(self, texts: Texts) -> object: ...


class Ours:
    name = "aisle"

    def __init__(self, texts: Texts) -> None:
        self._index = LexicalIndex.build(texts)

    def search(self, query: str) -> Sequence[int]:
        return self._index.search(self._index.parse(query), DEPTH).rows.tolist()

    def score(self, query: str, rows: list[int]) -> object:
        return self._index.scores(self._index.parse(query), np.array(rows, np.int32))

    def add(self, texts: Texts) -> object:
        return self._index.extend(texts)


class Bm25s:
    name = "bm25s"

    def __init__(self, texts: Texts) -> None:
        import bm25s
        from bm25s.numba.selection import topk

        self._engine = bm25s
        self._top = topk
        self._texts = texts
        self._fields = self._build(texts)
        self._products = len(texts)

    def _build(self, texts: Texts) -> list[Any]:
        fields = []
        for field in range(2):
            index = self._engine.BM25(k1=1.2, b=0.75, method="lucene", backend="numba")
            index.index([tokens(pair[field]) for pair in texts], show_progress=False)
            fields.append(index)
        return fields

    def _scores(self, query: str) -> Any:
        terms = list(dict.fromkeys(tokens(query)))
        scores = np.zeros(self._products, np.float32)
        for index in self._fields:
            known = [term for term in terms if term in index.vocab_dict]
            if known:
                scores += index.get_scores(known)
        return scores

    def search(self, query: str) -> Sequence[int]:
        _, rows = self._top(self._scores(query), min(DEPTH, self._products), backend="numba", sorted=True)
        return rows.tolist()

    def score(self, query: str, rows: list[int]) -> object:
        return self._scores(query)[rows]

    def add(self, texts: Texts) -> object:
        return self._build(self._texts + texts)  # it has no way to add: the index is built again


class Tantivy:
    name = "tantivy"
    total = True

    def __init__(self, texts: Texts) -> None:
        import tantivy

        self._engine = tantivy
        analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("title", tokenizer_name="tokens", index_option="freq")
        builder.add_text_field("all", tokenizer_name="tokens", index_option="freq")
        builder.add_unsigned_field("row", indexed=True, fast=True)
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer("tokens", analyzer)
        self._writer = self._index.writer(heap_size=256_000_000, num_threads=1)
        self._rows = 0
        self.add(texts)

    def add(self, texts: Texts) -> object:
        for title, text in texts:
            document = self._engine.Document()
            document.add_text("title", " ".join(tokens(title)))
            document.add_text("all", " ".join(tokens(text)))
            document.add_unsigned("row", self._rows)
            self._writer.add_document(document)
            self._rows += 1
        self._writer.commit()
        self._index.reload()
        self._searcher = self._index.searcher()
        return self._searcher

    def without_total(self) -> Tantivy:
        """The same engine, free to skip products that cannot be among the best because nobody asks for their number."""
        other = copy(self)
        other.name, other.total = "tantivy, no total", False
        return other

    def _query(self, query: str) -> Any:
        make, occur = self._engine.Query, self._engine.Occur
        clauses = []
        for term in dict.fromkeys(tokens(query)):
            weight = token_weight(term)
            for field in ("title", "all"):
                clause = make.term_query(self._schema, field, term, "freq")
                clauses.append((occur.Should, clause if weight == 1.0 else make.boost_query(clause, weight)))
        return make.boolean_query(clauses)

    def search(self, query: str) -> Sequence[int]:
        hits = self._searcher.search(self._query(query), DEPTH, count=self.total).hits
        return self._searcher.fast_field_values("row", [address for _, address in hits])

    def score(self, query: str, rows: list[int]) -> object:
        make, occur = self._engine.Query, self._engine.Occur
        given = make.const_score_query(make.term_set_query(self._schema, "row", rows), 0.0)
        both = make.boolean_query([(occur.Must, given), (occur.Should, self._query(query))])
        return self._searcher.search(both, len(rows), count=False).hits


ENGINES: list[type] = [Ours, Bm25s, Tantivy]


def read(data: Path, name: str) -> DataSet:
    """One of the data sets; `foods` has no queries, so one to four words of seeded titles stand for them."""
    folder = data / {"esci": "esci_mini", "zh": "zh_multicpr250", "foods": "foods"}[name]
    with gzip.open(folder / "products.jsonl.gz", "rt", encoding="utf-8") as lines:
        products = sorted((json.loads(line) for line in lines), key=lambda product: product["id"])
    texts = [_texts(product) for product in products]
    ids = [product["id"] for product in products]
    if name == "foods":
        random = np.random.default_rng(1)
        titles = [texts[row][0].split() for row in random.integers(0, len(texts), 100)]
        queries = {
            str(at): " ".join(random.permutation(words)[: random.integers(1, 5)]) for at, words in enumerate(titles)
        }
        return DataSet(name, ids, texts, queries, None, Gain(), "")
    queries = {key: normalize_text(text) for key, text in Queries.load(folder / "dev.queries.tsv").items()}
    qrels = Qrels.load(folder / "dev.qrels.tsv")
    gain, metric = (Gain(relevant_at=1.0), "mrr@10") if name == "zh" else (Gain(), "ndcg@10")
    return DataSet(name, ids, texts, queries, qrels, gain, metric)


def _texts(product: dict[str, Any]) -> tuple[str, str]:
    parts = [product.get(name) or "" for name in ("title", "brand", "color", "description", "bullets")]
    return normalize_text(parts[0]), normalize_text(" ".join(parts))


def opened(texts: Texts) -> Iterator[tuple[Engine, float]]:
    """Every engine that is installed, with the seconds its index took."""
    for kind in ENGINES:
        start = time.perf_counter()
        try:
            engine = kind(texts)
        except ImportError as error:
            print(f"  {kind.name}: skipped, {error.name} is not installed")
            continue
        yield engine, time.perf_counter() - start


def interleaved(engines: list[Engine], work: list[Callable[[Engine], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each piece of work per engine, the best of some rounds; engines take turns at every piece."""
    times = {engine.name: [float("inf")] * len(work) for engine in engines}
    for turn in range(rounds + 1):
        for at, piece in enumerate(work):
            for engine in engines[turn % len(engines) :] + engines[: turn % len(engines)]:
                start = time.perf_counter()
                piece(engine)
                if turn:  # the first round warms up
                    elapsed = (time.perf_counter() - start) * 1e3
                    times[engine.name][at] = min(times[engine.name][at], elapsed)
    return times


def report(what: str, times: dict[str, list[float]]) -> None:
    """p50 and p95 over the pieces of work, and how many times as long as ours each engine takes."""
    ours = float(np.median(times[Ours.name]))
    for name, values in times.items():
        p50, p95 = np.percentile(values, [50, 95])
        print(f"  {what:<18} {name:<17} p50 {p50:9.3f} ms   p95 {p95:9.3f} ms   {p50 / ours:8.2f} x ours")


def measure(data: DataSet) -> None:
    """Latency of searching, of scoring given products and of adding, and relevance where there are judgements."""
    print(f"{data.name}: {len(data.texts):,} products, {len(data.queries)} queries")
    engines = []
    for engine, seconds in opened(data.texts):
        engines.append(engine)
        print(f"  {'build':<18} {engine.name:<17} {seconds:.1f} s")
    queries = list(data.queries.values())
    random = np.random.default_rng(2).integers(0, len(data.texts), GIVEN).tolist()
    given = {query: sorted({*engines[0].search(query)[: GIVEN // 2], *random[: GIVEN // 2]}) for query in queries}
    rounds = ROUNDS if len(data.texts) < 100_000 else 2
    gc.disable()
    searching = [*engines, *(engine.without_total() for engine in engines if isinstance(engine, Tantivy))]
    report("search, depth 200", interleaved(searching, [lambda e, q=q: e.search(q) for q in queries], rounds))
    report("score 100 given", interleaved(engines, [lambda e, q=q: e.score(q, given[q]) for q in queries], rounds))
    gc.enable()
    if data.qrels is not None:
        _relevance(data, data.qrels, engines)
    # Last, because it changes an engine's statistics; bm25s would take as long as its build, which stands above.
    live = [engine for engine in engines if not (engine.name == Bm25s.name and len(data.texts) > 10_000)]
    report(f"add {ADDED}", interleaved(live, [lambda e: e.add(data.texts[:ADDED])], 3))


def _relevance(data: DataSet, qrels: Qrels, engines: list[Engine]) -> None:
    runs = {
        engine.name: Run.from_order(
            {key: [data.ids[row] for row in engine.search(query)[:100]] for key, query in data.queries.items()}
        )
        for engine in engines
    }
    values = {name: evaluate(qrels, run, (data.metric, "recall@100"), gain=data.gain) for name, run in runs.items()}
    for name, value in values.items():
        line = f"  {data.metric:<18} {name:<17} {value.mean(data.metric):.4f}   R@100 {value.mean('recall@100'):.4f}"
        if name != Ours.name:
            paired = compare(values[Ours.name], value, data.metric)
            gap = paired.difference
            line += f"   against ours {gap.estimate:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("sets", nargs="*", default=["esci", "zh"], choices=["esci", "zh", "foods"])
    parser.add_argument("--data", type=Path, default=os.environ.get("AISLE_TEST_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of data sets with --data or AISLE_TEST_DATA")
    for name in arguments.sets:
        measure(read(arguments.data, name))


if __name__ == "__main__":
    main()
