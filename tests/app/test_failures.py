"""The failure table of the README: every row is read from there, brought about, and compared with what callers saw."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import metrics
from app.errors import CorruptPart
from app.index import bundle, changes, dense_gpu
from app.index.bundle import BundleStore
from app.index.changes import ChangeLog, Edit
from app.index.lexical import LexicalIndex
from app.runtime.standby import FAILURES, Standby
from app.search import embed, versions
from app.search.embed import Encoder
from app.search.searcher import Searcher
from app.types import SearchRequest
from scripts.cli import main as aisle
from tests import tiny
from tests.app import faults
from tests.app.faults import Seen
from tests.app.server import served
from tests.conftest import ROOT, Client
from tests.index.gpu_stand_in import StandInGpu
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.redis_server import FalseRedis, RedisServer
from tests.stops import stops

README = (ROOT / "README.md").read_text(encoding="utf-8")
_SHORT_MS = 600.0


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    what: str
    how: str
    statuses: frozenset[int]
    words: frozenset[str]
    metrics: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.what} {self.how}"


def _rows() -> list[Row]:
    section = README.split("## When something fails")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    rows = []
    for line in lines:
        what, how, sees, _, moves = (cell.strip() for cell in line.strip("|").split(" |"))
        named = [word for word in re.findall("`([^`]+)`", sees) if not word.startswith("/")]
        statuses = map(int, re.findall(r"\b[1-5]\d\d\b", sees))
        rows.append(Row(what, how, frozenset(statuses), frozenset(named), tuple(re.findall("`([^`]+)`", moves))))
    return rows


@dataclass
class Place:
    """What an exercise may use."""

    bundles: Path
    encoder: Path
    client: Client
    patch: pytest.MonkeyPatch
    folder: Path
    fixture: Callable[[str], Any]

    def copy(self) -> Path:
        """Bundles that may be written to."""
        copied = self.folder / "bundles"
        shutil.copytree(self.bundles, copied)
        return copied


Exercise = Callable[[Place], Awaitable[Seen]]
EXERCISES: dict[str, Exercise] = {}


def exercise(name: str) -> Callable[[Exercise], Exercise]:
    def keep(one: Exercise) -> Exercise:
        EXERCISES[name] = one
        return one

    return keep


ROWS = _rows()


def test_every_row_has_its_exercise_and_every_exercise_its_row() -> None:
    """So that nothing is promised untried, or tried unsaid."""
    assert {row.name for row in ROWS} == EXERCISES.keys()
    assert len(ROWS) == len({row.name for row in ROWS})


def _promised(row: Row) -> list[pytest.MarkDecorator]:
    """Some rows hold a promise of their own besides."""
    more = {"control": "each exercise asserts that its fault struck", "metric": " ".join(row.metrics)}
    if row.what in ("encoder", "GPU"):
        bar = "never 500: 200 from the words, or 503; in full once it is over; one run in ten and all"
        return [pytest.mark.promise("A7", bar, **more)]
    if row.what == "scoring":
        return [pytest.mark.promise("A8", "200 in the first stage's order, marked", **more)]
    if row.how == "gives NaN":
        return [pytest.mark.promise("D7", "NaN never reaches an answer or the cache", **more)]
    return []


@pytest.mark.promise(
    "F1",
    "whatever fails shows as the README's table says: statuses, tiers, reasons",
    control="each exercise asserts that its fault struck",
    metric="the row's own metric moves",
)
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name.replace(" ", "-"), marks=_promised(row)) for row in ROWS]
)
async def test_what_fails_shows_as_the_table_says(
    row: Row,
    tiny_bundles: Path,
    tiny_encoder: Path,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """The statuses, tiers and reasons of its row and no others, and its metrics move."""
    place = Place(tiny_bundles, tiny_encoder, client, monkeypatch, tmp_path, request.getfixturevalue)
    before = {one: _value(one) for one in row.metrics}
    with stops() as longest_ms:
        seen = await EXERCISES[row.name](place)
        stopped_ms = longest_ms()
    assert seen.statuses == row.statuses
    assert row.words <= seen.words <= row.words | {"deadline", "load"}
    # Counted, not timed, here: a busy machine may be late by a moment, and by as long as it stops itself. The deep form
    # below allows nobody 20 ms.
    late = [ms for ms in seen.late if ms > stopped_ms]
    assert len(late) <= 0.02 * seen.answers and max(late, default=0.0) < 400 + stopped_ms
    assert [one for one in row.metrics if one not in seen.moved and _value(one) <= before[one]] == []


def _value(metric: str) -> float:
    """Sum over the series that a metric with some of its labels selects."""
    name, _, selector = metric.partition("{")
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', selector))
    samples = (sample for family in metrics.REGISTRY.collect() for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in samples if wanted.items() <= sample.labels.items())


async def _moves(metric: str, before: float) -> None:
    async with asyncio.timeout(10):
        while _value(metric) <= before:
            await asyncio.sleep(0.01)


async def _until_whole(http: httpx.AsyncClient, stem: str) -> None:
    """A search with little time is answered in full again, soon."""
    async with asyncio.timeout(10):
        number = 0
        while True:
            answer = (await http.post("/v1/search", json={"query": f"{stem} {number}", "timeout_ms": _SHORT_MS})).json()
            if not answer.get("degraded", {"is": True})["is"]:
                return
            number += 1
            await asyncio.sleep(0.02)


# -------------------------------------------------------------------------------------------------- encoder


async def _failing_sessions(place: Place, act: Callable[[faults.Fault, Any], Any]) -> Seen:
    """One run in ten, then all: what was struck is answered by the words, what was not in full, and nothing of it is
    kept: afterwards the same searches are answered in full."""
    seen = Seen()
    async with place.client(place.bundles, workers=1) as http:
        for share in (0.1, 1.0):
            with faults.session_fault(place.patch, act, share) as fault:
                fault.on = True
                whole, before = seen.whole, seen.answers
                for number in range(100):
                    await seen.ask(http, f"steel mug {share} {number}")
                assert fault.struck == (seen.answers - before) - (seen.whole - whole) > 0
        assert all(hit["score"] is not None for body in seen.bodies for hit in body["hits"])
        again = await seen.ask(http, "steel mug 1.0 7")
        assert not again["cached"] and not again["degraded"]["is"]
    return seen


@exercise("encoder raises")
async def _(place: Place) -> Seen:
    seen = await _failing_sessions(place, faults.raises)
    async with place.client(place.bundles) as http:
        with faults.session_fault(place.patch, faults.raises) as fault:
            fault.on = True
            await seen.ask(http, "folding lamp", profile="dense")
            item = {"query": "steel mug", "candidates": [{"id": "p001"}, {"text": "a mug"}]}
            others = [
                await http.post("/v1/rescore", json={"items": [item]}),
                await http.post("/v1/classify", json={"query": "steel mug"}),
                await http.post("/v1/why-not", json={"query": "steel mug", "id": "p001"}),
                await http.post("/v1/rerank", json={"query": "steel mug", "documents": ["a mug"]}),
            ]
    assert [one.status_code for one in others] == [200, 503, 200, 200]
    return seen


@exercise("encoder gives NaN")
async def _(place: Place) -> Seen:
    return await _failing_sessions(place, faults.gives_nan)


@exercise("encoder gives another shape")
async def _(place: Place) -> Seen:
    return await _failing_sessions(place, faults.gives_another_shape)


@exercise("GPU is lost")
async def _(place: Place) -> Seen:
    """A stand-in for the device, lost as its session says it; what a real one does is tried where there is one."""
    seen, real, devices = Seen(), embed._model, []

    def model(folder: Path, name: str, provider: Any, description: Any) -> Any:
        spare, precision = real(folder, name, provider, description)
        devices.append(faults.Device(folder / name))
        return Standby(devices[-1], spare, devices[-1].again, again_s=0.2), precision  # type: ignore[arg-type]  # stand-ins

    place.patch.setattr(embed, "_model", model)
    async with place.client(place.bundles) as http:
        for device in devices:
            device.lost = True
        for number in range(30):
            await seen.ask(http, f"steel mug {number}")
        assert not seen.whole and sum(device.lost_runs for device in devices) >= FAILURES
        for device in devices:
            device.lost = False
        await _until_whole(http, "quiet kettle")
    return seen


@exercise("the words raise")
async def _(place: Place) -> Seen:
    seen, real = Seen(), LexicalIndex.search

    def search(self: LexicalIndex, *arguments: Any) -> Any:
        if "mug" in arguments[0].words:
            raise RuntimeError
        return real(self, *arguments)

    place.patch.setattr(LexicalIndex, "search", search)
    async with place.client(place.bundles) as http:
        for number in range(20):
            await seen.ask(http, f"steel mug {number}")
            assert not (await http.post("/v1/search", json={"query": f"wool scarf {number}"})).json()["degraded"]["is"]
        await seen.ask(http, "steel mug", profile="lexical")
    return seen


@exercise("the index on a GPU raises")
async def _(place: Place) -> Seen:
    """With a stand-in for FAISS's GPU functions: an allocation fails, which is what FAISS raises for."""
    seen, gpu = Seen(), StandInGpu()
    place.patch.setattr(dense_gpu, "faiss", gpu)
    place.patch.setattr(dense_gpu, "_TRIAL", "")
    place.patch.setattr(versions, "EXACT_SCAN_UP_TO", 50)
    place.patch.setattr(dense_gpu, "_resources", gpu.StandardGpuResources)
    async with place.client(place.bundles, provider="auto", cache_mb=0) as http:

        def fails() -> None:
            raise RuntimeError("StandardGpuResources: alloc fail")

        asked = len(gpu.batches)
        gpu.before_search = fails
        await seen.ask_for(http, seconds=0.5, rate=20, stem="wooden lamp", timeout_ms=_SHORT_MS)
        assert len(gpu.batches) > asked, "the fault did not happen"
    return seen


