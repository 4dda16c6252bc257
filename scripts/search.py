"""aisle search: one search from the command line, with its parts."""

from __future__ import annotations

import argparse
import json
from time import perf_counter
from typing import Any

from app.search.job import SearchJob
from app.types import SearchRequest
from scripts.output import Output
from scripts.stored import add_bundle_arguments, open_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", help="what a shopper would type")
    parser.add_argument("-k", type=_count, default=10, help="how many products (default: 10)")
    parser.add_argument(
        "--profile",
        default="default",
        help="a profile of the version: default, fast, lexical, dense or one of its own (default: default)",
    )
    parser.add_argument("--filter", type=_condition, help='such as \'{"field": "brand", "in": ["Sony"]}\'')
    parser.add_argument("--explain", action="store_true", help="show what each feature brought to the score")
    add_bundle_arguments(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of products, from 1 on")
    return int(text)


def _condition(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error


def run(arguments: argparse.Namespace, output: Output) -> int:
    searcher = open_version(arguments).searcher
    request = SearchRequest(
        " ".join(arguments.words),
        k=arguments.k,
        profile=arguments.profile,
        explain=arguments.explain,
        filter=arguments.filter,
    )
    started = perf_counter()
    job = SearchJob(searcher, searcher.query(request), started)
    searcher.search([job])
    if job.answer is None:
        raise job.error or RuntimeError("no answer")
    took_ms = (perf_counter() - started) * 1e3
    answer = json.loads(b"{" + job.answer.tail)
    lines = [f"searched for: {answer['corrected']}"] if answer["corrected"] else []
    if answer["word_matches"] == 0 and answer["hits"]:
        lines.append("no product has any of these words; these come closest in meaning")
    if answer["relaxed"]:
        lines.append(f"nothing found with {' '.join(answer['relaxed']['dropped'])}: searched without")
    for place, hit in enumerate(answer["hits"], 1):
        title = next(
            (str(value) for name, value in hit["product"].items() if name == searcher.catalog.schema.roles.title), ""
        )
        lines.append(f"{place:3}. {_score(hit)}  {title[:100]}  [{hit['id']}]")
        lines += [
            f"       {part['contribution']:+.4f}  {part['name']} {part['value']:.4f} × {part['weight']:g}"
            for part in (hit["explanation"] or {}).get("contributions", [])
        ]
    total, more = answer["total"], "or more " if answer["total"]["relation"] == "gte" else ""
    found = f"{total['value']} {more}product{'' if total['value'] == 1 and not more else 's'}"
    lines.append(f"{found}, {took_ms:.2f} ms, tier {answer['tier']}, version {answer['version']}")
    output.result({"took_ms": round(took_ms, 3), **answer}, "\n".join(lines))
    return 0


def _score(hit: dict[str, Any]) -> str:
    return "  –  " if hit["score"] is None else f"{hit['score']:.3f}"
