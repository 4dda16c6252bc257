"""The service in one process, as the tests of the promises need it: slower, and telling what it has accepted.

    python -m tests.promises.staged_app --bundles DIR [--words-ms 10] [--encoder-ms 10] [--accepted FILE]

`--words-ms`: every search's words take that much longer, on whatever tier, so that the capacity is known and the tiers
cannot dodge the load; `--encoder-ms`: every run of the encoder for a query, and it is counted
(aisle_test_encoder_runs_total). Both sleeps let go of the interpreter, as arithmetic does. `--accepted`: the id of
every request that reached the application, a line each, written before it is answered.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from app import metrics
from app.api.middleware import Edge
from app.main import serve
from app.search.embed import Encoder
from app.search.searcher import Searcher
from app.settings import Settings

RUNS = Counter("aisle_test_encoder_runs_total", "Texts of queries that were encoded.", registry=metrics.REGISTRY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--words-ms", type=float, default=0.0)
    parser.add_argument("--encoder-ms", type=float, default=0.0)
    parser.add_argument("--accepted", type=Path)
    arguments = parser.parse_args()
    Searcher._lexical = _slowed(Searcher._lexical, arguments.words_ms / 1e3)  # type: ignore[method-assign]
    Encoder.queries = _counted(_slowed(Encoder.queries, arguments.encoder_ms / 1e3))  # type: ignore[method-assign]
    if arguments.accepted is not None:
        Edge.__call__ = _telling(Edge.__call__, arguments.accepted)  # type: ignore[method-assign]
    settings = Settings.from_environment()
    return serve(settings.model_copy(update={"bundles": arguments.bundles, "port": 0, "provider": "cpu"}))


def _slowed(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any, **keywords: Any) -> Any:
        time.sleep(seconds)
        return call(*arguments, **keywords)

    return slow if seconds else call


def _counted(call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Encoder, texts: Sequence[str]) -> Any:
        RUNS.inc(len(texts))
        return call(self, texts)

    return counted


def _telling(call: Callable[..., Any], path: Path) -> Callable[..., Any]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def telling(self: Edge, scope: Any, receive: Any, send: Any) -> None:
        for name, value in scope.get("headers", ()):
            if name == b"x-request-id":
                os.write(descriptor, value + b"\n")
        await call(self, scope, receive, send)

    return telling


if __name__ == "__main__":
    sys.exit(main())