@exercise("encoder stands still for 5 s")
async def _(place: Place) -> Seen:
    seen, replaced = Seen(), _value("aisle_workers_replaced_total")
    async with place.client(place.bundles, workers=1) as http:
        with faults.session_fault(place.patch, faults.stalls) as fault:
            fault.on = True
            await seen.ask_for(http, seconds=4.0, rate=50, stem="wooden lamp", timeout_ms=_SHORT_MS)
            assert fault.struck >= 1, "the fault did not happen"
            await _moves("aisle_workers_replaced_total", replaced)
            assert (await http.get("/readyz")).status_code == 200
        await _until_whole(http, "quiet kettle")
        with faults.session_fault(place.patch, faults.stalls, share=0.1) as fault:
            fault.on = True
            await seen.ask_for(http, seconds=1.0, rate=50, stem="soft speaker", timeout_ms=_SHORT_MS)
            assert fault.struck >= 1
    assert seen.answers == 250
    return seen


# -------------------------------------------------------------------------------------------------- scoring


@exercise("scoring raises")
async def _(place: Place) -> Seen:
    seen = Seen()
    async with place.client(place.bundles, workers=1) as http:
        with faults.searcher_fault(place.patch, "rank", faults.raises) as fault:
            fault.on = True
            for number in range(100):
                await seen.ask(http, f"steel mug {number}")
            assert fault.struck == 100
        _in_the_words_order(http, seen)
        again = await seen.ask(http, "steel mug 7")
        assert not again["cached"] and not again["degraded"]["is"]
    return seen


