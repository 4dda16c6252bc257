"""S13: parsers under a coverage-guided fuzzer let nothing out but what refuses an input."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.ledger import Promise

pytest.importorskip("atheris", reason="Atheris is built for Linux on x86-64 only")
_RUNS, _SECONDS = 1_000_000, 300
_FOUND = 77  # libFuzzer's exit status for an input that raised


def _fuzz(bundles: Path, parser: str, folder: Path, runs: int, seconds: int, seed: int) -> tuple[int, int, str]:
    """(exit status, inputs tried, what was printed)."""
    corpus = folder / parser
    corpus.mkdir()
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.promises.fuzzed", str(bundles), parser, str(corpus), f"-runs={runs}",
            f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={corpus}/", "-print_final_stats=1",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds + 120, check=False,
    )  # fmt: skip
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return done.returncode, int(tried[1]) if tried else 0, done.stdout + done.stderr


@pytest.mark.deep
@pytest.mark.parametrize("parser", ["manifest", "entry", "filter", "query"])
def test_parsers_let_out_nothing_but_refusals(
    tiny_bundles: Path, tmp_path: Path, promise: Promise, seed: int, parser: str
) -> None:
    """A million inputs each, or five minutes. The control: a parser with a fault, which the same fuzzer finds."""
    with promise(
        "S13", "the manifest, cache entries, filters and queries: 1 M inputs each or 5 minutes, 0 uncaught"
    ) as found:
        status, tried, told = _fuzz(tiny_bundles, parser, tmp_path, _RUNS, _SECONDS, seed)
        planted, until, _ = _fuzz(tiny_bundles, "planted", tmp_path, 1_000_000, 60, seed)
        found.figure = f"{parser}: {tried:,} inputs, {'0 uncaught' if status == 0 else 'one uncaught'}"
        found.control = f"a planted fault was found after {until:,}"
        assert status == 0, told[-4000:]
        assert tried >= 1_000
        assert planted == _FOUND and until > 1
