"""The console command `aisle`: one file a command, in the order in which they are used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from app import __version__
from app.errors import AisleError, BundleError
from scripts.output import Output

DONE, FAILED, WRONG_USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130

# name → (module, one line of help); modules are imported on use, so that `aisle --help` answers at once.
COMMANDS = {
    "build": ("scripts.build", "make a version from a catalogue, verify and publish it"),
    "serve": ("scripts.serve", "serve the published version over HTTP"),
    "search": ("scripts.search", "search a version from the command line"),
    "evaluate": ("scripts.evaluate", "measure relevance on judged queries, with intervals and paired tests"),
    "ladder": ("scripts.ladder", "what each tier and each part of the ranking brings, beside the fixed blends"),
    "tune": ("scripts.tune", "fit the ranking to judgements; publish it only if that is better beyond doubt"),
    "pareto": ("scripts.pareto", "trade speed for quality under a p99 goal: index breadth, depths, processes, threads"),
    "rescore": ("scripts.rescore", "score (query, product) pairs of a file"),
    "versions": ("scripts.versions", "list the versions of a collection"),
    "verify": ("scripts.verify", "check every byte of a version against its manifest"),
    "publish": ("scripts.publish", "make a version the served one"),
    "fold": ("scripts.fold", "make the next version of the served one and the changes since it was built"),
    "rollback": ("scripts.rollback", "serve the version published before the current one"),
    "key": ("scripts.key", "make an API key, and the line by which a service knows it"),
    "train": ("scripts.train", "train an encoder by a recipe (needs the train extra)"),
    "export": ("scripts.export", "make an encoder folder from a BERT-type checkpoint (needs the train extra)"),
    "distill": ("scripts.distill", "train a small query encoder to follow a large one (needs the train extra)"),
    "bench": ("scripts.bench", "measure a search beside its raw kernels (needs a checkout)"),
}


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line; `only` fills in the arguments of that command alone (all of them without it)."""
    top = argparse.ArgumentParser(
        prog="aisle",
        description="Product search that answers in about a millisecond.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (digest, gate, permission).",
    )
    top.add_argument("--version", action="version", version=f"aisle {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        one = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        one.add_argument("--json", action="store_true", help="print the result, or the error, as one JSON object")
        if only in (None, name):
            import_module(module).add_arguments(one)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    named = next((word for word in words if word in COMMANDS), None)
    parsed = parser(named or "").parse_args(words, argparse.Namespace(words=words))
    output = Output(as_json=parsed.json)
    try:
        return int(import_module(COMMANDS[parsed.command][0]).run(parsed, output))
    except KeyboardInterrupt:
        output.fail("interrupted", INTERRUPTED)
        return INTERRUPTED
    except (AisleError, OSError, ValueError) as error:
        code = REFUSED if isinstance(error, BundleError | PermissionError) else FAILED
        output.fail(("refused: " if code == REFUSED else "") + _told(error), code)
        return code


def _told(error: Exception) -> str:
    """In words: the system's own errors begin with a number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
