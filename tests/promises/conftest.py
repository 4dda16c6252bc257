"""Fixtures and the closing table of the promises' tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import ROOT
from tests.promises.ledger import Entry, Ledger, lines
from tests.promises.versions import Pair, pair_of

_LEDGER = Ledger()
Promise = Callable[[str, str], AbstractContextManager[Entry]]


@pytest.fixture
def seed() -> int:
    """What every draw of a test depends on; AISLE_TEST_SEED names another."""
    return int(os.environ.get("AISLE_TEST_SEED", "1"))


@pytest.fixture
def promise(request: pytest.FixtureRequest, seed: int) -> Promise:
    """`with promise("D4", "the bar") as found:` enters the test's finding in the table."""
    form = "deep" if request.node.get_closest_marker("deep") else "fast"
    print(f"seed {seed}")
    return lambda name, bar: _LEDGER.entry(name, bar, form=form, test=request.node.nodeid, seed=seed)


@pytest.fixture(scope="session")
def pair_template(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Pair:
    """Two versions with disjoint ids and one encoder. Do not write here: take `pair`."""
    return pair_of(tmp_path_factory.mktemp("pair"), tiny_encoder)


@pytest.fixture
def pair(pair_template: Pair, tmp_path: Path) -> Pair:
    """A private copy of both versions; the first is served."""
    return pair_template.copied_to(tmp_path / "bundles")


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of the same shape and other weights."""
    return tiny.write_encoder(tmp_path_factory.mktemp("other"), seed=5)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _LEDGER.entries:
        terminalreporter.section("promises")
        for line in lines(_LEDGER.entries):
            terminalreporter.line(line)


def pytest_sessionfinish() -> None:
    if _LEDGER.entries:
        _LEDGER.write(ROOT / "artifacts")
