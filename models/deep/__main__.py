"""Two deeper rerankers, learnt from what may ship and measured out-of-fold: what would they bring over the default?

    python -m models.deep collect WORK --bundles DIR --dev Q.tsv J.tsv --train Q.tsv J.tsv [--other NAME Q.tsv J.tsv]
    python -m models.deep fit WORK BASE        five minutes of a GPU, hours of a CPU
    python -m models.deep compare WORK

A cross-encoder reads query and product as one text (Nogueira and Cho 2019). Late interaction lets every query token
meet the product token nearest to it, over token vectors that an index could hold (ColBERT, Khattab and Zaharia 2020).
Both start as the base encoder, learn to find a title's own product by spans of it, and then the judged lists.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from app.index.bundle import DEFAULT_COLLECTION
from models.deep.fit import MODELS, scored
from models.deep.lists import STORED, List, Scores, Work, collect
from models.relevance import Gain, Qrels, Run, Table, compare_all, comparison_table, evaluate

SCORES = "scores.npz"
_RERANKED = 50
_WEIGHTS = (0.05, 0.1, 0.2, 0.35, 0.5, 1.0)


def fit(folder: Path, base: Path, name: str) -> Scores:
    """Train one model in every fold and score with it. A GPU is taken where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored = np.load(folder / STORED, allow_pickle=False).astype(np.float32)
    return scored(Work.load(folder), stored, base, name, device, partial(print, flush=True))


def compare(folder: Path) -> Iterator[tuple[str, Table]]:
    """By part: the default ranking against its first fifty reordered by default + weight × model, both standardised
    within the list, at each weight."""
    work = Work.load(folder)
    scores = np.load(folder / SCORES, allow_pickle=False)
    for part in dict.fromkeys(one.part for one in work.measured):
        own = [(at, one) for at, one in enumerate(work.measured) if one.part == part]
        qrels = Qrels({one.query_id: {str(row): grade for row, grade in one.judged} for _, one in own})
        runs = [Run({one.query_id: _reordered(one, None, 0.0) for _, one in own}, "default")]
        for name in scores.files:
            for weight in _WEIGHTS:
                ranked = {one.query_id: _reordered(one, scores[name][at], weight) for at, one in own}
                runs.append(Run(ranked, f"{name} × {weight:g}"))
        baseline, *others = (evaluate(qrels, run, ("ndcg@10",), gain=Gain()) for run in runs)
        yield part, comparison_table(compare_all(baseline, others, ("ndcg@10",)))


def _reordered(one: List, scores: Scores | None, weight: float) -> list[tuple[str, float]]:
    raw = np.array(one.raw)
    head = min(_RERANKED, len(raw))
    if scores is not None and head:
        raw[:head] = _standard(raw[:head]) + weight * _standard(scores[:head].astype(np.float64))
    order = [*np.argsort(-raw[:head], kind="stable"), *range(head, len(raw))]
    return [(str(one.rows[at]), -float(place)) for place, at in enumerate(order)]


def _standard(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = (values - values.mean()) / max(float(values.std()), 1e-9)
    return scaled


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.deep", description="what deeper rerankers would bring")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("collect", help="write the lists to learn from and to measure on")
    one.add_argument("work", type=Path, help="folder to write into")
    one.add_argument("--bundles", type=Path, required=True, help="folder of versions")
    one.add_argument("--collection", default=DEFAULT_COLLECTION, help="of the judgements that are learnt from")
    one.add_argument("--dev", type=Path, nargs=2, required=True, metavar=("Q", "J"), help="learnt and measured by fold")
    one.add_argument("--train", type=Path, nargs=2, required=True, metavar=("Q", "J"), help="learnt from")
    one.add_argument("--other", nargs=3, action="append", default=[], metavar=("NAME", "Q", "J"), help="measured")
    one = commands.add_parser("fit", help="train out-of-fold and score")
    one.add_argument("work", type=Path)
    one.add_argument("base", type=Path, help="checkpoint folder that both begin as")
    one = commands.add_parser("compare", help="the tables")
    one.add_argument("work", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "collect":
        own = [("dev", options.collection, *options.dev), ("train", options.collection, *options.train)]
        others = [(name, name, Path(queries), Path(qrels)) for name, queries, qrels in options.other]
        print(f"{len(collect(options.work, options.bundles, [*own, *others]).lists):,} lists")
    elif options.command == "fit":
        found: dict[str, npt.NDArray[np.float32]] = {name: fit(options.work, options.base, name) for name in MODELS}
        np.savez(options.work / SCORES, allow_pickle=False, **found)
    else:
        for part, table in compare(options.work):
            print(f"{part}\n\n{table.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
