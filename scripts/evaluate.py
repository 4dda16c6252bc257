"""aisle evaluate: relevance on judged queries, with intervals, paired tests and a random-order line.

Where the version was fitted to these very judgements, the default profile's figures are out-of-fold: weights and link
are fitted again on four fifths of the queries and judged on the rest, five times over.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.search.rerank import Ranking
from app.search.searcher import Searcher
from models.blend import Examined, examine, fit_ranking, run_of
from models.relevance import (
    Evaluation,
    Gain,
    Qrels,
    Queries,
    Run,
    compare_all,
    comparison_table,
    evaluate,
    evaluate_pairs,
    evaluation_table,
    query_folds,
    random_order,
)
from scripts.output import Output
from scripts.stored import add_bundle_arguments, open_version

METRICS = ("ndcg@10", "mrr@10", "map", "precision@10", "recall@100", "f1@10")
FOLDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)
    parser.add_argument("--queries", type=Path, required=True, help="query_id<TAB>text")
    parser.add_argument("--qrels", type=Path, required=True, help="query_id<TAB>product_id<TAB>grade")
    parser.add_argument("--profile", default="default", help="the profile to hold against the legs (default: default)")
    parser.add_argument("--gain", choices=("exp", "linear"), default="exp", help="2^grade - 1, or grade - shift")
    parser.add_argument("--shift", type=float, default=0.0, help="subtracted from every grade (default: 0)")
    parser.add_argument(
        "--relevant-at", type=float, default=2.0, help="least grade that counts as relevant (default: 2)"
    )
    parser.add_argument("--judged-only", action="store_true", help="rank judged products only")
    parser.add_argument("--run-out", type=Path, help="write the profile's ranking as a TREC run")


def run(arguments: argparse.Namespace, output: Output) -> int:
    served = open_version(arguments)
    searcher = served.searcher
    queries, qrels = Queries.load(arguments.queries), Qrels.load(arguments.qrels)
    gain = Gain(arguments.gain, arguments.shift, arguments.relevant_at)
    query_ids = [query_id for query_id in queries if query_id in qrels]
    if not query_ids:
        raise ValueError("none of the queries has judgements")
    texts = {query_id: queries[query_id] for query_id in query_ids}
    fitted = served.content.get("judgements") or {}
    seen = fitted.get("qrels") == qrels.digest and arguments.profile in ("default", "lexical", "dense")

    runs = {}
    for name in dict.fromkeys(("lexical", "dense", arguments.profile)):
        examined = examine(searcher, queries, qrels, name)
        if name == arguments.profile:
            held = examined
        profile = searcher.ranking.profiles[name]
        if seen and name == "default":
            runs[name] = _out_of_fold_run(searcher, held, texts, qrels, gain)
        else:
            runs[name] = run_of(searcher, examined, query_ids, profile, name)
    everything = [searcher.catalog.id(row) for row in range(len(searcher.catalog))]
    chosen = qrels.restrict(query_ids)
    evaluations = [
        evaluate(chosen, random_order(chosen, everything), METRICS, gain=gain, judged_only=arguments.judged_only),
        *(evaluate(chosen, one, METRICS, gain=gain, judged_only=arguments.judged_only) for one in runs.values()),
    ]
    calibration = _calibration(searcher, held, texts, qrels, gain, arguments.profile, seen)
    if arguments.run_out:
        runs[arguments.profile].write_trec(arguments.run_out)
    _report(output, served.searcher.version, evaluations, arguments.profile, calibration, seen)
    return 0


def _folded(
    examined: Mapping[str, Examined], texts: Mapping[str, str], qrels: Qrels, gain: Gain
) -> list[tuple[Ranking, tuple[str, ...]]]:
    """Per fold: the ranking fitted without its queries, and its queries."""
    folds = query_folds(texts, FOLDS)
    return [(fit_ranking(examined, fold.train, qrels, gain), fold.test) for fold in folds]


def _out_of_fold_run(
    searcher: Searcher, examined: Mapping[str, Examined], texts: Mapping[str, str], qrels: Qrels, gain: Gain
) -> Run:
    rankings: dict[str, Any] = {}
    for ranking, test in _folded(examined, texts, qrels, gain):
        rankings.update(run_of(searcher, examined, test, ranking.profiles["default"], "default"))
    return Run(rankings, "default")


def _calibration(
    searcher: Searcher,
    examined: Mapping[str, Examined],
    texts: Mapping[str, str],
    qrels: Qrels,
    gain: Gain,
    profile: str,
    seen: bool,
) -> dict[str, Any]:
    """Probabilities of the judged pairs against their labels; out-of-fold where the link was fitted on them."""
    parts = _folded(examined, texts, qrels, gain) if seen else [(searcher.ranking, tuple(texts))]
    probabilities, labels, ids = [], [], []
    for ranking, test in parts:
        shape = ranking.profiles[profile]
        for query_id in test:
            one = examined[query_id]
            probabilities.append(shape.link.probability(one.judged_features @ np.array(shape.weights)))
            labels.append(one.grades >= gain.relevant_at)
            ids += [query_id] * len(one.grades)
    pairs = evaluate_pairs(np.concatenate(probabilities), np.concatenate(labels).astype(float), ids)
    return {
        "pairs": pairs.n_pairs,
        "base_rate": pairs.base_rate,
        "brier": pairs.brier.estimate,
        "brier_skill": pairs.brier_skill.estimate,
        "calibration_error": pairs.ece_width,
        "accuracy": pairs.accuracy.estimate,
        "f1": pairs.f1.estimate,
    }


def _report(
    output: Output, version: str, evaluations: list[Evaluation], profile: str, calibration: dict[str, Any], seen: bool
) -> None:
    table = evaluation_table(evaluations)
    by_name = {one.name: one for one in evaluations}
    comparisons = [
        one
        for leg in ("lexical", "dense")
        if leg != profile
        for one in compare_all(by_name[leg], [by_name[profile]], ("ndcg@10", "recall@100"))
    ]
    against = comparison_table(comparisons)
    note = (
        "default is out-of-fold: weights and link fitted on the other four fifths of the queries"
        if seen
        else ("the version was not fitted to these judgements")
    )
    text = "\n".join(
        [
            f"version {version}, {len(evaluations[0].query_ids)} queries; {note}",
            "",
            table.text(),
            "",
            against.text(),
            "",
            f"calibration over {calibration['pairs']:,} judged pairs: error {calibration['calibration_error']:.3f}, "
            f"Brier {calibration['brier']:.3f}, skill over the base rate {calibration['brier_skill']:.3f}",
        ]
    )
    value = {
        "version": version,
        "out_of_fold": seen,
        "table": json.loads(table.json()),
        "comparisons": json.loads(against.json()),
        "calibration": calibration,
    }
    output.result(value, text)
