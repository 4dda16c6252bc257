"""Opening a version from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.errors import NotFound
from app.index.bundle import BundleStore
from app.search.versions import Encoders, Served, load


def add_bundle_arguments(parser: argparse.ArgumentParser, *, version: bool = True) -> None:
    """--bundles, --collection and, where it makes sense, --version-id."""
    parser.add_argument("--bundles", type=Path, required=True, help="folder of versions")
    parser.add_argument("--collection", default="default", help="name of the collection (default: default)")
    if version:
        parser.add_argument("--version", dest="version_id", help="which version (default: the published one)")


def store_of(arguments: argparse.Namespace) -> BundleStore:
    """The store that the arguments name. Raises NotFound for a folder that is not there."""
    store = BundleStore(arguments.bundles, arguments.collection)
    if not store.folder.is_dir():
        named = "" if arguments.collection == "default" else f" --collection {arguments.collection}"
        raise NotFound(
            f"no versions in {store.folder}; `aisle build CATALOGUE --bundles {arguments.bundles}{named}` makes one"
        )
    return store


def version_of(arguments: argparse.Namespace, store: BundleStore) -> str:
    """The version that the arguments name, else the published one. Raises NotFound."""
    version = arguments.version_id or store.current()
    if version is None:
        raise NotFound(f"nothing is published in {store.folder}")
    return str(version)


def open_version(arguments: argparse.Namespace) -> Served:
    """Verify, open and warm the version that the arguments name."""
    store = store_of(arguments)
    return load(store, version_of(arguments, store), Encoders("auto"))
