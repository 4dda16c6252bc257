"""aisle evaluate: relevance on judged queries, with intervals, paired tests and a random-order line.

Where the version was fitted to these very judgements, the default profile's figures are out-of-fold: weights and link
are fitted again on four fifths of the queries and judged on the rest, five times over.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app import __version__
from app.search.searcher import Searcher
from models.blend import FAST, Examined, examine
from models.out_of_fold import FOLDS, SEED, Rankings, folded, run_over
from models.relevance import (
    Gain,
    PairEvaluation,
    Qrels,
    Queries,
    comparison_table,
    evaluate,
    random_order,
)
from models.relevance.compare import PERMUTATIONS, RESAMPLES
from models.report import Measurement, page
from scripts.judged import add_judgement_arguments, load_judgements
from scripts.output import Output
from scripts.stored import add_bundle_arguments, open_version

METRICS = ("ndcg@10", "mrr@10", "map", "precision@10", "recall@100", "f1@10")
REPEATS = 5
Floats = npt.NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)
    add_judgement_arguments(parser, required=True)
    parser.add_argument("--profile", default="default", help="the profile to hold against the legs (default: default)")
    parser.add_argument("--gain", choices=("exp", "linear"), default="exp", help="2^grade - 1, or grade - shift")
    parser.add_argument("--shift", type=float, default=0.0, help="subtracted from every grade (default: 0)")
    parser.add_argument("--judged-only", action="store_true", help="rank judged products only")
    parser.add_argument("--run-out", type=Path, help="write the profile's ranking as a TREC run")
    parser.add_argument(
        "--html", type=Path, help="write a page to read: verdict, segments, curves, best and worst queries"
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    served = open_version(arguments)
    queries, qrels = load_judgements(arguments, output)
    gain = Gain(arguments.gain, arguments.shift, arguments.relevant_at)
    fitted = served.content.get("judgements") or {}
    seen = fitted.get("qrels") == qrels.digest and arguments.profile in ("default", "lexical", "dense", FAST)
    texts = {query_id: queries[query_id] for query_id in queries if query_id in qrels}
    if not texts:
        raise ValueError("none of the queries has judgements")
    _check_held(served.searcher, qrels, list(texts), output)
    note = _note(arguments.profile, fitted=bool(fitted), seen=seen)
    measured = _measure(served.searcher, Queries(texts), qrels.restrict(texts), gain, arguments, seen=seen, note=note)
    if arguments.run_out:
        next(one for one in measured.runs if one.name == arguments.profile).write_trec(arguments.run_out)
    if arguments.html:
        facts = _facts(arguments, served.searcher.version, queries, qrels, gain)
        arguments.html.write_text(page(measured, _titles(served.searcher), facts), encoding="utf-8")
    output.result(_value(measured), _text(measured))
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
    if seen and profile in ("default", FAST):
        return f"{profile} is out-of-fold: weights and link fitted on the other four fifths of the queries"
    if seen:
        return f"the version was fitted to these judgements; the probabilities of {profile} are out-of-fold"
    if fitted:
        return "the version was fitted to other judgements: a query that is in both is not held out"
    return "the version was not fitted to any judgements"


def _measure(
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels,
    gain: Gain,
    arguments: argparse.Namespace,
    *,
    seen: bool,
    note: str,
) -> Measurement:
    """Rank the judged queries with both legs and the profile, and score all of them and a random order."""
    profile = arguments.profile
    names = tuple(dict.fromkeys(("lexical", "dense", profile)))
    examined = {name: examine(searcher, queries, qrels, name) for name in names}
    rankings = [(searcher.ranking, tuple(queries))]
    fitted = folded(examined[profile], queries, qrels, gain) if seen else rankings
    others = range(SEED + 1, SEED + REPEATS) if seen else range(0)
    repeated = [*fitted, *(one for seed in others for one in folded(examined[profile], queries, qrels, gain, seed))]
    runs = [random_order(qrels, [searcher.catalog.id(row) for row in range(len(searcher.catalog))], seed=SEED)]
    by = {name: fitted if name in ("default", FAST) else rankings for name in names}
    only = arguments.judged_only
    runs += [run_over(searcher, examined[name], by[name], name, judged_only=only) for name in names]
    judge = partial(evaluate, metrics=METRICS, gain=gain, judged_only=arguments.judged_only)
    return Measurement(
        searcher.version,
        profile,
        seen,
        note,
        queries,
        qrels,
        tuple(runs),
        tuple(judge(qrels, one) for one in runs),
        *_judged_pairs(examined[profile], repeated, profile, gain),
        repeats=1 + len(others),
    )


def _judged_pairs(
    examined: Mapping[str, Examined], rankings: Rankings, profile: str, gain: Gain
) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Probabilities and labels of the judged pairs, [n] each, and their queries."""
    probabilities, labels, ids = [], [], []
    for ranking, query_ids in rankings:
        shape = ranking.profiles[profile]
        for query_id in query_ids:
            one = examined[query_id]
            probabilities.append(shape.link.probability(one.judged_features @ np.array(shape.weights), one.clarity))
            labels.append(one.grades >= gain.relevant_at)
            ids += [query_id] * len(one.grades)
    return np.concatenate(probabilities), np.concatenate(labels).astype(np.float64), tuple(ids)


