"""Versions for the tests of the promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.promises.versions import Pair, pair_of


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
