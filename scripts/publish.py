"""aisle publish: make a version the served one; running services follow within a second."""

from __future__ import annotations

import argparse

from scripts.output import Output
from scripts.stored import add_bundle_arguments, store_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version_id", metavar="VERSION", help="such as 20261123-ab12cd34")
    add_bundle_arguments(parser, version=False)


def run(arguments: argparse.Namespace, output: Output) -> int:
    store = store_of(arguments)
    before = store.current()
    store.publish(arguments.version_id)
    output.result(
        {"published": arguments.version_id, "before": before}, f"published {arguments.version_id} (before: {before})"
    )
    return 0
