"""Golden queries asked again while serving: wrong answers take a process out of readiness, failures do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from app import metrics
from app.runtime.onnx import OnnxEncoder
from app.search import golden
from app.search.service import SearchService
from app.types import Floats
from tests.conftest import Client


def _checks(outcome: str) -> float:
    labels = {"collection": "default", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("aisle_golden_checks_total", labels) or 0.0


def _service(http: httpx.AsyncClient) -> SearchService:
    service: SearchService = http.app.state.service  # type: ignore[attr-defined]
    return service


async def _ready(http: httpx.AsyncClient) -> tuple[int, str]:
    answer = await http.get("/readyz")
    return answer.status_code, answer.json()["status"]


class _Tampered:
    """An encoder whose vectors are shuffled within: finite, of unit length, and wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = False
        real = OnnxEncoder.encode

        def encode(encoder: OnnxEncoder, token_ids: Sequence[Sequence[int]]) -> Floats:
            vectors = real(encoder, token_ids)
            return np.roll(-vectors, 7, axis=1) if self.on else vectors

        monkeypatch.setattr(OnnxEncoder, "encode", encode)


async def test_a_process_that_answers_wrongly_is_not_ready_until_it_answers_rightly_again(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready after one failure, not after two in a row; searches go on; ready again with the first round that passes."""
    tampered = _Tampered(monkeypatch)
    monkeypatch.setattr(golden, "LEAST_OVERLAP", 0.95)  # a tiny catalogue has few others to find
    async with client(tiny_bundles) as http:
        service = _service(http)
        passed, failed = _checks("passed"), _checks("failed")
        await service._golden.check()
        assert (_checks("passed"), _checks("failed")) == (passed + 1, failed), "the control"
        tampered.on = True
        await service._golden.check()
        assert _checks("failed") == failed + 1, "the fault was not seen"
        assert await _ready(http) == (200, "ready")
        await service._golden.check()
        assert await _ready(http) == (503, "golden_failed")
        assert (await http.post("/v1/search", json={"query": "steel mug"})).status_code == 200
        tampered.on = False
        await service._golden.check()
        assert await _ready(http) == (200, "ready")
        assert _checks("failed") == failed + 2


async def test_rounds_come_by_themselves_and_the_gauge_follows(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without being asked; `aisle_ready` says what /readyz says."""
    import asyncio

    tampered = _Tampered(monkeypatch)
    monkeypatch.setattr(golden, "EVERY_S", 0.05)
    monkeypatch.setattr(golden, "LEAST_OVERLAP", 0.95)
    monkeypatch.setattr("app.search.service._SHOWN_EVERY_S", 0.02)

    async def until_ready_is(value: float) -> None:
        async with asyncio.timeout(10):
            while metrics.REGISTRY.get_sample_value("aisle_ready") != value:
                await asyncio.sleep(0.01)

    async with client(tiny_bundles) as http:
        await until_ready_is(1)
        tampered.on = True
        await until_ready_is(0)
        assert (await _ready(http))[0] == 503
        tampered.on = False
        await until_ready_is(1)
        assert (await _ready(http))[0] == 200


async def test_an_encoder_that_fails_outright_leaves_the_process_ready(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such searches are answered by the words and say so; a round that could not be asked is skipped and counted."""

    def fail(encoder: OnnxEncoder, token_ids: Sequence[Sequence[int]]) -> Floats:
        from app.errors import EncoderUnavailable

        raise EncoderUnavailable("gone")

    async with client(tiny_bundles) as http:
        monkeypatch.setattr(OnnxEncoder, "encode", fail)
        skipped = _checks("skipped")
        for _ in range(3):
            await _service(http)._golden.check()
        assert _checks("skipped") == skipped + 3
        assert await _ready(http) == (200, "ready")


async def test_golden_queries_wait_behind_searches(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are bulk work, one query a ticket."""
    from app.runtime.batcher import Batcher, Priority

    asked: list[Priority] = []
    real = Batcher.submit

    def submit(batcher: Batcher[object], job: object, priority: Priority = Priority.SEARCH) -> object:
        asked.append(priority)
        return real(batcher, job, priority)

    async with client(tiny_bundles) as http:
        monkeypatch.setattr(Batcher, "submit", submit)
        await _service(http)._golden.check()
        queries = len(_service(http)._collections.get("default").golden)
        assert queries > 0 and asked == [Priority.BULK] * queries
