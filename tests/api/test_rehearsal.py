"""The searches before the doors open: they go all the way, and leave no trace."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from app import metrics
from app.api.keyfile import line_of, new_key
from app.api.protocol import TimedHttpProtocol
from app.api.rehearsal import rehearse
from app.main import create_app
from app.search.job import SearchJob
from app.search.searcher import Searcher
from app.settings import Settings


def _counted() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample that is not 0, but for the size of the cache, which keeps those answers as any other."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("aisle_") and not sample.name.endswith("_created") and sample.value
        if sample.name != "aisle_cache_local_bytes"
    }


@pytest.fixture
def application(tiny_bundles: Path, tmp_path: Path) -> FastAPI:
    """It has keys, and logs queries."""
    keys = tmp_path / "keys"
    keys.write_text(line_of("shop", frozenset({"search"}), new_key()) + "\n")
    settings = Settings(
        bundles=tiny_bundles, provider="cpu", changes=tmp_path / "changes", log_queries=True, api_keys_file=keys
    )
    return create_app(settings)


def _config(app: FastAPI) -> uvicorn.Config:
    config = uvicorn.Config(app, http=TimedHttpProtocol, lifespan="off", log_config=None, access_log=False)
    config.load()
    return config


async def test_it_searches_and_leaves_no_trace(
    application: FastAPI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys do not stop it, nothing counts it, no query is logged, and the keys are back after it."""
    searched: list[str] = []
    real = Searcher.search

    def seen(searcher: Searcher, jobs: Sequence[SearchJob], *more: Any) -> None:
        searched.extend(job.query.text or "" for job in jobs)
        real(searcher, jobs, *more)

    monkeypatch.setattr(Searcher, "search", seen)
    async with application.router.lifespan_context(application):
        keys, edge, before = application.state.keys, application.state.edge, _counted()
        searched.clear()
        with caplog.at_level(logging.INFO):
            await rehearse(application, _config(application), application.state.service.golden())
        assert len(searched) == len(set(searched)) > 16
        assert _counted() == before
        assert (application.state.keys, application.state.edge) == (keys, edge)
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("aisle", "app"))] == []


async def test_what_is_searched_for_otherwise_is_counted(application: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without `uncounted` the same rehearsal moves what searches move."""
    monkeypatch.setattr(metrics, "_ignore", metrics.values.ValueClass.inc)
    async with application.router.lifespan_context(application):
        before = _counted()
        await rehearse(application, _config(application), application.state.service.golden())
        moved = {name for (name, labels), value in _counted().items() if before.get((name, labels)) != value}
    assert {"aisle_http_requests_total", "aisle_searches_total", "aisle_cache_events_total"} <= moved


async def test_what_goes_wrong_is_a_warning(application: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    """A collection that is not there: the start goes on, and says that it was not warm."""
    async with application.router.lifespan_context(application):
        await rehearse(application, _config(application), {"nowhere": ["lamp"]})
        await rehearse(application, _config(application), {"default": []})
    assert [record.getMessage() for record in caplog.records if "rehearsal" in record.getMessage()] == [
        "the first searches may be slow: 24 of the rehearsal's failed with 404"
    ]
