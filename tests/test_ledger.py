"""The ledger itself: what fails is told as broken, what holds as kept, and each test in any folder gets its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.ledger import Ledger, lines, table

_TESTS = """
import pytest

def test_whole(promise):
    with promise("Z1", "holds") as found:
        found.figure = "3 of 3"

def test_torn(promise):
    with promise("Z2", "holds") as found:
        found.figure = "2 of 3"
        assert found.figure == "3 of 3"

@pytest.mark.parametrize("number", range(5))
@pytest.mark.promise("Z3", "none above 3", control="one of them is above")
def test_cases(number):
    assert number < 4

@pytest.mark.promise("Z4", "holds")
def test_marked():
    pass

@pytest.mark.promise("Z5", "holds")
def test_skipped():
    pytest.skip("not here")

@pytest.mark.promise("Z6", "holds")
def test_without_its_fixture(absent):
    pass

@pytest.mark.deep
def test_long(promise):
    with promise("Z1", "holds long") as found:
        found.figure = "300 of 300"

def test_plain():
    pass
"""
_OPTIONS = '[tool.pytest.ini_options]\nmarkers = ["deep: x", "promise: x"]\naddopts = ["--strict-markers"]\n'


def test_a_block_that_fails_is_broken_and_one_that_ends_is_kept() -> None:
    """One failing test breaks the line of its promise, whatever the others found."""
    ledger = Ledger()
    for test in ("one", "two"):
        with ledger.entry("D1", "bar", form="fast", test=test, seed=1) as found:
            found.figure = test
    assert lines(ledger.entries) == ["D1  fast kept   one; two"]
    with pytest.raises(AssertionError), ledger.entry("D1", "bar", form="fast", test="three", seed=1):
        raise AssertionError
    with ledger.entry("D1", "bar", form="deep", test="four", seed=1):
        pass
    assert lines(ledger.entries) == [
        "D1  fast BROKEN one; two; nothing was measured",
        "D1  deep kept   nothing was measured",
    ]
    assert table(ledger.entries).count("**no**") == 1


def test_cases_are_counted_and_one_that_fails_breaks_them() -> None:
    """As one entry of their test."""
    ledger = Ledger()
    for kept in (True, True, False, True):
        ledger.case("S3", "bar", form="fast", test="file::test_each_body", seed=1, kept=kept)
    ledger.case("S3", "bar", form="fast", test="file::test_other", seed=1, kept=True)
    assert lines(ledger.entries) == ["S3  fast BROKEN 3 of 4: each body; 1 of 1: other"]


def test_what_earlier_runs_left_stays_until_it_is_run_again(tmp_path: Path) -> None:
    """By test, promise and form; a file that does not read is begun anew."""
    (tmp_path / "promises.json").write_text("{")
    for figure, passed in (("first", False), ("second", True)):
        ledger = Ledger()
        ledger.case("D1", "bar", form="fast", test="a", seed=1, kept=passed)
        ledger.case("D1", "bar", form="deep", test=figure, seed=1, kept=True)
        ledger.write(tmp_path)
    kept = json.loads((tmp_path / "promises.json").read_text())
    assert [(one["form"], one["test"], one["passed"]) for one in kept] == [
        ("fast", "a", True),
        ("deep", "first", True),
        ("deep", "second", True),
    ]
    assert (tmp_path / "promises.md").read_text().count("\n| ") == 3


@pytest.mark.parametrize(
    ("selected", "told"),
    [
        (
            "promise and not deep",
            ["Z1  fast kept   3 of 3", "Z2  fast BROKEN 2 of 3", "Z3  fast BROKEN 4 of 5: cases",
             "Z4  fast kept   1 of 1: marked", "Z6  fast BROKEN 0 of 1: without its fixture"],
        ),
        ("deep and promise", ["Z1  deep kept   300 of 300"]),
    ],
)  # fmt: skip
def test_a_run_selects_by_the_marker_and_closes_with_the_table(tmp_path: Path, selected: str, told: list[str]) -> None:
    """Tests with the fixture have the marker without being told; what is skipped enters nothing."""
    (tmp_path / "test_it.py").write_text(_TESTS)
    (tmp_path / "pyproject.toml").write_text(_OPTIONS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.ledger", "-m", selected, "--rootdir", str(tmp_path), "-q"]
    done = subprocess.run(
        [*command, "-c", str(tmp_path / "pyproject.toml"), str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("Z")] == told, done.stdout
    kept = json.loads((tmp_path / "artifacts" / "promises.json").read_text())
    assert len(kept) == len(told)
    assert ("test_plain" in done.stdout, done.returncode) == (False, int(len(told) > 1))
