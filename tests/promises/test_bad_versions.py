"""D8: whatever is published, searches go on with what is whole."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from tests.app.server import served
from tests.ledger import Promise
from tests.promises.faults import offered_version, single_faults
from tests.promises.forms import forms
from tests.promises.load import Load, failed
from tests.promises.running import metric
from tests.promises.versions import Pair, signed_anew


@pytest.mark.parametrize("count", forms(10, 50))
def test_bad_versions_cost_a_running_service_nothing(
    pair: Pair, promise: Promise, seed: int, count: int, other_encoder: Path
) -> None:
    """CURRENT names one after another, each a version of its own: refused once, counted, and the old one goes on."""
    draw = random.Random(seed)
    told_by_all = [
        fault for fault in single_faults(pair, other_encoder, draw, 44, 20) if not fault.signed or fault.named
    ]
    faults = draw.sample(told_by_all, count)
    with (
        promise("D8", f"{count} bad versions: 0 failed, each counted, /readyz 200") as found,
        served(pair.root, AISLE_PROCESSES="1", AISLE_PROVIDER="cpu") as service,
    ):
        ready = set()

        def refused() -> float:
            return metric(service.address, "aisle_bundle_reloads_total", outcome="refused")

        with Load(service.address, 100) as load:
            for number, fault in enumerate(faults):
                fresh = signed_anew(pair.store, pair.second, lambda _: None, {"number": number})
                version = offered_version(replace(pair, second=fresh), fault)
                (pair.root / "CURRENT").write_text(version)
                load.until(lambda number=number: refused() == number + 1)
                ready.add(httpx.get(f"{service.address}/readyz").status_code)
            (pair.root / "CURRENT").write_text(pair.second)
            before = metric(service.address, "aisle_bundle_reloads_total", outcome="served")
            load.until(lambda: metric(service.address, "aisle_bundle_reloads_total", outcome="served") > before)
        wrong = failed(load.answers)
        found.figure = (
            f"{len(faults)} bad versions, {len(load.answers):,} searches: {wrong or '0 failed'}, /readyz {ready}"
        )
        found.metric = f"aisle_bundle_reloads_total{{outcome=refused}} +{refused():.0f}"
        found.control = "the whole version that comes last is served"
        assert not wrong and ready == {200}
        assert refused() == len(faults)
        assert metric(service.address, "aisle_ready") == 1
        assert {orjson.loads(answer.body)["version"] for answer in load.answers} <= {pair.first, pair.second}
