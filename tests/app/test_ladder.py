"""A search that has little time, or many behind it, is answered by the tier that fits, and says so."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import metrics
from app.search import searcher as searcher_module
from app.search.embed import Encoder
from app.search.plan import Costs
from app.search.service import SearchService
from app.types import Floats
from tests.conftest import Client

SLEEP_S = 0.03


@pytest.fixture
def sleeping(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An encoder of queries that takes 30 ms; the list counts its runs."""
    runs: list[int] = []
    real = Encoder.queries

    def slow(self: Encoder, texts: Sequence[str]) -> Floats:
        runs.append(len(texts))
        time.sleep(SLEEP_S)
        return real(self, texts)

    monkeypatch.setattr(Encoder, "queries", slow)
    return runs


async def _ask(http: httpx.AsyncClient, query: str, timeout_ms: float) -> tuple[int, dict[str, Any]]:
    response = await http.post("/v1/search", json={"query": query, "timeout_ms": timeout_ms})
    return response.status_code, response.json()


def _count(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_search_with_little_time_takes_the_tier_that_fits(
    tiny_bundles: Path, client: Client, sleeping: list[int]
) -> None:
    """The default with time enough; the static encoder where the network would come too late, which is not run."""
    async with client(tiny_bundles) as http:
        status, whole = await _ask(http, "steel mug", 2000)
        assert (status, whole["tier"], whole["degraded"]["reasons"]) == (200, "hybrid", [])
        before = len(sleeping)
        status, quick = await _ask(http, "steel lamp", SLEEP_S * 1e3 * 0.8)
        assert (status, quick["tier"], quick["degraded"]["reasons"]) == (200, "fast", ["deadline"])
        assert len(sleeping) == before
        status, again = await _ask(http, "steel lamp", 2000)
        assert again["tier"] == "hybrid" and not again["cached"], "a degraded answer is never cached"
        asked = await http.post("/v1/search", json={"query": "steel lamp", "profile": "fast"})
        assert [hit["id"] for hit in asked.json()["hits"]] == [hit["id"] for hit in quick["hits"]]


async def test_many_at_once_share_the_time_and_nothing_is_done_for_those_who_left(
    tiny_bundles: Path, client: Client, sleeping: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred searches that the default alone could not answer in their time: all are answered, the cheaper tiers
    carry most, each says why, and no encoder ran for an expired one."""
    # The door has a test of its own; here a busy machine's dear words must not close it.
    monkeypatch.setattr(Costs, "least_ms", lambda self, steps: 1.0)
    expired = _count("aisle_work_after_expiry_total")
    async with client(tiny_bundles, workers=2, max_waiting=1000) as http:
        answers = await asyncio.gather(*(_ask(http, f"steel mug {number}", 1000) for number in range(300)))
    tiers = Counter(answer["tier"] for status, answer in answers if status == 200)
    assert sum(tiers.values()) == 300 and tiers["fast"] + tiers["lexical"] > 150 and tiers["hybrid"] > 0
    reasons = {(answer["tier"], *answer["degraded"]["reasons"]) for _, answer in answers}
    assert all(len(one) == (1 if one[0] == "hybrid" else 2) and set(one[1:]) <= {"load", "deadline"} for one in reasons)
    assert _count("aisle_work_after_expiry_total") == expired
    assert SLEEP_S * len(sleeping) < 300 * SLEEP_S / 2


async def test_the_counter_of_work_after_expiry_moves_where_the_guard_is_off(
    tiny_bundles: Path, client: Client, sleeping: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: without the guard, what has expired behind its batch mates is embedded all the same."""
    monkeypatch.setattr("app.search.service.most_in_time", lambda searchers: 4)
    monkeypatch.setattr(searcher_module, "expired", lambda job, at: False)
    monkeypatch.setattr(searcher_module, "fitting", lambda steps, *_: (steps[0], None))
    before = _count("aisle_work_after_expiry_total")
    async with client(tiny_bundles, workers=1) as http:
        await asyncio.gather(*(_ask(http, f"steel mug {number}", 70) for number in range(4)))
        await asyncio.sleep(5 * SLEEP_S)
    assert _count("aisle_work_after_expiry_total") > before


async def test_what_cannot_be_answered_in_time_is_refused_at_the_door(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After where even the words of all that wait would take longer; with time enough nobody is."""
    async with client(tiny_bundles, workers=1, max_waiting=1000) as http:
        monkeypatch.setattr(Costs, "ms", lambda self, tier: 20.0)
        answers = await asyncio.gather(
            *(http.post("/v1/search", json={"query": f"mug {n}", "timeout_ms": 100}) for n in range(60))
        )
        refused = [one for one in answers if one.status_code == 429]
        assert refused and all("retry-after" in one.headers for one in refused)
        patient = await asyncio.gather(
            *(http.post("/v1/search", json={"query": f"lamp {n}", "timeout_ms": 5000}) for n in range(60))
        )
        assert {one.status_code for one in patient} == {200}


async def test_a_crowd_at_the_door_keeps_nobody_from_the_cache(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a new search would be refused, unread, what is cached is answered; a spelling is not mended for it."""
    async with client(tiny_bundles, workers=1) as http:
        known = await _ask(http, "steel mug", 5000)
        assert (await _ask(http, "steal mug", 5000))[1]["corrected"] == "steel mug"
        monkeypatch.setattr(SearchService, "_cannot_be_kept", lambda self, searcher, profile, deadline: True)
        read = _count("aisle_refused_total", reason="deadline")
        again = await _ask(http, "steel mug", 5000)
        assert again[1]["cached"] and again[1]["hits"] == known[1]["hits"]
        for query in ("steel mugs", "steal mug"):
            assert (await http.post("/v1/search", json={"query": query})).status_code == 429
        assert _count("aisle_refused_total", reason="deadline") == read + 2


async def test_each_search_is_learnt_once_whoever_waits_for_it(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is answered, one whose caller has left while the encoder was at it, and one that a shorter text helped:
    of that the first try is learnt."""
    seen: list[str] = []
    real, learnt = Encoder.queries, Costs.seen

    def slow(self: Encoder, texts: Sequence[str]) -> Floats:
        time.sleep(0.05)
        return real(self, texts)

    def noted(self: Costs, tier: str, ms: float) -> None:
        seen.append(tier)
        learnt(self, tier, ms)

    async def learns() -> list[str]:
        await asyncio.sleep(0.2)
        found = sorted(seen)
        seen.clear()
        return found

    async with client(tiny_bundles) as http:
        monkeypatch.setattr(Costs, "seen", noted)
        monkeypatch.setattr(Encoder, "queries", slow)
        assert (await _ask(http, "steel mug 1", 5000))[1]["tier"] == "hybrid"
        assert await learns() == ["default", "words"]
        left = asyncio.create_task(_ask(http, "steel mug 2", 5000))
        await asyncio.sleep(0.02)
        left.cancel()
        assert await learns() == ["default", "words"]
        body = {"query": "zebra mug", "relax": True, "filter": {"field": "price", "lte": -1}, "timeout_ms": 5000}
        assert (await http.post("/v1/search", json=body)).json()["relaxed"] is None
        assert (await learns()).count("words") == 1


async def test_an_encoder_that_becomes_slow_is_learnt(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From searches that came too late, too: after a few that the words answered at the deadline, the static encoder
    answers in time."""
    async with client(tiny_bundles) as http:
        real = Encoder.queries

        def stalled(self: Encoder, texts: Sequence[str]) -> Floats:
            time.sleep(0.12)
            return real(self, texts)

        monkeypatch.setattr(Encoder, "queries", stalled)
        answers = [await _ask(http, f"steel mug {number}", 100) for number in range(10)]
        told = [(answer["tier"], tuple(answer["degraded"]["reasons"])) for _, answer in answers]
        assert told[0] == ("lexical", ("deadline",)) and told[-1] == ("fast", ("deadline",))
        assert {reasons for _, reasons in told} == {("deadline",)}, "a reason is given once"
