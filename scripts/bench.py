"""aisle bench: a search over a loopback socket beside its own raw kernels; `make bench` is the same with a plot."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from app.errors import NotFound
from app.index.bundle import BundleStore
from scripts.output import Output

ROOT = Path(__file__).parent.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="folder of versions (default: bundles)")
    parser.add_argument("--rounds", type=int, default=3, help="passes over the queries (default: 3)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    if not (ROOT / "tests" / "bench").is_dir():
        output.warn("bench runs from a checkout of the source")
        return 1
    store = BundleStore(arguments.bundles)
    if store.current() is None:
        raise NotFound(f"nothing is published in {store.folder}; `make run` builds the demo catalogues")
    command = [sys.executable, "-m", "tests.bench.bench_search", "--bundles", str(arguments.bundles.resolve())]
    command += ["--rounds", str(arguments.rounds), *(["--json"] if arguments.json else [])]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603  (our own module)
