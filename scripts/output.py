"""What a command says: people on standard error, results on standard output, one JSON object with --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Output:
    """Progress on a terminal only; with `as_json` the result is one JSON object and nothing else is said."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self._json:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A line that must be seen, with --json too."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def fail(self, text: str, exit_code: int) -> None:
        """Why there is no result; with --json an object on standard output, too, so that there always is one."""
        print(f"aisle: {text}", file=sys.stderr, flush=True)
        if self._json:
            print(json.dumps({"error": text, "exit_code": exit_code}, ensure_ascii=False), flush=True)

    def result(self, value: Any, text: str) -> None:
        """What the command was for."""
        print(json.dumps(value, ensure_ascii=False, default=str) if self._json else text, flush=True)

    @contextmanager
    def progress(self, name: str, *, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal; yields what to call with the number of units done."""
        quiet = self._json or not sys.stderr.isatty()
        with tqdm(desc=name, unit=f" {unit}", total=total, disable=quiet, leave=False, mininterval=0.2) as bar:

            def advance(count: int) -> None:
                bar.update(count)

            yield advance
