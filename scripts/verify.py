"""aisle verify: every byte of a version against its manifest, then the golden queries."""

from __future__ import annotations

import argparse

from app.search.versions import Encoders, load
from scripts.output import Output
from scripts.stored import add_bundle_arguments, store_of, version_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    store = store_of(arguments)
    version = version_of(arguments, store)
    manifest = store.verify(version)
    load(store, version, Encoders("auto"))
    size = sum(size for _, size in manifest.parts.values())
    output.result(
        {"version": version, "intact": True, "parts": len(manifest.parts), "bytes": size},
        f"{version} is intact: {len(manifest.parts)} parts, {size / 1e6:.1f} MB, golden queries answered",
    )
    return 0
