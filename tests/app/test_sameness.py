"""Sameness: identical order and |Δscore| ≤ 1e-6, whichever way a pair is scored, over all dev queries."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.relevance import Queries
from tests.conftest import DATA, Client

Scores = dict[str, float]
TOLERANCE = 1e-6


async def _search(http: httpx.AsyncClient, text: str, profile: str = "default") -> tuple[Scores, dict[str, Any]]:
    asked = {"query": text, "k": 20, "profile": profile, "timeout_ms": 60_000, "fields": ["title"]}
    response = await http.post("/v1/search", json=asked)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["degraded"] == {"is": False, "reasons": []}
    return {hit["id"]: hit["score"] for hit in answer["hits"]}, answer


def _same(found: Scores, expected: Scores) -> None:
    assert list(found) == list(expected)
    assert all(abs(found[one] - expected[one]) <= TOLERANCE for one in expected)


@pytest.fixture(scope="module")
def dev() -> list[str]:
    """All dev queries, in an order of mixed lengths."""
    texts = list(Queries.load(DATA / "esci" / "dev.queries.tsv").values())
    random.Random(1).shuffle(texts)
    return texts


@pytest.mark.parametrize("profile", ["default", "fast", "lexical", "dense"])
async def test_alone_batched_rescored_streamed_and_cached_are_the_same(
    profile: str, shipped_bundles: Path, client: Client, dev: list[str]
) -> None:
    """Every dev query at every tier, five ways: by itself, among all the others, from the cache, rescored as JSON and
    as a stream."""
    async with client(shipped_bundles, workers=2, max_batch=8) as http:
        alone = {text: (await _search(http, text, profile))[0] for text in dev}
        cached = [await _search(http, text, profile) for text in dev]
        assert all(answer["cached"] for _, answer in cached)
        for text, (scores, _) in zip(dev, cached, strict=True):
            _same(scores, alone[text])
    async with client(shipped_bundles, workers=2, max_batch=8) as http:
        together = await asyncio.gather(*(_search(http, text, profile) for text in dev))
        assert not any(answer["cached"] for _, answer in together)
        for text, (scores, _) in zip(dev, together, strict=True):
            _same(scores, alone[text])
        items = [{"query": text, "candidates": [{"id": one} for one in alone[text]]} for text in dev]
        lines = await http.post(
            "/v1/rescore",
            params={"profile": profile},
            content="".join(json.dumps(item) + "\n" for item in items),
            headers={"content-type": "application/x-ndjson"},
        )
        streamed = [json.loads(line) for line in lines.text.splitlines()]
        assert len(streamed) == len(items)
        for text, item, line in zip(dev, items, streamed, strict=True):
            response = await http.post("/v1/rescore", json={"items": [item], "profile": profile})
            for results in (response.json()["items"][0]["results"], line["results"]):
                assert [result["index"] for result in results] == list(range(len(alone[text])))
                _same(dict(zip(alone[text], (r["score"] for r in results), strict=True)), alone[text])


async def test_the_comparison_notices_a_score_that_depends_on_its_company() -> None:
    """Positive control: a difference of 2e-6, or two hits exchanged, is not "same"."""
    with pytest.raises(AssertionError):
        _same({"a": 0.5, "b": 0.4}, {"a": 0.5, "b": 0.400002})
    with pytest.raises(AssertionError):
        _same({"a": 0.5, "b": 0.4}, {"b": 0.4, "a": 0.5})


async def test_a_restart_gives_the_same_answers(shipped_bundles: Path, client: Client, dev: list[str]) -> None:
    """Another process's worth of state, the same version."""
    answers = []
    for _ in range(2):
        async with client(shipped_bundles) as http:
            answers.append([(await _search(http, text))[0] for text in dev[:10]])
    for first, second in zip(*answers, strict=True):
        _same(second, first)
