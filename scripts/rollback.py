"""aisle rollback: serve the version published before the current one."""

from __future__ import annotations

import argparse

from scripts.output import Output
from scripts.stored import add_bundle_arguments, store_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser, version=False)


def run(arguments: argparse.Namespace, output: Output) -> int:
    store = store_of(arguments)
    before = store.current()
    version = store.roll_back()
    output.result({"published": version, "before": before}, f"rolled back to {version} (from {before})")
    return 0
