"""The real service with an encoder of queries that sleeps: its capacity is then known, and one generator can exceed it.

    python -m tests.bench.sleeping_app --bundles bundles --sleep-ms 10 [--fixed]

The sleep stands in front of the real run and lets go of the interpreter, as a network's arithmetic does. `--fixed`
takes the quality ladder away: each search is answered by the tier it asks for, or late.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.main import serve
from app.search import searcher
from app.search.embed import Encoder
from app.settings import Settings
from app.types import Floats


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--sleep-ms", type=float, required=True)
    parser.add_argument("--fixed", action="store_true")
    arguments = parser.parse_args()
    real = Encoder.queries

    def slow(self: Encoder, texts: Sequence[str]) -> Floats:
        time.sleep(arguments.sleep_ms / 1e3)
        return real(self, texts)

    Encoder.queries = slow  # type: ignore[method-assign]
    if arguments.fixed:
        searcher.fitting = lambda steps, *_: (steps[0], None)  # type: ignore[attr-defined]
    return serve(Settings(bundles=arguments.bundles, port=0))


if __name__ == "__main__":
    sys.exit(main())
