"""aisle versions: what is there, what is served."""

from __future__ import annotations

import argparse

from app.errors import BundleError
from app.index.bundle import read_manifest
from scripts.output import Output
from scripts.stored import add_bundle_arguments, store_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser, version=False)


def run(arguments: argparse.Namespace, output: Output) -> int:
    store = store_of(arguments)
    current = store.current()
    rows = []
    for version in store.versions():
        try:
            manifest = read_manifest(store.path(version))
            rows.append(
                {
                    "version": version,
                    "served": version == current,
                    "created": manifest.created,
                    "products": manifest.content.get("products"),
                    "gate": (store.gate_record(version) or {}).get("outcome"),
                    "intact_manifest": True,
                }
            )
        except BundleError:
            rows.append({"version": version, "served": version == current, "intact_manifest": False})
    rows.sort(key=lambda row: str(row.get("created", "")))  # a name orders the days, not the versions of one day
    lines = [
        f"{'*' if row['served'] else ' '} {row['version']}  {row.get('created', 'manifest unreadable')}  "
        + (f"{row['products']:,} products" if row.get("products") is not None else "")
        + (f"  {row['gate']}" if row.get("gate") else "")
        for row in rows
    ]
    output.result({"collection": store.collection, "versions": rows}, "\n".join(lines) or "no versions")
    return 0
