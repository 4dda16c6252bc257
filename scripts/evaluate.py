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
    Run,
    compare_all,
    comparison_table,
    evaluate,
    evaluate_pairs,
    evaluation_table,
    query_folds,
    random_order,
)
from scripts.judged import add_judgement_arguments, load_judgements
from scripts.output import Output
from scripts.stored import add_bundle_arguments, open_version

METRICS = ("ndcg@10", "mrr@10", "map", "precision@10", "recall@100", "f1@10")
FOLDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)
    add_judgement_arguments(parser, required=True)
    parser.add_argument("--profile", default="default", help="the profile to hold against the legs (default: default)")
    parser.add_argument("--gain", choices=("exp", "linear"), default="exp", help="2^grade - 1, or grade - shift")
    parser.add_argument("--shift", type=float, default=0.0, help="subtracted from every grade (default: 0)")
    parser.add_argument("--judged-only", action="store_true", help="rank judged products only")
    parser.add_argument("--run-out", type=Path, help="write the profile's ranking as a TREC run")


def run(arguments: argparse.Namespace, output: Output) -> int:
    served = open_version(arguments)
    searcher = served.searcher
    queries, qrels = load_judgements(arguments, output)
    gain = Gain(arguments.gain, arguments.shift, arguments.relevant_at)
    query_ids = [query_id for query_id in queries if query_id in qrels]
    if not query_ids:
        raise ValueError("none of the queries has judgements")
    texts = {query_id: queries[query_id] for query_id in query_ids}
    _check_held(searcher, qrels, query_ids, output)
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
    note = _note(arguments.profile, fitted=bool(fitted), seen=seen)
    _report(output, served.searcher.version, evaluations, arguments.profile, calibration, seen, note)
    return 0


def _check_held(searcher: Searcher, qrels: Qrels, query_ids: list[str], output: Output) -> None:
    """Raises ValueError where the catalogue holds none of the judged products: the ids are of another catalogue."""
    products = [product_id for query_id in query_ids for product_id in qrels[query_id]]
    lacking = sum(searcher.catalog.row(product_id) is None for product_id in products)
    if lacking == len(products):
        raise ValueError(f"none of the {lacking:,} judged products is in this version, such as {products[0]!r}")
    if lacking:
        output.warn(f"{lacking:,} of {len(products):,} judged products are not in this version: they count as missed")


def _note(profile: str, *, fitted: bool, seen: bool) -> str:
    if seen and profile == "default":
        return "default is out-of-fold: weights and link fitted on the other four fifths of the queries"
    if seen:
        return f"the version was fitted to these judgements; the probabilities of {profile} are out-of-fold"
    if fitted:
        return "the version was fitted to other judgements: a query that is in both is not held out"
    return "the version was not fitted to any judgements"


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
) -> dict[str, Any] | None:
    """Probabilities of the judged pairs against their labels; out-of-fold where the link was fitted on them. None where
    the labels are all alike, as those of clicks are."""
    parts = _folded(examined, texts, qrels, gain) if seen else [(searcher.ranking, tuple(texts))]
    probabilities, labels, ids = [], [], []
    for ranking, test in parts:
        shape = ranking.profiles[profile]
        for query_id in test:
            one = examined[query_id]
            probabilities.append(shape.link.probability(one.judged_features @ np.array(shape.weights)))
            labels.append(one.grades >= gain.relevant_at)
            ids += [query_id] * len(one.grades)
    relevant = np.concatenate(labels)
    if relevant.all() or not relevant.any():
        return None
    pairs = evaluate_pairs(np.concatenate(probabilities), relevant.astype(float), ids)
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
    output: Output,
    version: str,
    evaluations: list[Evaluation],
    profile: str,
    calibration: dict[str, Any] | None,
    seen: bool,
    note: str,
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
    calibrated = (
        f"calibration over {calibration['pairs']:,} judged pairs: error {calibration['calibration_error']:.3f}, "
        f"Brier {calibration['brier']:.3f}, skill over the base rate {calibration['brier_skill']:.3f}"
        if calibration
        else "no calibration: the judged products of this version are all relevant, or all irrelevant"
    )
    text = "\n".join(
        [
            f"version {version}, {len(evaluations[0].query_ids)} queries; {note}",
            "",
            table.text(),
            "",
            against.text(),
            "",
            calibrated,
        ]
    )
    value = {
        "version": version,
        "out_of_fold": seen,
        "note": note,
        "table": json.loads(table.json()),
        "comparisons": json.loads(against.json()),
        "calibration": calibration,
    }
    output.result(value, text)
