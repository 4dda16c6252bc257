"""aisle ladder: the tiers of a version from the cheapest up, beside the fixed blends, and what each part brings.

A tier earns its place: none may be significantly worse than the one below it. The default is held against the best of
the fixed blends, chosen in hindsight on these very queries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from app.errors import BadInput
from app.index.arrays import load_array
from app.index.bundle import EMBEDDINGS
from app.search.versions import Encoders, load
from app.types import Floats
from models.ladder import DENSE_FULL, DENSE_OWN, FULL, TIERS, Latency, ablations, fixed_blends, latencies, tiers
from models.relevance import Evaluation, Gain, Queries, Run, Table, compare_all, comparison_table, evaluate
from scripts.judged import add_judgement_arguments, load_judgements
from scripts.output import Output
from scripts.stored import add_bundle_arguments, store_of, version_of

METRICS = ("ndcg@10", "mrr@10", "recall@100")
COMPARED = ("ndcg@10", "recall@100")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)
    add_judgement_arguments(parser, required=True)
    parser.add_argument("--gain", choices=("exp", "linear"), default="exp", help="2^grade - 1, or grade - shift")
    parser.add_argument("--shift", type=float, default=0.0, help="subtracted from every grade (default: 0)")
    parser.add_argument("--judged-only", action="store_true", help="rank judged products only")
    parser.add_argument("--no-latency", action="store_true", help="leave out the timings, which take a quiet machine")
    parser.add_argument("--no-ablation", action="store_true", help="leave out what each part brings")


def run(arguments: argparse.Namespace, output: Output) -> int:
    store = store_of(arguments)
    version = version_of(arguments, store)
    served = load(store, version, Encoders("auto"))
    searcher = served.searcher
    queries, qrels = load_judgements(arguments, output)
    gain = Gain(arguments.gain, arguments.shift, arguments.relevant_at)
    queries = Queries({query_id: queries[query_id] for query_id in queries if query_id in qrels})
    if not queries:
        raise BadInput("none of the queries has judgements")
    qrels = qrels.restrict(queries)
    fitted = (served.content.get("judgements") or {}).get("qrels") == qrels.digest
    own = load_array(store.path(version) / EMBEDDINGS, np.float16, len(searcher.catalog), searcher.encoder.dimension)
    embeddings: Floats = np.array(own, dtype=np.float32)

    only = arguments.judged_only
    judge = partial(evaluate, metrics=METRICS, gain=gain, judged_only=only)
    climbed = tiers(searcher, queries, qrels, gain, fitted=fitted, judged_only=only)
    found = {name: judge(qrels, one) for name, one in climbed.items()}
    fused = fixed_blends(searcher, embeddings, queries, qrels, judged_only=only)
    blends = {name: judge(qrels, one) for name, one in fused.items()}
    less: dict[str, Evaluation] = {}
    if not arguments.no_ablation:
        runs: dict[str, Run] = ablations(searcher, embeddings, queries, qrels, gain, fitted=fitted, judged_only=only)
        less = {name: judge(qrels, one) for name, one in runs.items()}
    timed = {} if arguments.no_latency else latencies(searcher, list(queries.values()), list(found))
    output.result(*_told(version, len(queries), fitted, found, blends, less, timed))
    return 0


def _told(
    version: str,
    queries: int,
    fitted: bool,
    found: dict[str, Evaluation],
    blends: dict[str, Evaluation],
    less: dict[str, Evaluation],
    timed: dict[str, Latency],
) -> tuple[dict[str, Any], str]:
    default = found["default"]
    steps = [name for name in TIERS if name in found]
    climbed = [one for below, above in pairwise(steps) for one in compare_all(found[below], [found[above]], COMPARED)]
    best = {metric: max(blends.values(), key=lambda blend: blend.mean(metric)) for metric in COMPARED}
    against = [one for metric in COMPARED for one in compare_all(best[metric], [default], (metric,))]
    shown = {
        "tiers": _figures(found, timed),
        "each tier against the one below": comparison_table(climbed),
        "fixed blends": _figures(blends, {}),
        "default against the best fixed blend of each metric": comparison_table(against),
    }
    if FULL in found:
        pairs = ((FULL, "default"), (DENSE_FULL, DENSE_OWN))
        beside = [one for full, own in pairs for one in compare_all(found[full], [found[own]], COMPARED)]
        shown["the distilled query encoder against the full one"] = comparison_table(beside)
    if less:
        made = [one for metric in COMPARED for one in compare_all(default, list(less.values()), (metric,))]
        shown["default with one part less"] = comparison_table(made)
    note = "out-of-fold where fitted" if fitted else "not fitted to these judgements"
    head = f"version {version}, {queries} queries; {note}"
    text = "\n\n".join([head, *(f"{title}\n{table.text()}" for title, table in shown.items())])
    value = {"version": version, "queries": queries, "out_of_fold": fitted}
    return value | {title: json.loads(table.json()) for title, table in shown.items()} | {
        "markdown": {title: table.markdown() for title, table in shown.items()}
    }, text


def _figures(evaluations: dict[str, Evaluation], timed: dict[str, Latency]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, one in evaluations.items():
        latency = (timed[name].p50, timed[name].p99) if name in timed else (None, None)
        rows.append((name, *(one.mean(metric) for metric in METRICS), *(latency if timed else ())))
    columns: Sequence[str] = ("ranking", *METRICS, *(("p50 ms", "p99 ms") if timed else ()))
    return Table(tuple(columns), tuple(rows))
