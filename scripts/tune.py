"""aisle tune: fit the published version's ranking to judgements; a new version where that is worth it."""

from __future__ import annotations

import argparse
import json
import shutil

from app.errors import BadInput
from app.index.bundle import MANIFEST
from app.search.collections import GOLDEN, Encoders, golden_answers, load
from models.gate import Judgements
from models.relevance import Gain, Queries, comparison_table
from models.tuning import DEPTHS, tune
from scripts.judged import add_judgement_arguments, load_judgements
from scripts.output import Output
from scripts.publish import add_gate_arguments, publish_through_gate
from scripts.stored import add_bundle_arguments, store_of, version_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)
    add_judgement_arguments(parser, required=True)
    parser.add_argument("--no-publish", action="store_true", help="make and verify the version, but do not serve it")
    add_gate_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Open → tune → copy the parts with the new ranking → seal → gate → publish."""
    store = store_of(arguments)
    version = version_of(arguments, store)
    served = load(store, version, Encoders("auto"))
    queries, qrels = load_judgements(arguments, output)
    queries = Queries({query_id: queries[query_id] for query_id in queries if query_id in qrels})
    if not queries:
        raise BadInput("none of the queries has judgements")
    gain = Gain(relevant_at=arguments.relevant_at)
    calibrated = (served.content.get("judgements") or {}).get("qrels") == qrels.digest
    with output.progress("tuning", unit="steps", total=len(DEPTHS) + 2) as tick:
        tuned = tune(served.searcher, queries, qrels.restrict(queries), gain, calibrated=calibrated, progress=tick)
    tables = "\n\n".join(comparison_table(part).text() for part in (tuned.weights, tuned.depths))
    evidence = {"of": version, "queries": queries.digest, "qrels": qrels.digest, **tuned.evidence()}
    if tuned.ranking is None:
        output.result({"version": None, **evidence}, f"{tables}\n\nnothing to gain: {version} stays as it is")
        return 0
    served.searcher.ranking = tuned.ranking
    with store.building() as folder:
        for part in store.path(version).iterdir():
            if part.name != MANIFEST and not part.name.startswith("gate."):
                shutil.copyfile(part, folder / part.name)
        texts = [one["query"] for one in json.loads((folder / GOLDEN).read_bytes())]
        golden = golden_answers(served.searcher, texts)
        (folder / GOLDEN).write_text(json.dumps(golden, ensure_ascii=False, indent=0), encoding="utf-8")
        about = {
            "queries": queries.digest,
            "qrels": qrels.digest,
            "pairs": qrels.pairs,
            "relevant_at": gain.relevant_at,
        }
        content = {
            **served.content,
            "ranking": tuned.ranking.to_json(),
            "judgements": about,
            "tuned": evidence,
            "gate": Judgements(queries, qrels, gain).save(folder),
        }
        made = store.seal(folder, content)
    store.verify(made)
    moved = ", ".join(f"{name} {before:g} → {after:g}" for name, (before, after) in tuned.moved.items()) or "no weight"
    text = f"{tables}\n\n{made}: moved {moved}; depth {tuned.depth[0]} → {tuned.depth[1]}; links fitted"
    value = {"version": made, **evidence}
    if arguments.no_publish:
        output.result(value, text)
        return 0
    return publish_through_gate(store, made, arguments).tell(output, value, text)
