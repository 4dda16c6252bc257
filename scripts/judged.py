"""The judgements that a command is given: queries, grades, and from which grade on a product is relevant."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.relevance import Qrels, Queries
from scripts.output import Output


def add_judgement_arguments(parser: argparse._ActionsContainer, *, required: bool) -> None:
    """--queries, --qrels, --duplicates and --relevant-at."""
    parser.add_argument("--queries", type=Path, required=required, help="judged queries: query_id<TAB>text")
    parser.add_argument("--qrels", type=Path, required=required, help="their grades: query_id<TAB>product_id<TAB>grade")
    parser.add_argument(
        "--duplicates",
        choices=("refuse", "last", "max"),
        default="refuse",
        help="a pair that is graded twice and differently: refuse the file, or keep one grade (default: refuse)",
    )
    parser.add_argument(
        "--relevant-at", type=float, default=2.0, help="least grade that counts as relevant (default: 2)"
    )


def load_judgements(arguments: argparse.Namespace, output: Output) -> tuple[Queries, Qrels]:
    """Read both files. Raises JudgementError with the file and the line."""
    queries, qrels = Queries.load(arguments.queries), Qrels.load(arguments.qrels, arguments.duplicates)
    if qrels.conflicts:
        output.warn(f"{qrels.conflicts:,} pairs are graded differently: the {arguments.duplicates} grade is taken")
    return queries, qrels
