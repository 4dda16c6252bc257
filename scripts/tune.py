"""aisle tune: fit what is served to judgements, and publish that only if it is better beyond doubt.

A new version has the parts of the old one, byte for byte; only the ranking, the golden answers and the evidence differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from app.errors import BadInput, NotFound
from app.search.versions import Encoders, load
from models.gate import Judgements
from models.out_of_fold import FOLDS
from models.relevance import Gain, Qrels, Queries, comparison_table
from models.report.tuning import tuning_page
from models.tuning import Tuned, tune
from scripts.judged import add_judgement_arguments, load_judgements
from scripts.output import Output
from scripts.publish import add_gate_arguments, check_gate_arguments, publish_through_gate
from scripts.reseal import reseal
from scripts.stored import add_bundle_arguments, store_of

Told = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser, version=False)
    add_judgement_arguments(parser, required=True)
    parser.add_argument("--gain", choices=("exp", "linear"), default="exp", help="2^grade - 1, or grade - shift")
    parser.add_argument("--shift", type=float, default=0.0, help="subtracted from every grade (default: 0)")
    parser.add_argument("--judged-only", action="store_true", help="rank judged products only")
    parser.add_argument("--no-publish", action="store_true", help="make and verify the version, but do not serve it")
    parser.add_argument("--html", type=Path, help="write a page with the evidence")
    add_gate_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Load → judgements → tune, out-of-fold too → a new version where it gains → gate → publish."""
    check_gate_arguments(arguments)
    store = store_of(arguments)
    present = store.current()
    if present is None:
        raise NotFound(f"nothing is published in {store.folder}")
    served = load(store, present, Encoders("auto"))
    queries, qrels = load_judgements(arguments, output)
    gain = Gain(arguments.gain, arguments.shift, arguments.relevant_at)
    about = _about(queries, qrels, gain)
    judged = Queries({query_id: queries[query_id] for query_id in queries if query_id in qrels})
    if not judged:
        raise BadInput("none of the queries has judgements")
    with output.progress("tuning", unit="fits", total=FOLDS + 1) as tick:
        tuned = tune(
            served.searcher,
            judged,
            qrels.restrict(judged),
            gain,
            fitted=(served.content.get("judgements") or {}).get("qrels") == qrels.digest,
            judged_only=arguments.judged_only,
            tick=tick,
        )
    evidence = {"before": present, "judged_only": arguments.judged_only, **about, **tuned.to_json()}
    version = None
    if tuned.better:
        # The gate grades exponentially and counts what is unjudged as nothing: judgements for other rules are not its.
        fit = (gain.kind, gain.shift, arguments.judged_only) == ("exp", 0.0, False)
        gate = Judgements(queries, qrels, gain) if fit else None
        served.searcher.ranking = tuned.ranking
        version = reseal(store, served.searcher, {"judgements": about, "tuning": evidence}, gate)
    if arguments.html:
        arguments.html.write_text(tuning_page(tuned, present, version, about), encoding="utf-8")
    value = {"version": version, "published": False, **evidence}
    text = _text(tuned, present, version)
    if version is None or arguments.no_publish:
        output.result(value, text)
        return 0
    gated = publish_through_gate(store, version, arguments)
    return gated.tell(output, {**value, "published": gated.published}, text)


def _about(queries: Queries, qrels: Qrels, gain: Gain) -> Told:
    """The judgements as a manifest names them."""
    about: Told = {"queries": queries.digest, "qrels": qrels.digest, "pairs": qrels.pairs}
    return {**about, "relevant_at": gain.relevant_at, "gain": gain.kind, "shift": gain.shift}


def _text(tuned: Tuned, present: str, version: str | None) -> str:
    moved = [f"  {move.what}: {move.before:g} → {move.after:g}" for move in tuned.moves]
    lines = [f"tuned {version} from {present}" if version else f"nothing to gain: {present} stays"]
    lines += ["moved:" if version else "tried, without a gain beyond doubt:", *moved] if moved else ["nothing moved"]
    return "\n".join([*lines, "", "out-of-fold, tuned − present:", comparison_table(tuned.comparisons).text()])
