"""The real application through its front door: caches, deadlines, failures, versions followed while serving."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import httpx
import pytest

from app import metrics
from app.errors import DeadlineExceeded, EncoderUnavailable, StoodStill
from app.index.bundle import BundleStore, read_manifest
from app.runtime.batcher import Batcher
from app.runtime.helper import Helper
from app.search.embed import Encoder
from app.search.job import SearchJob
from app.search.plan import WORDS_ERROR, Costs
from app.search.rerank import Profile
from app.search.searcher import Searcher
from app.search.service import _is_quick
from app.types import Floats, SearchAnswer, SearchRequest
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import Client
from tests.redis_server import RedisServer


def _count(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def _search(http: httpx.AsyncClient, query: str, **more: Any) -> dict[str, Any]:
    response = await http.post("/v1/search", json={"query": query, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_repeated_search_is_served_from_the_first_level(tiny_bundles: Path, client: Client) -> None:
    """The same answer but for request id, time and the word `cached`; another k is another answer."""
    async with client(tiny_bundles) as http:
        first, second = await _search(http, "steel mug"), await _search(http, "  STEEL   mug ")
        assert (first["cached"], second["cached"]) == (False, True)
        for answer in (first, second):
            for name in ("request_id", "took_ms", "cached"):
                answer.pop(name)
        assert first == second
        assert not (await _search(http, "steel mug", k=3))["cached"]


@pytest.mark.promise("A1", "in health, Redis serves what another process computed")
async def test_the_second_level_serves_what_another_process_computed(
    tiny_bundles: Path, client: Client, redis_server: RedisServer
) -> None:
    """Two applications, one Redis."""
    async with client(tiny_bundles, redis_url=redis_server.url, redis_timeout_ms=1000) as one:
        expected = await _search(one, "folding lamp")
        for _ in range(100):
            if redis_server.control.dbsize() >= 2:
                break
            await asyncio.sleep(0.02)
    async with client(tiny_bundles, redis_url=redis_server.url, redis_timeout_ms=1000) as other:
        answer = await _search(other, "folding lamp")
    assert answer["cached"] and answer["hits"] == expected["hits"]


async def test_redis_killed_in_mid_load_costs_no_failed_search(
    tiny_bundles: Path, client: Client, redis_server: RedisServer
) -> None:
    """1,500 searches from four clients; Redis is killed after a third and comes back after two thirds."""
    errors_before = sum(
        _count("aisle_redis_errors_total", cause=c) for c in ("timeout", "connection", "reply", "breaker_open")
    )
    async with client(tiny_bundles, redis_url=redis_server.url) as http:
        done = 0

        async def ask(number: int) -> None:
            nonlocal done
            for turn in range(375):
                # Counted, not timed: starting a process holds this one's loop for as long as the machine is busy.
                answer = await _search(http, f"steel mug {number} {turn}", k=3, timeout_ms=5000)
                assert not answer["degraded"]["is"], answer["degraded"]
                done += 1

        async def disturb() -> None:
            while done < 500:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(redis_server.kill)
            while done < 1000:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(redis_server.start)

        await asyncio.gather(disturb(), *(ask(number) for number in range(4)))
        assert done == 1500
        assert (await http.get("/readyz")).status_code == 200
    errors = sum(
        _count("aisle_redis_errors_total", cause=c) for c in ("timeout", "connection", "reply", "breaker_open")
    )
    assert errors > errors_before, "the fault did not happen"


class _SlowEncoder:
    """Lets an encoder stand still until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.released = threading.Event()
        self.calls = 0
        whole = Encoder.queries

        def queries(encoder: Encoder, texts: Sequence[str]) -> Floats:
            self.calls += 1
            self.released.wait(10)
            return whole(encoder, texts)

        self._patch = lambda: monkeypatch.setattr(Encoder, "queries", queries)

    def begin(self) -> None:
        self._patch()

    async def reached(self) -> None:
        while self.calls == 0:
            await asyncio.sleep(0.01)


async def _waiting(http: httpx.AsyncClient, callers: int) -> None:
    """Until so many callers wait for a search under way."""
    flights = http.app.state.service._flights  # type: ignore[attr-defined]  # set by the fixture
    while sum(len(flight.ticket.waiters) for flight in flights.values()) < callers:
        await asyncio.sleep(0.01)


