"""What the metrics count, through the front door: the alerts and the dashboard are built on them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client import Histogram

from app import __version__, metrics
from app.search.service import SearchService
from tests.conftest import Client


def _value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def _ask(http: httpx.AsyncClient, **request: object) -> None:
    response = await http.post("/v1/search", json=request)
    assert response.status_code == 200, response.text
    await asyncio.sleep(0)  # a search is counted when its answer is on its way


@pytest.mark.parametrize("query", ["mug", None])
async def test_a_search_that_finds_nothing_is_counted(tiny_bundles: Path, client: Client, query: str | None) -> None:
    """A query under a filter that nothing passes; browsing there, or a query that finds something, is not counted."""
    nothing = {"field": "price", "lte": -1}
    async with client(tiny_bundles) as http:
        before = _value("aisle_searches_without_results_total", collection="default")
        await _ask(http, query="steel mug")
        assert _value("aisle_searches_without_results_total", collection="default") == before
        await _ask(http, query=query, filter=nothing)
        after = _value("aisle_searches_without_results_total", collection="default")
        assert after == before + (query is not None)


async def test_every_stage_is_timed(tiny_bundles: Path, client: Client) -> None:
    """Once a search that ran, and not the stages behind the cache for one that did not."""
    stages = ("queue", "lexical", "embed", "dense", "score", "respond")
    async with client(tiny_bundles) as http:
        before = {one: _value("aisle_stage_duration_seconds_count", stage=one) for one in (*stages, "total")}
        await _ask(http, query="folding lamp")
        await _ask(http, query="folding lamp")
        for stage, count in before.items():
            runs = 2 if stage == "total" else 1
            assert _value("aisle_stage_duration_seconds_count", stage=stage) == count + runs


async def test_rescored_pairs_are_counted_by_their_form(tiny_bundles: Path, client: Client) -> None:
    """Two ids and a text."""
    forms = ("id", "text")
    async with client(tiny_bundles) as http:
        before = [_value("aisle_rescored_pairs_total", form=form) for form in forms]
        candidates = [{"id": "p000"}, {"id": "p001"}, {"text": "a steel mug"}]
        item = {"query": "mug", "candidates": candidates}
        assert (await http.post("/v1/rescore", json={"items": [item]})).status_code == 200
        assert [_value("aisle_rescored_pairs_total", form=form) for form in forms] == [before[0] + 2, before[1] + 1]


async def test_what_is_served_is_shown(tiny_bundles: Path, client: Client) -> None:
    """Ready while it serves, with the products, the time of loading, the release and the provider."""
    async with client(tiny_bundles) as http:
        assert _value("aisle_ready") == 1
        assert _value("aisle_bundle_products", collection="default") == 60
        listed = (await http.get("/v1/versions")).json()["collections"][0]
        assert _value("aisle_bundle_loaded_timestamp_seconds", collection="default") == listed["loaded_at"]
        assert _value("aisle_build_info", version=__version__, provider="cpu") == 1
        service: SearchService = http.app.state.service  # type: ignore[attr-defined]
        service.drain()
        assert _value("aisle_ready") == 0


@pytest.mark.parametrize("value", [0.0, 0.00001, 0.0000101, 0.003, 1.0, 7.0, float("inf")])
def test_an_observation_is_that_of_the_library(value: float) -> None:
    """At a bound, between two, beyond the last."""
    quick, plain = (Histogram(name, name, buckets=metrics._STAGE_BUCKETS, registry=None) for name in "qp")
    metrics.observer(quick)(value)
    plain.observe(value)
    assert [one.value for one in quick._child_samples()][:-1] == [one.value for one in plain._child_samples()][:-1]