@exercise("scoring stands still for 5 s")
async def _(place: Place) -> Seen:
    return await _scoring_stalls(place, seconds=6.0)


async def _scoring_stalls(place: Place, seconds: float) -> Seen:
    seen, replaced = Seen(), _value("aisle_workers_replaced_total")
    async with place.client(place.bundles, workers=1) as http:
        with faults.searcher_fault(place.patch, "rank", faults.stalls) as fault:
            fault.on = True
            await seen.ask_for(http, seconds, rate=100, stem="steel mug", timeout_ms=_SHORT_MS)
            assert fault.struck >= 1
            assert seen.answers == round(seconds * 100) and seen.whole == 0
            await _moves("aisle_workers_replaced_total", replaced)
        _in_the_words_order(http, seen)
        await _until_whole(http, "bright mug")
    return seen


@pytest.mark.deep
async def test_scoring_that_stalls_never_breaks_a_deadline(
    tiny_bundles: Path,
    tiny_encoder: Path,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    promise: Promise,
) -> None:
    """Two thousand searches in twenty seconds: each answered within its time and 20 ms, in the words' order."""
    place = Place(tiny_bundles, tiny_encoder, client, monkeypatch, tmp_path, lambda name: None)
    metric = 'aisle_stage_failures_total{stage="score",cause="stalled"}'
    with promise("A8", "100 % of 2,000 answered within timeout + 20 ms, in the first stage's order") as found:
        before = _value(metric)
        seen = await _scoring_stalls(place, seconds=20.0)
        found.figure = (
            f"{seen.answers:,} answers {seen.statuses}, {len(seen.late)} later than 20 ms after their time, "
            f"the latest by {seen.latest_ms:.0f} ms"
        )
        found.control = f"{seen.whole} in full; degraded by {sorted(seen.words)}"
        found.metric = f"{metric} +{_value(metric) - before:.0f}"
        assert (seen.statuses, seen.answers, seen.late) == ({200}, 2000, [])
        assert _value(metric) > before


