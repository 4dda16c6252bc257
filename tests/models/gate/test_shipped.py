"""What ships passes its own gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.index.bundle import BundleStore
from models.gate import judge


@pytest.mark.parametrize(("collection", "outcome"), [("default", "passed"), ("retail", "ungated")])
def test_the_shipped_catalogues_pass(collection: str, outcome: str, shipped_bundles: Path) -> None:
    """The first with its judgements, the second, which has none, ungated; nothing else is left out."""
    store = BundleStore(shipped_bundles, collection)
    verdict = judge(store, store.current() or "")
    assert verdict.outcome == outcome, verdict.table().text()
    left_out = [check for check in verdict.checks if check.outcome == "not run"]
    assert [check.layer for check in left_out] == (["relevance"] if outcome == "ungated" else [])
