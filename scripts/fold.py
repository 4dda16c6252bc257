"""aisle fold: the served version and the changes since it was built become the next version."""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.errors import BadInput, NotFound
from app.index.bundle import BundleStore, read_manifest
from app.index.changes import ChangeLog
from app.search.live import LiveVersion, built_from
from app.search.static import TABLE as STATIC
from app.search.versions import Encoders, load
from models import gate
from models.smooth import NEIGHBOURS
from scripts import build
from scripts.output import Output
from scripts.publish import add_gate_arguments, check_gate_arguments
from scripts.readers import ReadReport
from scripts.stored import add_bundle_arguments, store_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_arguments(parser, version=False)
    parser.add_argument("--changes", type=Path, help="folder of the change logs (AISLE_CHANGES of the service)")
    parser.add_argument("--no-publish", action="store_true", help="make and verify the version, but do not serve it")
    add_gate_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Its products with their changes, its ranking and synonyms, statistics of their own; changes that come meanwhile
    are taken in when it is served."""
    check_gate_arguments(arguments)
    store = store_of(arguments)
    version = store.current()
    if version is None:
        raise NotFound(f"nothing is published in {store.folder}")
    log = build.change_log(arguments)
    with _alone(log) as alone:
        if not alone:
            output.result({"version": version, "changed": None}, "another fold is under way")
            return 0
        return _fold(arguments, store, version, log, output)


def _fold(arguments: argparse.Namespace, store: BundleStore, version: str, log: Path, output: Output) -> int:
    folder = store.path(version)
    served = load(store, version, Encoders("cpu"))
    live = LiveVersion(served, folder, log)
    with output.progress("taking in changes", unit="changes") as tick:
        while live.listen():
            before = live.sequence
            live.step(embed=False)
            tick(live.sequence - before)
    if not live.changed:
        output.result({"version": version, "changed": 0}, f"nothing has changed since {version}")
        return 0
    catalog = served.searcher.catalog
    if lost := [spec.name for spec in catalog.schema.fields if not spec.stored and "." not in spec.name]:
        raise BadInput(f"{version} does not store {', '.join(lost)}: build from the catalogue")
    source = build.Source(
        schema=catalog.schema,
        info=served.info,
        report=ReadReport,
        products=live.products,
        inputs=served.content["inputs"],
        synonyms=served.searcher.words.synonyms,
        judged=gate.Judgements.kept(folder, read_manifest(folder), "kept"),
        changes={"log": ChangeLog(log).id, "sequence": live.sequence},
        ranking=served.searcher.ranking,
        judgements=served.content.get("judgements"),
        tuned=served.content,
    )
    code = build.make_version(source, _as_built(arguments, folder, version, served.content), output)
    if code == 0 and not arguments.no_publish:
        _trim(store, log)
    return code


@contextmanager
def _alone(log: Path) -> Iterator[bool]:
    """Whether nobody else folds this log; several processes of one service may set out at once."""
    if not log.is_dir():
        yield True
        return
    descriptor = os.open(log / "FOLDING", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _as_built(arguments: argparse.Namespace, folder: Path, version: str, content: Any) -> argparse.Namespace:
    """What `aisle build` would be told, to build the version as it was built."""
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    built = parser.parse_args(["folded", "--bundles", str(arguments.bundles), "--reuse", version])
    built.encoder = folder
    built.static = "auto" if (folder / STATIC).exists() else "off"
    dense = content["dense"]
    drawn = float(dense.get("smoothing") or 0.0)
    built.smoothing = drawn * NEIGHBOURS / dense["neighbours"] if drawn else 0.0
    vars(built).update({name: value for name, value in vars(arguments).items() if name in vars(built)})
    return built


def _trim(store: BundleStore, log: Path) -> None:
    """What no version that is kept would need, should it be served again."""
    name = ChangeLog(log).id
    held = [built_from(read_manifest(store.path(version)).content, name) for version in store.versions()]
    ChangeLog(log).trim(min(held, default=0))