def _in_the_words_order(http: httpx.AsyncClient, seen: Seen) -> None:
    """Every answer is what the first stage found, in its order."""
    searcher: Searcher = http.app.state.service._collections.get("default").searcher  # type: ignore[attr-defined]  # set by the fixture
    query = searcher.query(SearchRequest("steel mug 7"))
    found = searcher.words.search(searcher.words.parse(query.text or ""), query.profile.depth).rows[:10]
    first = [searcher.catalog.id(int(row)) for row in found]
    assert seen.bodies
    for body in seen.bodies:
        assert [hit["score"] for hit in body["hits"]] == [None] * len(body["hits"])
    with_these_words = [[hit["id"] for hit in body["hits"]] for body in seen.bodies]
    assert first in with_these_words


@exercise("every stage stands still for 5 s")
async def _(place: Place) -> Seen:
    """Whoever works at searches hangs, in a stage that nobody watches: the loop answers from the words at the deadline,
    and those with a filter are told."""
    seen, replaced = Seen(), _value("aisle_workers_replaced_total")
    async with place.client(place.bundles, workers=1) as http:
        with faults.searcher_fault(place.patch, "search", faults.stalls) as fault:
            fault.on = True
            filtered = {"filter": {"field": "price", "gte": 1}}
            await asyncio.gather(
                seen.ask_for(http, seconds=4.0, rate=20, stem="steel mug", timeout_ms=_SHORT_MS),
                seen.ask(http, "folding lamp", 900, **filtered),
            )
            assert fault.struck >= 2
            await _moves("aisle_workers_replaced_total", replaced)
        await _until_whole(http, "bright mug")
    return seen


@exercise("golden queries are answered wrongly")
async def _(place: Place) -> Seen:
    seen = Seen()
    async with place.client(place.bundles) as http:
        golden = http.app.state.service._golden  # type: ignore[attr-defined]  # set by the fixture
        place.patch.setattr("app.search.golden.LEAST_OVERLAP", 1.01)
        for _ in range(2):
            await golden.check()
        seen.statuses.add((await http.get("/readyz")).status_code)
        await seen.ask(http, "steel mug")
    return seen


# -------------------------------------------------------------------------------------------------- Redis


_PATIENT_MS = 20_000.0  # where answers are counted and compared, and a busy machine may be late


async def _over_redis(
    place: Place, url: str, seen: Seen, count: int = 150, timeout_ms: float = 1000.0, **settings: Any
) -> None:
    async with place.client(place.bundles, redis_url=url, **settings) as http:
        for number in range(count):
            await seen.ask(http, f"steel mug {number}", timeout_ms)
        assert (await http.get("/readyz")).status_code == 200
    assert seen.whole == seen.answers


@exercise("Redis is dead")
async def _(place: Place) -> Seen:
    seen, server = Seen(), place.fixture("redis_server")
    server.kill()
    await _over_redis(place, server.url, seen)
    return seen


@exercise("Redis hangs")
async def _(place: Place) -> Seen:
    seen, server = Seen(), place.fixture("redis_server")
    server.hang()
    try:
        await _over_redis(place, server.url, seen)
    finally:
        server.resume()
    return seen


_ERRORS = (
    b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-NOAUTH Authentication required.\r\n",
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    b"-ERR max number of clients reached\r\n",
    b"*2\r\n$3\r\nab",
    b"*1\r\n+PONG\r\n",
    b":7\r\n",
    b"\x00\xff not of this protocol\r\n",
)


