"""aisle key: a new API key, and the line by which a service knows it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from app.api import keyfile
from app.api.access import SCOPES
from scripts.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="whose key it is; a name may have several at once")
    parser.add_argument(
        "--scope", type=_scopes, required=True, metavar="SCOPES", help=f"comma list of {', '.join(SCOPES)}"
    )
    parser.add_argument("--expires", type=_expiry, metavar="DATE", help="ISO date (to its end, UTC) or datetime")
    parser.add_argument("--append", type=Path, metavar="FILE", help="add the line to this file (AISLE_API_KEYS_FILE)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    key = keyfile.new_key()
    line = keyfile.line_of(arguments.name, arguments.scope, key, arguments.expires)
    if arguments.append:
        keyfile.append(arguments.append, line)
    told = {"name": arguments.name, "key": key, "line": line, "file": arguments.append}
    where = f"its line, which {arguments.append} now has" if arguments.append else "its line for the file of keys"
    output.say(f"the key, which is shown only now, and {where}:")
    output.result(told, f"{key}\n{line}")
    return 0


def _scopes(text: str) -> frozenset[str]:
    scopes = frozenset(text.split(","))
    if not scopes <= set(SCOPES):
        raise argparse.ArgumentTypeError(f"{text!r} is no comma list of {', '.join(SCOPES)}")
    return scopes


def _expiry(text: str) -> str:
    try:
        over = keyfile.expiry(text) <= time.time()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO date or datetime") from None
    if over:
        raise argparse.ArgumentTypeError(f"{text} is over")
    return text.replace(" ", "T")
