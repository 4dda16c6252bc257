"""Any text there is: two spellings of one text are one query, and none of a thousand strange ones is a server error."""

from __future__ import annotations

import asyncio
import unicodedata
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import metrics
from app.search.searcher import Searcher
from app.types import SearchRequest
from tests.conftest import Client
from tests.ledger import Promise
from tests.promises.forms import forms

_SCRIPTS = {
    "Latin": "Étoile wireless",
    "Greek": "ακουστικά ασύρματα",
    "Cyrillic": "беспроводные наушники",
    "Arabic": "سماعات لاسلكية",
    "Hebrew": "אוזניות אלחוטיות",
    "Devanagari": "वायरलेस हेडफ़ोन",
    "Bengali": "ওয়্যারলেস হেডফোন",
    "Tamil": "கம்பியில்லா",
    "Thai": "หูฟังไร้สาย",
    "Georgian": "უსადენო",
    "Hangul": "무선 헤드폰",
    "Han": "无线耳机",
    "Kana": "ワイヤレス イヤホン",
    "Ethiopic": "ገመድ አልባ",
}
_STRANGE = {
    "family emoji": "👩‍👩‍👧‍👦 mug",
    "flags": "🇩🇪🇫🇷 lamp",
    "tag characters": "mug" + "".join(chr(0xE0000 + ord(letter)) for letter in "hidden"),
    "right to left override": "mug \u202elamp\u202c",
    "ten thousand combining marks": "e" + "\u0301" * 10_000,
    "zero width": "m\u200bu\u200dg\ufeff",
    "full width": "ｓｔｅｅｌ　ｍｕｇ",
    "homoglyphs": "stееl mug",
    "mathematical": "𝓼𝓽𝓮𝓮𝓵 𝓶𝓾𝓰",
    "unassigned": "mug \U000e0fff",
    "private use": "mug \ue000\U0010fffd",
    "noncharacters": "mug \ufffe\uffff",
    "control": "mug\x00\x01\x1b[31m\x7f",
    "line separators": "steel\u2028mug\u2029\x85",
    "ligatures": "ﬁne ﬂask ĳ",
    "sharp s": "STRASSE straße ẞ",
    "dotless i": "İstanbul ıIiI",
}


async def _search(http: httpx.AsyncClient, query: str, **more: Any) -> httpx.Response:
    return await http.post("/v1/search", json={"query": query, "timeout_ms": 20_000, **more})


@pytest.mark.promise(
    "S5",
    "composed ≡ decomposed: one ranking, one key of the cache",
    control="texts that only look alike have keys of their own",
    metric="the second is answered from the cache",
)
@pytest.mark.parametrize("text", [*_SCRIPTS.values(), "Étoile crème brûlée", "Å Ω ﬁ"], ids=str)
async def test_two_spellings_of_one_text_are_one_query(tiny_bundles: Path, client: Client, text: str) -> None:
    """Composed and decomposed: the same ranking, and the second comes from the cache."""
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    async with client(tiny_bundles) as http:
        first, second = (await _search(http, composed)).json(), (await _search(http, decomposed)).json()
    assert first["hits"] == second["hits"]
    assert (first["cached"], second["cached"]) == (False, True)


@pytest.mark.promise("S5", "homoglyphs are another query")
async def test_another_text_is_another_query(tiny_searcher: Searcher) -> None:
    """The control: the key tells texts apart that only look alike."""
    texts = ["steel mug", _STRANGE["homoglyphs"], "steel mugs"]
    assert len({tiny_searcher.query(SearchRequest(text)).parts for text in texts}) == len(texts)


@pytest.mark.promise(
    "S5", "0 5xx by body, filter, rescoring and address", control="full-width letters find what plain ones find"
)
@pytest.mark.parametrize("name", _STRANGE)
async def test_strange_text_is_answered_or_refused(tiny_bundles: Path, client: Client, name: str) -> None:
    """By address as by body, in a filter as in a query."""
    text = _STRANGE[name]
    async with client(tiny_bundles) as http:
        answers = [
            await _search(http, text),
            await _search(http, "mug", filter={"field": "brand", "in": [text]}),
            await http.post("/v1/rescore", json={"items": [{"query": text, "candidates": [{"text": text}]}]}),
            await http.get("/v1/search", params={"q": text[:2000]}),
        ]
    assert {answer.status_code for answer in answers} <= {200, 400, 413, 422}, name
    if name == "full width":
        async with client(tiny_bundles) as http:
            assert answers[0].json()["hits"] == (await _search(http, "steel mug")).json()["hits"]


@pytest.mark.promise("S5", "1,000,000 characters are 422 or 413")
async def test_a_million_characters_are_refused(tiny_bundles: Path, client: Client) -> None:
    """Of one byte or of four; nothing is encoded for them."""
    async with client(tiny_bundles) as http:
        assert (await _search(http, "a" * 1_000_000)).status_code == 422
        assert (await _search(http, "😀" * 1_000_000)).status_code == 413


def _ask_many(bundles: Path, client: Client, count: int) -> int:
    """Generated texts through the whole service; how many were answered."""
    answered = 0

    async def run() -> None:
        async with client(bundles, cache_mb=0) as http:
            loop = asyncio.get_running_loop()

            def ask() -> None:
                @settings(
                    max_examples=count, deadline=None, database=None, derandomize=True,
                    suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                @given(text=st.text(max_size=60) | st.text(st.characters(codec="utf-8"), max_size=300))
                def one(text: str) -> None:
                    nonlocal answered
                    try:
                        text.encode()
                    except UnicodeEncodeError:
                        return
                    response = asyncio.run_coroutine_threadsafe(_search(http, text, prefix=True), loop).result(60)
                    assert response.status_code in (200, 422), response.text
                    answered += response.status_code == 200

                one()

            await asyncio.to_thread(ask)

    asyncio.run(run())
    return answered


@pytest.mark.parametrize("count", forms(600, 5_000))
def test_no_text_is_a_server_error(tiny_bundles: Path, client: Client, promise: Promise, count: int) -> None:
    """Generated ones, each answered or refused."""
    with promise("S5", f"0 5xx of {count:,} generated texts") as found:
        before = _asked()
        answered = _ask_many(tiny_bundles, client, count)
        found.figure = f"{count:,} generated texts: {answered:,} answered, the others refused, 0 5xx"
        found.control = "more than half are answered: they reach the ranking"
        found.metric = f"aisle_http_requests_total +{_asked() - before:.0f}"
        assert answered > count / 2
        assert _asked() - before >= answered


def _asked() -> float:
    samples = (one for family in metrics.REGISTRY.collect() for one in family.samples)
    return sum(one.value for one in samples if one.name == "aisle_http_requests_total")