async def _faults_of_redis(place: Place, count: int, timeout_ms: float = 1000.0) -> Seen:
    """Each reply, one that comes 200 ms late, and a connection that is closed instead."""
    seen = Seen()
    late, closed = FalseRedis(b"*1\r\n$-1\r\n", delay_s=0.2), FalseRedis(b"", closes=True)
    for fault in (*map(FalseRedis, _ERRORS), late, closed):
        async with fault.listening() as redis:
            await _over_redis(place, redis.url, seen, count, timeout_ms, redis_timeout_ms=50)
            assert redis.asked > 0, redis.reply
    return seen


@exercise("Redis answers with errors")
async def _(place: Place) -> Seen:
    return await _faults_of_redis(place, 50)


@pytest.mark.parametrize("count", forms(20, 1000))
async def test_redis_that_misbehaves_fails_no_search(
    tiny_bundles: Path,
    tiny_encoder: Path,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    promise: Promise,
    count: int,
) -> None:
    """Not one of all requests fails or is less than whole."""
    place = Place(tiny_bundles, tiny_encoder, client, monkeypatch, tmp_path, lambda name: None)
    causes = ("reply", "timeout", "connection", "breaker_open")
    faults_ = len(_ERRORS) + 2
    with promise("A3", f"{faults_} faults × {count:,} requests: 0 failed") as found:
        before = {cause: _value(f'aisle_redis_errors_total{{cause="{cause}"}}') for cause in causes}
        seen = await _faults_of_redis(place, count, _PATIENT_MS)
        moved = {cause: _value(f'aisle_redis_errors_total{{cause="{cause}"}}') - before[cause] for cause in causes}
        found.figure = f"{faults_} faults × {count:,} requests: {seen.whole:,} of {seen.answers:,} answered in full"
        found.control = "each false server was asked"
        found.metric = "aisle_redis_errors_total " + ", ".join(f"{cause} +{n:.0f}" for cause, n in moved.items())
        assert (seen.statuses, seen.whole) == ({200}, faults_ * count)
        assert all(moved.values())


def _mutated(number: int, stored: bytes, another: bytes, canary: Path) -> bytes:
    """One of six ways in which an entry may not be what was written."""
    at = number % len(stored)
    ways = (
        lambda: stored[:at],
        lambda: stored[:at] + bytes([stored[at] ^ 1 << number % 8]) + stored[at + 1 :],
        lambda: b"\xa0" + stored[1:],
        lambda: another,
        lambda: bytes(10 << 20) if number < 12 else stored + b"x",
        lambda: b"cposix\nsystem\n(S'touch %s'\ntR." % os.fsencode(canary),
    )
    return ways[number % len(ways)]()


async def _lies(place: Place, server: RedisServer, count: int, timeout_ms: float = 1000.0) -> Seen:
    """Every entry is replaced; each answer is the one that was computed, nothing runs, all are counted."""
    seen, canary = Seen(), place.folder / "canary"
    metric = 'aisle_cache_events_total{level="redis",event="corrupt"}'
    settings = {"redis_url": server.unix_url, "redis_timeout_ms": 1000}
    expected = []
    async with place.client(place.bundles, **settings) as http:
        for number in range(count):
            answer = await seen.ask(http, f"steel mug {number}", timeout_ms)
            assert "hits" in answer, answer
            expected.append(answer["hits"])
        async with asyncio.timeout(10):
            while server.control.dbsize() < count:
                await asyncio.sleep(0.02)
    names = sorted(server.control.scan_iter(b"aisle:1:a:*", count=1000))
    held: list[bytes] = server.control.mget(names)  # type: ignore[assignment]  # all are there
    server.control.flushall()
    for number, (name, stored) in enumerate(zip(names, held, strict=True)):
        server.control.set(name, _mutated(number, stored, held[number - 1], canary))
    before = _value(metric)
    async with place.client(place.bundles, **settings) as http:
        for number in range(count):
            answer = await seen.ask(http, f"steel mug {number}", timeout_ms)
            assert answer["hits"] == expected[number] and not answer["cached"]
    assert _value(metric) - before == len(names) == count
    assert not canary.exists()
    return seen


