"""In CI a skip without leave fails the run (tests/skips.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import unlisted

ROOT = Path(__file__).resolve().parents[2]
LISTING = """
# a comment
tests/runtime/test_onnx.py::test_cuda   # no GPU in CI
tests/gpu                               # a folder
"""


@pytest.mark.parametrize(
    ("node", "has_leave"),
    [
        ("tests/runtime/test_onnx.py::test_cuda", True),
        ("tests/runtime/test_onnx.py::test_cuda[16]", True),
        ("tests/runtime/test_onnx.py::test_cuda_graphs", False),
        ("tests/runtime/test_onnx.py", False),
        ("tests/gpu/test_index.py::test_search", True),
        ("tests/gpu_less/test_index.py::test_search", False),
    ],
)
def test_an_entry_covers_its_test_and_what_lies_in_it(node: str, has_leave: bool) -> None:
    """Parameters, files of a folder, but not names that merely begin alike."""
    assert (unlisted({node: "no GPU"}, LISTING, data_is_here=True) == {}) is has_leave


@pytest.mark.parametrize("data_is_here", [True, False])
def test_data_may_be_missed_only_where_it_is_missing(data_is_here: bool) -> None:
    """A test that skips for want of AISLE_TEST_DATA though the variable is set has a wrong condition."""
    skipped = {"tests/a.py::test_b": "needs AISLE_TEST_DATA"}
    assert unlisted(skipped, "", data_is_here) == (skipped if data_is_here else {})


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_run_with_a_skip_fails_in_ci_alone(tmp_path: Path, ci: str, code: int) -> None:
    """A real pytest run; the closing line of pytest stays the last one."""
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no reason')\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "-c", os.devnull]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    command.append(str(tmp_path))
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert ran.returncode == code, ran.stdout
    assert ("test_b: " in ran.stdout) is (code == 1)
    assert "1 passed, 1 skipped" in ran.stdout.splitlines()[-1]