async def test_at_the_deadline_the_words_answer_and_say_so(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder stands still: the lexical tier's answer comes at the deadline, is not cached, and is counted."""
    slow = _SlowEncoder(monkeypatch)
    async with client(tiny_bundles) as http:
        slow.begin()
        before = _count("aisle_degraded_total", reason="deadline")
        answer = await _search(http, "steel mug", timeout_ms=40)
        assert answer["tier"] == "lexical" and answer["degraded"] == {"is": True, "reasons": ["deadline"]}
        assert answer["hits"]
        await asyncio.sleep(0)  # an answer is counted once it is on its way
        assert _count("aisle_degraded_total", reason="deadline") == before + 1
        slow.released.set()
        again = await _search(http, "steel mug", timeout_ms=5000)
        assert not again["cached"] and not again["degraded"]["is"] and again["tier"] == "hybrid"


async def test_a_degraded_answer_is_never_cached(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder fails once; the next search is whole."""
    async with client(tiny_bundles) as http:
        with monkeypatch.context() as broken:

            def fail(encoder: Encoder, texts: Sequence[str]) -> Floats:
                raise EncoderUnavailable("gone")

            broken.setattr(Encoder, "queries", fail)
            degraded = await _search(http, "wooden lamp")
        whole = await _search(http, "wooden lamp")
        assert degraded["degraded"]["reasons"] == ["encoder_error"]
        assert not whole["cached"] and not whole["degraded"]["is"]


async def test_an_item_is_rescored_at_one_tier(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder fails once, at the first of several slices: all candidates get the lexical score that is named."""
    texts = [{"text": f"steel mug {number}"} for number in range(6)]
    async with client(tiny_bundles) as http:

        async def rescored(profile: str) -> dict[str, Any]:
            body = {"items": [{"query": "steel mug", "candidates": texts}], "profile": profile}
            item: dict[str, Any] = (await http.post("/v1/rescore", json=body)).json()["items"][0]
            return item

        lexical = await rescored("lexical")
        whole, calls = Encoder.queries, 0

        def fail_once(encoder: Encoder, given: Sequence[str]) -> Floats:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise EncoderUnavailable("gone")
            return whole(encoder, given)

        monkeypatch.setattr(Encoder, "queries", fail_once)
        item = await rescored("default")
        assert calls == 1 and item["tier"] == "lexical" and item["degraded"]["reasons"] == ["encoder_error"]
        assert item["results"] == lexical["results"]


@pytest.mark.promise(
    "A5", "500 concurrent identical misses: 1 run of the encoder, one answer", control="all wait for the same run"
)
async def test_five_hundred_identical_misses_encode_once(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single flight: everybody shares the first one's work, and all get the same answer."""
    slow = _SlowEncoder(monkeypatch)
    async with client(tiny_bundles) as http:
        slow.begin()
        tasks = [asyncio.create_task(_search(http, "quiet kettle", timeout_ms=20_000)) for _ in range(500)]
        await slow.reached()
        slow.released.set()
        answers = await asyncio.gather(*tasks)
        assert slow.calls == 1
        assert len({str(answer["hits"]) for answer in answers}) == 1


async def test_a_client_that_leaves_does_not_end_the_search_for_the_others(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who began goes; the one who joined is answered."""
    slow = _SlowEncoder(monkeypatch)
    async with client(tiny_bundles) as http:
        slow.begin()
        leaver = asyncio.create_task(_search(http, "bright mug", timeout_ms=20_000))
        await slow.reached()
        stayer = asyncio.create_task(_search(http, "bright mug", timeout_ms=20_000))
        await _waiting(http, 2)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        slow.released.set()
        assert (await stayer)["hits"]
        assert slow.calls == 1


async def test_what_the_others_waited_for_is_cached_though_the_first_gave_up(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who began has a short deadline; the one who joined gets the whole answer, and it is kept."""
    slow = _SlowEncoder(monkeypatch)
    async with client(tiny_bundles) as http:
        slow.begin()
        first = asyncio.create_task(_search(http, "soft lamp", timeout_ms=100))
        await slow.reached()
        second = asyncio.create_task(_search(http, "soft lamp", timeout_ms=20_000))
        assert (await first)["degraded"]["is"]
        slow.released.set()
        assert not (await second)["degraded"]["is"]
        assert (await _search(http, "soft lamp"))["cached"]
        assert slow.calls == 1


async def test_an_answer_that_waits_for_its_batch_is_given_at_the_deadline(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two searches are taken together and the second stands still: the first one's whole answer is there in time."""
    slow, released = _SlowEncoder(monkeypatch), threading.Event()
    whole = Searcher._answer

    def stall(searcher: Searcher, job: SearchJob) -> SearchAnswer:
        if job.query.text == "second":
            released.wait(10)
        return whole(searcher, job)

    monkeypatch.setattr(Searcher, "_answer", stall)
    async with client(tiny_bundles, workers=1, max_batch=2) as http:
        slow.begin()
        before = asyncio.create_task(_search(http, "mug", timeout_ms=20_000))
        await slow.reached()
        first = asyncio.create_task(_search(http, "first", timeout_ms=1000))
        second = asyncio.create_task(_search(http, "second", timeout_ms=20_000))
        await _waiting(http, 3)
        slow.released.set()
        answer = await first
        assert not answer["degraded"]["is"] and answer["tier"] == "hybrid" and not second.done()
        released.set()
        await asyncio.gather(before, second)


async def test_a_published_version_is_followed_and_a_corrupt_one_is_not(
    tiny_bundles: Path, tiny_encoder: Path, client: Client, tmp_path: Path
) -> None:
    """A new version is served within a second of its publish, cached answers of the old one with it gone; a version
    that was tampered with is refused, counted, and the old one goes on."""
    bundles = tmp_path / "bundles"
    shutil.copytree(tiny_bundles, bundles)
    store = BundleStore(bundles)
    first = store.current()
    async with client(bundles) as http:
        assert (await _search(http, "mug"))["version"] == first
        fewer = tiny.write_catalogue(tmp_path / "fewer.jsonl", tiny.products(30))
        built = await asyncio.to_thread(
            aisle, ["build", str(fewer), "--encoder", str(tiny_encoder), "--bundles", str(bundles)]
        )
        assert built == 0
        second = store.current()
        assert second != first
        await _until_served(http, str(second))
        answer = await _search(http, "mug")
        assert answer["version"] == second and not answer["cached"]

        third = await asyncio.to_thread(_tampered_version, store)
        refused = _count("aisle_bundle_reloads_total", collection="default", outcome="refused")
        (store.folder / "CURRENT").write_text(third)
        for _ in range(200):
            if _count("aisle_bundle_reloads_total", collection="default", outcome="refused") > refused:
                break
            await asyncio.sleep(0.02)
        assert _count("aisle_bundle_reloads_total", collection="default", outcome="refused") == refused + 1
        assert (await _search(http, "kettle"))["version"] == second
        (store.folder / "CURRENT").write_text(str(first))
        await _until_served(http, str(first))


async def test_a_version_that_is_whole_and_nonsense_does_not_end_the_following(
    tiny_bundles: Path, client: Client, tmp_path: Path
) -> None:
    """Every digest is right, the encoder's description is not: refused like any other, and the next one is served."""
    bundles = tmp_path / "bundles"
    shutil.copytree(tiny_bundles, bundles)
    store = BundleStore(bundles)
    first = str(store.current())

    def nonsense(folder: Path) -> None:
        described = json.loads((folder / "encoder.json").read_text())
        (folder / "encoder.json").write_text(json.dumps(described | {"dimension": "many"}))

    async with client(bundles) as http:
        refused = _count("aisle_bundle_reloads_total", collection="default", outcome="refused")
        (store.folder / "CURRENT").write_text(_sealed_again(store, first, nonsense))
        for _ in range(200):
            if _count("aisle_bundle_reloads_total", collection="default", outcome="refused") > refused:
                break
            await asyncio.sleep(0.02)
        assert _count("aisle_bundle_reloads_total", collection="default", outcome="refused") == refused + 1
        assert (await _search(http, "kettle"))["version"] == first
        good = _sealed_again(store, first, lambda _: None)
        (store.folder / "CURRENT").write_text(good)
        await _until_served(http, good)


def _sealed_again(store: BundleStore, version: str, change: Callable[[Path], None]) -> str:
    """A version's parts after a change, under a manifest that fits them."""
    old = store.path(version)
    with store.building() as folder:
        for path in old.iterdir():
            shutil.copyfile(path, folder / path.name)
        change(folder)
        return store.seal(folder, read_manifest(old).content, datetime(2030, 1, 1, tzinfo=UTC))


async def test_a_version_that_was_replaced_is_let_go(
    tiny_bundles: Path, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a swap to a version with another encoder nothing holds the old one: index, catalogue, encoder session."""
    bundles = tmp_path / "bundles"
    shutil.copytree(tiny_bundles, bundles)
    opened: list[weakref.ref[Any]] = []
    build = Encoder.__init__

    def remember(encoder: Encoder, *arguments: Any) -> None:
        build(encoder, *arguments)
        opened.append(weakref.ref(encoder))

    monkeypatch.setattr(Encoder, "__init__", remember)
    async with client(bundles, workers=2) as http:
        await _search(http, "mug")
        service = http.app.state.service  # type: ignore[attr-defined]  # set by the fixture
        left = [weakref.ref(service._collections.get("default").searcher), opened[0]]
        other = tiny.write_encoder(tmp_path / "other", seed=4)
        catalogue = tiny.write_catalogue(tmp_path / "products.jsonl", tiny.products())
        command = ["build", str(catalogue), "--encoder", str(other), "--bundles", str(bundles)]
        assert await asyncio.to_thread(aisle, command) == 0
        await _until_served(http, str(BundleStore(bundles).current()))
        for _ in range(100):
            gc.collect()
            if all(one() is None for one in left):
                break
            await asyncio.sleep(0.02)
        assert [one() for one in left] == [None, None]


def _tampered_version(store: BundleStore) -> str:
    old = store.path(store.current() or "")
    with store.building() as folder:
        for path in old.iterdir():
            shutil.copyfile(path, folder / path.name)
        (folder / "manifest.json").unlink()
        version = store.seal(folder, {"note": "no ranking in here"})
    return version


async def _until_served(http: httpx.AsyncClient, version: str) -> None:
    for _ in range(200):
        listed = (await http.get("/v1/versions")).json()["collections"]
        if listed[0]["version"] == version:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{version} is not served")


async def test_collections_are_kept_apart(tiny_encoder: Path, client: Client, tmp_path: Path) -> None:
    """The same words in two collections, cache on: each answers with its own products; an unknown one is 404."""
    for name, seed in (("default", 7), ("other", 8)):
        rows = [{**row, "id": f"{name}-{row['id']}"} for row in tiny.products(seed=seed)]
        catalogue = tiny.write_catalogue(tmp_path / f"{name}.jsonl", rows)
        command = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(tmp_path / "b")]
        assert await asyncio.to_thread(aisle, [*command, "--collection", name]) == 0
    async with client(tmp_path / "b") as http:
        for _ in range(2):
            for name in ("default", "other"):
                answer = await _search(http, "steel mug", collection=name)
                assert answer["hits"] and all(hit["id"].startswith(name) for hit in answer["hits"])
        assert (await http.post("/v1/search", json={"query": "mug", "collection": "third"})).status_code == 404
        assert [one["name"] for one in (await http.get("/v1/collections")).json()["collections"]] == [
            "default",
            "other",
        ]


async def test_nothing_published_is_said_in_one_line(tmp_path: Path, client: Client) -> None:
    """Start-up refuses, and says what to do."""
    from app.errors import BundleError

    with pytest.raises(BundleError, match="aisle build"):
        async with client(tmp_path):
            pass


async def test_many_streams_of_rescoring_wait_their_turn(tiny_bundles: Path, client: Client) -> None:
    """Twelve streams of twenty lines with sixteen texts each, over a queue of 80: no line is refused."""
    line = json.dumps({"query": "steel mug", "candidates": [{"text": f"mug {n}"} for n in range(16)]}) + "\n"
    async with client(tiny_bundles, max_waiting=80) as http:

        async def stream() -> list[dict[str, Any]]:
            headers = {"content-type": "application/x-ndjson"}
            response = await http.post("/v1/rescore", content=line * 20, headers=headers)
            return [json.loads(answer) for answer in response.text.splitlines()]

        for answers in await asyncio.gather(*(stream() for _ in range(12))):
            assert [len(answer["results"]) for answer in answers] == [16] * 20


async def test_a_profile_of_meaning_alone_has_no_words_to_rescore_by(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder fails: 503 from a rescoring as from a search."""

    def fail(encoder: Encoder, texts: Sequence[str]) -> Floats:
        raise EncoderUnavailable("gone")

    async with client(tiny_bundles) as http:
        monkeypatch.setattr(Encoder, "queries", fail)
        item = {"query": "steel mug", "candidates": [{"id": "p001"}]}
        rescored = await http.post("/v1/rescore", json={"items": [item], "profile": "dense"})
        searched = await http.post("/v1/search", json={"query": "steel mug", "profile": "dense"})
        assert (rescored.status_code, searched.status_code) == (503, 503)


async def test_a_short_search_of_somebody_alone_makes_no_hop(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The static encoder and the words run where the request is; what needs the network never does, and the answer is
    the same either way."""
    threads: dict[str, set[str]] = {}
    real = Searcher.search

    def noted(self: Searcher, jobs: Sequence[SearchJob], *more: Any) -> None:
        for job in jobs:
            threads.setdefault(job.query.profile.name, set()).add(threading.current_thread().name)
        real(self, jobs, *more)

    async with client(tiny_bundles) as http:
        monkeypatch.setattr(Searcher, "search", noted)
        batcher = http._transport.app.state.service._batcher  # type: ignore[attr-defined]  # httpx shows no transport

        async def resting() -> None:
            while not batcher.resting:
                await asyncio.sleep(0.001)

        for profile in ("fast", "lexical", "default"):
            await resting()
            await _search(http, f"steel mug {profile}", profile=profile)
        await resting()
        quick = await _search(http, "folding lamp", profile="fast")
        again = await _search(http, "folding lamp", profile="fast")
        assert again["cached"] and again["hits"] == quick["hits"]
        here = threading.current_thread().name
        assert threads["fast"] == threads["lexical"] == {here} and here not in threads["default"]
        monkeypatch.setattr("app.search.service._is_short", lambda job: False)
        hopped = await _search(http, "folding  lamp", profile="fast", k=9)
        assert hopped["hits"] == quick["hits"][:9] and here not in threads["fast"] - {here}
        assert len(threads["fast"]) == 2, "the control: otherwise a worker does it"


@pytest.mark.parametrize(
    ("clients", "gaps", "alone"),
    [
        ("aaaa", (1.0, 0.001, 0.001), [True, True, True, True]),  # one connection, however fast it asks
        ("abab", (0.001, 0.001, 0.001), [True, False, False, False]),
        ("abbb", (0.001, 0.001, 0.01), [True, False, False, True]),
        ("ab", (1.0,), [True, True]),
    ],
)
def test_who_asks_while_no_other_connection_does_is_alone(
    clients: str, gaps: Sequence[float], alone: list[bool]
) -> None:
    """Within five milliseconds; callers without an address cannot be told apart, and are never alone."""
    from app.api.middleware import Edge

    edge = Edge(None, service=None, max_body_bytes=1, direct={})  # type: ignore[arg-type]  # only asked who is alone
    at, found = 100.0, []
    for name, gap in zip(clients, (0.0, *gaps), strict=True):
        at += gap
        found.append(edge._alone({"client": (name, 1)}, at))
    assert found == alone
    assert not edge._alone({"client": None}, at + 10)


async def test_who_is_alone_has_the_words_looked_up_while_the_network_runs(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the helper, on a machine with cores for both. The answer is the same, also where the words fail there, or the
    helper is busy, or comes too late."""
    threads: list[str] = []
    real, ask = Searcher._find_words, Helper.ask

    def noted(self: Searcher, job: SearchJob) -> None:
        threads.append(threading.current_thread().name)
        real(self, job)

    def fails_there(self: Searcher, job: SearchJob) -> None:
        noted(self, job)
        if threads[-1] == "aisle-helper":
            raise ValueError("no")

    def busy(self: Helper, work: Callable[[], None]) -> bool:
        return False

    def late(self: Helper, work: Callable[[], None]) -> bool:
        return True

    def slow(self: Searcher, texts: Sequence[str], profile: Profile) -> Floats:
        sleep(0.02)  # so that it is the helper that comes first
        return vectors(self, texts, profile)

    found, vectors = list[bytes](), Searcher.query_vectors
    async with client(tiny_bundles, workers=1, cache_mb=0) as http:
        monkeypatch.setattr(Searcher, "query_vectors", slow)
        service = http.app.state.service  # type: ignore[attr-defined]  # set by the fixture
        for cores, words, asked in (
            (2, noted, ask),
            (2, fails_there, ask),
            (2, noted, busy),
            (2, noted, late),
            (1, noted, ask),
        ):
            while not service._batcher.resting:
                await asyncio.sleep(0.001)
            monkeypatch.setattr("app.search.service._CORES", cores)
            monkeypatch.setattr(Searcher, "_find_words", words)
            monkeypatch.setattr(Helper, "ask", asked)
            found.append((await service.search(SearchRequest("steel mug"), alone=True)).tail)
    assert [name == "aisle-helper" for name in threads] == [True, True, False, False, False, False]
    assert len(set(found)) == 1


async def test_a_stalled_look_up_of_words_does_not_hold_the_loop(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor, while the helper stands there, the searches that come after it."""
    real, begun, opened = Searcher._find_words, threading.Event(), threading.Event()

    def stalls_once(self: Searcher, job: SearchJob) -> None:
        if not begun.is_set():
            begun.set()
            opened.wait(10)
        real(self, job)

    monkeypatch.setattr("app.search.service._CORES", 2)
    async with client(tiny_bundles, workers=2, cache_mb=0) as http:
        service = http.app.state.service  # type: ignore[attr-defined]  # set by the fixture
        monkeypatch.setattr(Searcher, "_find_words", stalls_once)
        try:
            first = asyncio.create_task(service.search(SearchRequest("steel mug"), alone=True))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            second = await service.search(SearchRequest("cotton towel"), alone=True)
            stalled = not first.done()
        finally:
            opened.set()
        assert stalled and second.tail
        assert (await first).tail


async def test_words_that_fail_after_the_vector_was_made_are_done_without(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the profile fitted to that, whose vector may be another one: as if they had failed before."""

    def fails(self: Searcher, job: SearchJob) -> None:
        raise ValueError("no")

    monkeypatch.setattr(Searcher, "_find_words", fails)
    async with client(tiny_bundles, workers=1, cache_mb=0) as http:
        service = http.app.state.service  # type: ignore[attr-defined]  # set by the fixture
        answers = []
        for cores in (1, 2):
            monkeypatch.setattr("app.search.service._CORES", cores)
            answers.append(await service.search(SearchRequest("steel mug"), alone=True))
    assert answers[0].tier == answers[1].tier == "dense" and answers[0].degraded == answers[1].degraded
    assert answers[0].tail == answers[1].tail and WORDS_ERROR in answers[0].degraded


@pytest.mark.parametrize(("times", "in_step"), [(1, True), (20, False)])
async def test_the_loop_stands_still_for_a_search_that_is_short(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch, times: int, in_step: bool
) -> None:
    """A long one goes through the queue. It gives the same."""
    seen: list[str] = []
    for name in ("run_in_step", "submit"):
        real = getattr(Batcher, name)
        monkeypatch.setattr(
            Batcher, name, lambda *given, real=real, name=name, **named: (seen.append(name), real(*given, **named))[1]
        )
    async with client(tiny_bundles, workers=1) as http:
        service = http.app.state.service  # type: ignore[attr-defined]  # set by the fixture
        text = " ".join(["steel mug"] * times)
        answer = await service.search(SearchRequest(text))
        assert seen == ["run_in_step" if in_step else "submit"]
        again = await _search(http, text, k=3)
    assert json.loads(b"{" + answer.tail)["hits"][:3] == again["hits"]


@pytest.mark.parametrize(
    ("at_start_ms", "now_ms", "quick"),
    [(2.0, 2.0, True), (2.0, 7.0, True), (2.0, 15.0, False), (7.0, 7.0, False), (7.0, 2.0, True)],
)
def test_a_busy_machine_puts_no_search_out_of_step(
    tiny_searcher: Searcher, at_start_ms: float, now_ms: float, quick: bool
) -> None:
    """Else a load would keep it there: beside a loop that goes on, a search takes twice as long."""
    searcher = copy(tiny_searcher)
    searcher.costs = Costs()
    searcher.costs.begin("default", [at_start_ms] * 8)
    for _ in range(100):
        searcher.costs.seen("default", now_ms)
    assert _is_quick(SearchJob(searcher, searcher.query(SearchRequest("steel mug")), 0.0)) == quick


async def test_a_stage_that_stands_still_holds_the_loop_for_a_moment_only(
    tiny_bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop loses patience, and the search is told at its deadline, as if it had waited in the queue."""
    released = threading.Event()
    async with client(tiny_bundles, workers=1) as http:
        service = http.app.state.service  # type: ignore[attr-defined]  # set by the fixture
        monkeypatch.setattr(Searcher, "search", lambda *_: released.wait(5))
        began = perf_counter()
        asked = asyncio.create_task(service.search(SearchRequest("steel mug", timeout_ms=400), late_ms=0.0))
        await asyncio.sleep(0)
        assert perf_counter() - began < 0.3, "the loop is free long before the deadline"
        with suppress(DeadlineExceeded, StoodStill):
            assert (await asked).tier == "words", "the loop has seen that nobody works"
        assert perf_counter() - began < 2
        released.set()