@exercise("Redis gives other bytes")
async def _(place: Place) -> Seen:
    return await _lies(place, place.fixture("redis_server"), 300)


@pytest.mark.parametrize("count", forms(60, 10_000))
async def test_entries_that_are_not_what_was_written_are_never_served(
    tiny_bundles: Path,
    tiny_encoder: Path,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    redis_server: RedisServer,
    promise: Promise,
    count: int,
) -> None:
    """Cut, flipped, of an older format, of another key, of ten megabytes, pickled."""
    place = Place(tiny_bundles, tiny_encoder, client, monkeypatch, tmp_path, lambda name: redis_server)
    metric = 'aisle_cache_events_total{level="redis",event="corrupt"}'
    with promise("A4", f"{count:,} entries: 0 5xx, 0 other answers, canary untouched, all counted") as found:
        before = _value(metric)
        seen = await _lies(place, redis_server, count, _PATIENT_MS)
        found.figure = f"{count:,} entries of six wrong kinds: each answered as without them, canary untouched"
        found.control = "every entry lay in Redis and was read: as many are counted"
        found.metric = f"{metric} +{_value(metric) - before:.0f}"
        assert seen.statuses == {200}
        assert _value(metric) - before == count


# -------------------------------------------------------------------------------------------------- versions


async def _publishing_fails(place: Place, number: int) -> Seen:
    """The build fails in one line; the version before it is served and whole."""
    seen, bundles = Seen(), place.copy()
    store = BundleStore(bundles)
    first = str(store.current())
    fewer = tiny.write_catalogue(place.folder / "fewer.jsonl", tiny.products(30))
    command = ["build", str(fewer), "--encoder", str(place.encoder), "--bundles", str(bundles)]
    async with place.client(bundles) as http:
        struck = 0
        real = bundle.fsync

        def fail(path: Path) -> None:
            nonlocal struck
            struck += 1
            raise OSError(number, os.strerror(number), str(path))

        with place.patch.context() as patched:
            patched.setattr(bundle, "fsync", fail)
            code = await asyncio.to_thread(aisle, command)
        assert code == 1 and struck, "the fault did not happen"
        assert bundle.fsync is real
        assert (await seen.ask(http, "steel mug"))["version"] == first == store.current()
        assert store.verify(first)
        assert not list(bundles.glob(".building-*"))
        assert await asyncio.to_thread(aisle, command) == 0, "the control: it was the disk"
    return seen


@exercise("publishing finds the disk full")
async def _(place: Place) -> Seen:
    return await _publishing_fails(place, errno.ENOSPC)


@exercise("publishing finds the folder read-only")
async def _(place: Place) -> Seen:
    return await _publishing_fails(place, errno.EROFS)


@exercise("the change log cannot be written")
async def _(place: Place) -> Seen:
    seen = Seen()
    before = _value('aisle_http_requests_total{status="503"}')
    async with place.client(place.bundles, open=True, changes=place.folder / "changes") as http:
        place.patch.setattr(os, "pwrite", _full)
        answer = await http.put("/v1/products", json=[{"id": "new", "title": "steel mug"}])
        seen.statuses.add(answer.status_code)
        assert "no space left" in answer.json()["detail"]
        assert all(hit["id"] != "new" for hit in (await seen.ask(http, "steel mug"))["hits"])
    assert _value('aisle_http_requests_total{status="503"}') > before
    assert ChangeLog(place.folder / "changes" / "default").news() == []
    return seen


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@exercise("the change log is damaged")
async def _(place: Place) -> Seen:
    seen, log = Seen(), place.folder / "changes" / "default"
    settings: dict[str, Any] = {"open": True, "changes": place.folder / "changes"}
    async with place.client(place.bundles, **settings) as http:
        await http.put("/v1/products", json=[{"id": "n0", "title": "steel mug"}])
        segment = next(log.glob("*.log"))
        record = bytearray(changes._record(2, [Edit("put", "n1", {"title": "steel mug"})]))
        record[-5] ^= 1
        segment.write_bytes(segment.read_bytes() + record)
        await asyncio.sleep(0.3)
        assert all(hit["id"] != "n1" for hit in (await seen.ask(http, "steel mug"))["hits"])
        assert (await http.get("/readyz")).status_code == 200
    with pytest.raises(CorruptPart, match=rf"{segment.name} at byte \d+"):
        async with place.client(place.bundles, **settings):
            pass
    return seen


