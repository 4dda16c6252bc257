"""Probes and metrics at the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from app.api import scrape
from app.metrics import GOLDEN_CHECKS
from tests.api.conftest import client_of
from tests.api.stub_service import StubService


@pytest.mark.promise("C1", "/readyz 503 until ready and while draining")
@pytest.mark.parametrize(
    ("started", "ready", "draining", "statuses"),
    [
        (False, False, False, (200, 503, 503)),
        (True, True, False, (200, 200, 200)),
        (True, False, True, (200, 503, 200)),
    ],
)
async def test_probes_tell_starting_ready_and_draining_apart(
    client: httpx.AsyncClient,
    service: StubService,
    started: bool,
    ready: bool,
    draining: bool,
    statuses: tuple[int, ...],
) -> None:
    """Alive from the first moment, started once warm, ready until the drain."""
    service.started, service.ready, service.draining = started, ready, draining
    answers = [await client.get(path) for path in ("/livez", "/readyz", "/startupz")]
    assert tuple(answer.status_code for answer in answers) == statuses
    assert all(set(answer.json()) == {"status"} for answer in answers)


async def test_connections_are_let_go_while_draining(client: httpx.AsyncClient, service: StubService) -> None:
    """Searches are still answered, with word to come back elsewhere; positive control: not before."""
    assert "Connection" not in (await client.post("/v1/search", json={"query": "x"})).headers
    service.draining = True
    response = await client.post("/v1/search", json={"query": "x"})
    assert (response.status_code, response.headers["Connection"]) == (200, "close")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain; version=0.0.4"),
        ("", "text/plain; version=0.0.4"),
        ("text/plain;version=abc", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=x\t", "application/openmetrics-text; version=1.0.0"),
    ],
)
async def test_metrics_come_in_the_form_that_is_asked_for(client: httpx.AsyncClient, accept: str, kind: str) -> None:
    """Plain text unless OpenMetrics is named; a strange version is no failure."""
    response = await client.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(kind)
    assert "aisle_http_requests_in_flight" in response.text
    assert response.text.endswith("# EOF\n") == kind.startswith("application/openmetrics")


async def test_metrics_may_have_a_port_of_their_own(make_app: Callable[..., FastAPI]) -> None:
    """Then they are not on the main one, and that port has nothing else."""
    async with client_of(make_app(serve_metrics=False)) as client:
        assert (await client.get("/metrics")).status_code == 404
    transport = httpx.ASGITransport(app=scrape.Scrapes())
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        assert "aisle_http_requests_in_flight" in (await client.get("/metrics")).text
        assert (await client.get("/v1/search?q=x")).status_code == 404
        assert (await client.post("/metrics")).status_code == 404


async def test_scrapes_at_once_share_one_that_knows_all_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred at once: one is written for the first and one for all others, who came while it was, and who see what
    was counted before they asked."""
    written = 0
    real = scrape.exposed

    def counted() -> CollectorRegistry:
        nonlocal written
        written += 1
        return real()

    monkeypatch.setattr(scrape, "exposed", counted)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=scrape.Scrapes()), base_url="http://m") as client:
        first = asyncio.create_task(client.get("/metrics"))
        while not written:
            await asyncio.sleep(0)
        GOLDEN_CHECKS.labels("shared", "passed").inc()
        rest = await asyncio.gather(*(client.get("/metrics") for _ in range(99)))
        assert written == 2
        assert {one.text for one in rest} == {rest[0].text}
        assert 'collection="shared"' in rest[0].text and (await first).status_code == 200
        await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert written == 3