def _text(measured: Measurement) -> str:
    pairs = measured.pairs
    return "\n".join(
        [
            f"version {measured.version}, {len(measured.candidate.query_ids)} queries; {measured.note}",
            "",
            measured.table.text(),
            "",
            comparison_table(measured.comparisons).text(),
            "",
            f"calibration over {pairs.n_pairs // measured.repeats:,} judged pairs: error {pairs.ece_width:.3f}, "
            f"Brier {pairs.brier.estimate:.3f}, skill over the base rate {pairs.brier_skill.estimate:.3f}"
            if pairs
            else "no calibration: the judged products of this version are all relevant, or all irrelevant",
        ]
    )


def _value(measured: Measurement) -> dict[str, Any]:
    pairs = measured.pairs
    return {
        "version": measured.version,
        "out_of_fold": measured.out_of_fold,
        "note": measured.note,
        "table": json.loads(measured.table.json()),
        "comparisons": json.loads(comparison_table(measured.comparisons).json()),
        "calibration": {**_calibration(pairs), "pairs": pairs.n_pairs // measured.repeats} if pairs else None,
    }


def _calibration(pairs: PairEvaluation) -> dict[str, Any]:
    return {
        "pairs": pairs.n_pairs,
        "base_rate": pairs.base_rate,
        "brier": pairs.brier.estimate,
        "brier_skill": pairs.brier_skill.estimate,
        "calibration_error": pairs.ece_width,
        "accuracy": pairs.accuracy.estimate,
        "f1": pairs.f1.estimate,
    }


def _facts(arguments: argparse.Namespace, version: str, queries: Queries, qrels: Qrels, gain: Gain) -> dict[str, str]:
    """What somebody needs to get the same figures again."""
    worth = "2^(grade − shift) − 1" if gain.kind == "exp" else "grade − shift"
    unjudged = "taken out first" if arguments.judged_only else "worth nothing"
    return {
        "version": version,
        "collection": arguments.collection,
        "aisle": __version__,
        "queries": f"sha256 {queries.digest}",
        "judgements": f"sha256 {qrels.digest}; {qrels.pairs:,} pairs, {qrels.conflicts:,} judged twice differently",
        "gain": f"{worth}, shift {gain.shift:g}; relevant from grade {gain.relevant_at:g}; the unjudged {unjudged}",
        "folds": f"{FOLDS}, by query text; probabilities under {REPEATS} partitions",
        "seed": f"{SEED}; {RESAMPLES:,} bootstrap resamples, {PERMUTATIONS:,} permutations",
        "command": shlex.join(["aisle", *arguments.words]),
    }


def _titles(searcher: Searcher) -> Callable[[str], str]:
    """A product's title by its id, else the id."""
    catalog = searcher.catalog

    def title(product_id: str) -> str:
        row = catalog.row(product_id)
        held = {} if row is None else catalog.fields(row)
        return str(held.get(catalog.schema.roles.title) or product_id)

    return title