@exercise("a published version is corrupt")
async def _(place: Place) -> Seen:
    seen, bundles = Seen(), place.copy()
    store = BundleStore(bundles)
    first = str(store.current())
    metric = 'aisle_bundle_reloads_total{outcome="refused"}'
    async with place.client(bundles) as http:
        fewer = tiny.write_catalogue(place.folder / "fewer.jsonl", tiny.products(30))
        command = ["build", str(fewer), "--encoder", str(place.encoder), "--bundles", str(place.folder / "other")]
        assert await asyncio.to_thread(aisle, command) == 0
        other = BundleStore(place.folder / "other")
        second = str(other.current())
        shutil.copytree(other.path(second), bundles / second)
        part = bundles / second / "dense.faiss"
        raw = bytearray(part.read_bytes())
        raw[len(raw) // 2] ^= 1
        part.write_bytes(raw)
        refused = _value(metric)
        (store.folder / "CURRENT").write_text(second)
        await _moves(metric, refused)
        assert (await seen.ask(http, "steel mug"))["version"] == first
        assert (await http.get("/readyz")).status_code == 200
    return seen


# -------------------------------------------------------------------------------------------------- load


@exercise("the queue is full")
async def _(place: Place) -> Seen:
    seen = Seen()
    async with place.client(place.bundles, workers=1, max_waiting=8) as http:
        place.patch.setattr("app.search.service.SearchService._cannot_be_kept", lambda *_: False)
        started = time.perf_counter()
        refused: list[float] = []

        async def ask(number: int) -> None:
            response = await http.post("/v1/search", json={"query": f"steel mug {number}", "timeout_ms": 10_000})
            seen.note(response)
            if response.status_code == 429:
                refused.append(time.perf_counter() - started)
                assert response.headers["retry-after"]

        with faults.session_fault(place.patch, lambda _, output: time.sleep(0.02) or output) as fault:
            fault.on = True
            await asyncio.gather(*(ask(number) for number in range(60)))
            assert fault.struck
        assert refused and seen.whole >= 9
        assert seen.whole + len(refused) == seen.answers == 60
    return seen


@exercise("the time is too short for the tier")
async def _(place: Place) -> Seen:
    seen, real = Seen(), Encoder.queries

    def slow(encoder: Encoder, texts: Any) -> Any:
        time.sleep(0.05)
        return real(encoder, texts)

    place.patch.setattr(Encoder, "queries", slow)
    async with place.client(place.bundles) as http:
        for number in range(20):
            await seen.ask(http, f"steel mug {number}", 40)
    return seen


@exercise("the time is over at once")
async def _(place: Place) -> Seen:
    seen = Seen()
    async with place.client(place.bundles, workers=1) as http:
        with faults.searcher_fault(place.patch, "search", lambda _: time.sleep(0.05)) as fault:
            fault.on = True
            await seen.ask(http, "steel mug", 1)
            assert fault.struck == 1
    return seen


@exercise("a process of several is killed")
async def _(place: Place) -> Seen:
    return await asyncio.to_thread(_kill_one_of_two, place)


def _kill_one_of_two(place: Place) -> Seen:
    seen = Seen()
    with served(place.bundles, AISLE_PROCESSES="2") as service:
        listed = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        os.kill(int(listed[0]), signal.SIGKILL)
        until = time.monotonic() + 60
        while Path(f"/proc/{listed[0]}/cmdline").exists() and time.monotonic() < until:
            time.sleep(0.01)
        starts = 2.0
        number = 0
        while starts < 3 and time.monotonic() < until:
            number += 1
            seen.note(httpx.post(f"{service.address}/v1/search", json={"query": f"steel mug {number}"}))
            text = httpx.get(f"{service.address}/metrics").text
            found = re.search(r"^aisle_process_starts_total (\S+)", text, re.MULTILINE)
            assert found is not None
            starts = float(found[1])
        assert starts == 3 and seen.answers > 1
        seen.moved.add("aisle_process_starts_total")
    return seen
