"""aisle serve: the published versions over HTTP.

How many processes and threads answer is the environment's to say. Where it says nothing, what `aisle pareto` found
best is taken from the served version, on machines like the one it was found on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import BundleError, NotFound
from app.index.bundle import BundleStore, collections_in, read_manifest
from app.processes import on_gpu, serve
from app.runtime.cores import usable_cores
from app.settings import Settings, SettingsError
from scripts.output import Output

_RECOMMENDED = ("processes", "workers", "max_batch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundles", type=Path, help="folder of versions (AISLE_BUNDLES)")
    parser.add_argument("--host", help="address to listen on (AISLE_HOST, default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 takes a free one (AISLE_PORT, default: 8000)")
    listed = "\n".join(
        f"  AISLE_{name.upper():18} {field.description} (default: {field.default})"
        for name, field in Settings.model_fields.items()
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"Environment:\n{listed}"


def run(arguments: argparse.Namespace, output: Output) -> int:
    environment = dict(os.environ)
    for name in ("bundles", "host", "port"):
        value = getattr(arguments, name)
        if value is not None:
            environment[f"AISLE_{name.upper()}"] = str(value)
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        told = str(error)
        for name in ("bundles", "host", "port"):
            if getattr(arguments, name) is not None:
                told = told.replace(f"AISLE_{name.upper()}=", f"--{name} ")
        output.fail(told, 2)
        return 2
    return serve(as_recommended(settings, output))


def as_recommended(settings: Settings, output: Output) -> Settings:
    """The settings with the processes, workers and batches that the first collection recommends which recommends any.
    They were found together, so where one of them is set, none is taken; nor where the machine is another."""
    if settings.model_fields_set & set(_RECOMMENDED):
        return settings
    machine = {"cores": usable_cores(), "provider": "cuda" if on_gpu(settings) else "cpu"}
    for collection, found in _recommendations(settings.bundles):
        if {name: found.get(name) for name in machine} != machine:
            continue
        try:
            taken = Settings.model_validate(settings.model_dump() | {name: found[name] for name in _RECOMMENDED})
        except (KeyError, ValidationError):
            output.warn(f"collection {collection} recommends settings that are none; they are left out")
            continue
        told = ", ".join(f"AISLE_{name.upper()}={found[name]}" for name in _RECOMMENDED)
        output.say(f"as collection {collection} recommends: {told}")
        return taken
    return settings


def _recommendations(bundles: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Collection and content; what cannot be read is left to the start, which says why."""
    with suppress(BundleError, NotFound, OSError):
        for collection in collections_in(bundles):
            with suppress(BundleError, NotFound, OSError):
                store = BundleStore(bundles, collection)
                found = read_manifest(store.path(store.current() or "")).content.get("serving")
                if isinstance(found, dict):
                    yield collection, found
