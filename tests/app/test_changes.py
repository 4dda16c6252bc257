"""Live changes through the front door: durable when acknowledged, seen within a second, everywhere a product shows."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import metrics
from app.index.bundle import BundleStore
from app.index.changes import ChangeLog, Edit
from tests.app.server import Served, served
from tests.conftest import Client
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.running import metric

_NDJSON = {"content-type": "application/x-ndjson"}
_SEEN_WITHIN_S = 1.0


@pytest.fixture
def bundles(tiny_bundles: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundles, tmp_path / "bundles"))


def _log(bundles: Path) -> Path:
    """Where the `client` fixture keeps the default collection's changes."""
    return bundles.parent / "changes" / "default"


async def _search(http: httpx.AsyncClient, query: str | None = "steel mug", **more: Any) -> dict[str, Any]:
    answer = await http.post("/v1/search", json={"query": query, "k": 60, **more})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


async def _seen(true: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until it holds."""
    started = time.perf_counter()
    while not await true():
        assert time.perf_counter() - started < 10
        await asyncio.sleep(0.01)
    return time.perf_counter() - started


@pytest.mark.promise("L3", "a change is found within a second")
async def test_a_put_product_is_found_within_a_second(bundles: Path, client: Client) -> None:
    """By its words, its id and its price; as a list and as lines; put again it is replaced."""
    async with client(bundles, open=True) as http:
        answer = await http.put("/v1/products", json=[{"id": "new", "title": "zebra mug", "price": 3.5, "stock": 2}])
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"accepted": 1, "sequence": 1, "version": BundleStore(bundles).current()}

        async def found() -> bool:
            return any(hit["id"] == "new" for hit in (await _search(http, "zebra mug"))["hits"])

        assert await _seen(found) < _SEEN_WITHIN_S
        one = (await http.get("/v1/products/new")).json()["product"]
        assert one == {"title": "zebra mug", "price": 3.5, "stock": 2, "in_stock": True}
        lines = b'{"id": "new", "title": "zebra mug", "price": 4}\n{"id": "newer", "title": "zebra lamp"}\n'
        assert (await http.put("/v1/products", content=lines, headers=_NDJSON)).json()["sequence"] == 3

        async def replaced() -> bool:
            answer = await http.get("/v1/products/new")
            return bool(answer.json()["product"].get("price") == 4)

        assert await _seen(replaced) < _SEEN_WITHIN_S
        assert "stock" not in (await http.get("/v1/products/new")).json()["product"]
        changes = (await http.get("/v1/versions")).json()["collections"][0]["changes"]
        assert changes == {"sequence": 3, "products": 2}


@pytest.mark.promise("L3", "a cached answer ends with a change", control="it was cached before, and is again after")
async def test_a_price_and_a_stock_are_seen_in_cached_answers(bundles: Path, client: Client) -> None:
    """An answer that was cached before the change is not given after it; the same search is cached again."""
    async with client(bundles, open=True) as http:
        cheap = {"filter": {"field": "price", "lt": 1}, "facets": ["brand"], "sort": "price"}
        await _search(http, **cheap)
        before = await _search(http, **cheap)
        assert before["cached"] and not before["hits"]
        assert (await http.patch("/v1/products/p005", json={"price": 0.25, "stock": 0})).status_code == 200

        async def seen() -> bool:
            return [hit["id"] for hit in (await _search(http, **cheap))["hits"]] == ["p005"]

        assert await _seen(seen) < _SEEN_WITHIN_S
        after = await _search(http, **cheap)
        assert after["cached"] and after["hits"][0]["product"]["in_stock"] is False
        assert sum(one["count"] for one in after["facets"]["brand"]) == 1


async def test_a_deleted_product_is_gone(bundles: Path, client: Client) -> None:
    """From searches and by its id; deleting it again is 404, at once."""
    async with client(bundles, open=True) as http:
        assert (await http.delete("/v1/products/p005")).json()["accepted"] == 1
        assert (await http.delete("/v1/products/p005")).status_code == 404
        assert (await http.patch("/v1/products/p005", json={"price": 1})).status_code == 404
        assert (await http.get("/v1/products/p005")).status_code == 404
        assert all(hit["id"] != "p005" for hit in (await _search(http))["hits"])


async def test_a_patch_follows_its_put_at_once(bundles: Path, client: Client) -> None:
    """It need not wait until the product is seen by searches."""
    async with client(bundles, open=True) as http:
        for number in range(5):
            put = await http.put("/v1/products", json=[{"id": f"n{number}", "title": "zebra", "price": 2}])
            patched = await http.patch(f"/v1/products/n{number}", json={"price": None, "brand": "Zeta"})
            assert (put.status_code, patched.status_code) == (200, 200), patched.text

        async def seen() -> bool:
            answer = await http.get("/v1/products/n4")
            return answer.status_code == 200 and answer.json()["product"] == {"title": "zebra", "brand": "Zeta"}

        assert await _seen(seen) < _SEEN_WITHIN_S


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/v1/products", [], 422, "at least 1"),
        ("PUT", "/v1/products", {"id": "x", "title": "y"}, 422, "valid array"),
        ("PUT", "/v1/products", [{"id": "x"}], 422, "no title"),
        ("PUT", "/v1/products", [{"id": "x", "title": "y", "colour": "red"}], 422, "did you mean 'color'"),
        ("PUT", "/v1/products", [{"id": "x", "title": "y"}] * 1001, 422, "at most 1000"),
        ("PUT", "/v1/products?collection=nope", [{"id": "x", "title": "y"}], 404, "no collection"),
        ("PATCH", "/v1/products/p001", {}, 422, "at least 1"),
        ("PATCH", "/v1/products/p001", {"title": None}, 422, "no title"),
        ("PATCH", "/v1/products/p001", {"price": "dear"}, 422, "finite number"),
        ("PATCH", "/v1/products/p001", {"id": "p002"}, 422, "cannot change"),
        ("PATCH", "/v1/products/nope", {"price": 1}, 404, "no product"),
        ("DELETE", "/v1/products/nope", None, 404, "no product"),
    ],
)
async def test_a_change_that_cannot_be_meant_is_refused_and_not_kept(
    bundles: Path, client: Client, method: str, path: str, body: Any, status: int, said: str
) -> None:
    """With what is wrong with it."""
    async with client(bundles, open=True) as http:
        answer = await http.request(method, path, json=body)
        assert answer.status_code == status and said in answer.text, answer.text
    assert ChangeLog(_log(bundles)).news() == []


@pytest.mark.promise("L1", "what cannot be kept is not acknowledged: 503")
async def test_where_changes_cannot_be_kept_callers_are_told(bundles: Path, client: Client) -> None:
    """A folder that cannot be written: 503 with the reason, and searches go on."""
    async with client(bundles, open=True, changes=Path("/proc/aisle")) as http:
        answer = await http.put("/v1/products", json=[{"id": "x", "title": "y"}])
        assert answer.status_code == 503 and "cannot be kept" in answer.json()["detail"]
        assert (await _search(http))["hits"]


async def test_a_damaged_log_refuses_to_start_and_names_the_place(bundles: Path, client: Client) -> None:
    """Rather than serve what is not so."""
    log = _log(bundles)
    for number in range(3):
        ChangeLog(log).append([[Edit("put", f"n{number}", {"title": "zebra"})]])
    segment = next(log.glob("*.log"))
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    segment.write_bytes(damaged)
    with pytest.raises(Exception, match=segment.name):
        async with client(bundles, open=True):
            pass


async def test_writes_that_come_together_share_an_fsync(
    bundles: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred at once are kept by few, in order; each caller learns its own place."""
    appended: list[int] = []
    append = ChangeLog.append

    def counted(log: ChangeLog, batches: Any) -> list[int]:
        appended.append(len(batches))
        return append(log, batches)

    monkeypatch.setattr(ChangeLog, "append", counted)
    before = metrics.REGISTRY.get_sample_value("aisle_changes_total", {"collection": "default", "op": "put"}) or 0.0
    async with client(bundles, open=True) as http:
        puts = [http.put("/v1/products", json=[{"id": f"n{at}", "title": "zebra"}]) for at in range(100)]
        sequences = [answer.json()["sequence"] for answer in await asyncio.gather(*puts)]
    assert sorted(sequences) == list(range(1, 101))
    assert sum(appended) == 100 and len(appended) < 50
    after = metrics.REGISTRY.get_sample_value("aisle_changes_total", {"collection": "default", "op": "put"}) or 0.0
    assert after - before == 100


async def test_a_new_version_takes_up_the_changes(bundles: Path, client: Client, tmp_path: Path) -> None:
    """Those that it was not built from; the same after a roll back."""
    store = BundleStore(bundles)
    first = store.current() or ""
    async with client(bundles, open=True) as http:
        await http.put("/v1/products", json=[{"id": "new", "title": "zebra mug"}])
        manifest = json.loads((store.path(first) / "manifest.json").read_bytes())
        with store.building() as folder:
            for part in store.path(first).iterdir():
                if part.name != "manifest.json":
                    shutil.copyfile(part, folder / part.name)
            second = store.seal(folder, manifest["content"] | {"again": 1})
        store.publish(second)

        async def swapped() -> bool:
            return bool((await http.get("/v1/versions")).json()["collections"][0]["version"] == second)

        await _seen(swapped)
        assert (await http.get("/v1/products/new")).status_code == 200
        await http.delete("/v1/products/new")

        async def gone() -> bool:
            return (await http.get("/v1/products/new")).status_code == 404

        assert await _seen(gone) < _SEEN_WITHIN_S


def test_many_changes_become_a_version_by_themselves(bundles: Path) -> None:
    """Made in the background, once, and taken up by every process."""
    first = BundleStore(bundles).current()
    with served(bundles, AISLE_OPEN="1", AISLE_PROCESSES="2", AISLE_FOLD_AFTER="5") as service:
        for number in range(6):
            _put(service, f"n{number}", 5.0)
        until = time.monotonic() + 60
        while (now := _versions(service)) and (now["version"] == first or now["changes"]["products"]):
            assert time.monotonic() < until, "".join(service.lines)
            time.sleep(0.1)
        assert now["products"] == 66
        assert service.stop() == 0
    assert len(BundleStore(bundles).versions()) == 2


def _versions(service: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.address}/v1/versions").raise_for_status().json()["collections"][0]
    return found


@pytest.mark.promise("L3", "each process shows every change after a second")
def test_processes_share_a_log(bundles: Path) -> None:
    """Whichever keeps a change, each shows it within a second."""
    with served(bundles, AISLE_OPEN="1", AISLE_PROCESSES="2") as service:
        for number in range(20):  # a connection each: the kernel deals them out
            _put(service, f"n{number}", 5.0 + number)
        time.sleep(_SEEN_WITHIN_S)
        for number in range(20):
            for _ in range(3):
                product = httpx.get(f"{service.address}/v1/products/n{number}").raise_for_status().json()["product"]
                assert product["price"] == 5.0 + number
        assert service.stop() == 0
    assert [change.sequence for change in ChangeLog(bundles / "changes").news()] == list(range(1, 21))


@pytest.mark.parametrize("kills", forms(3, 60))
def test_no_acknowledged_change_is_lost_to_a_kill_of_the_service(bundles: Path, promise: Promise, kills: int) -> None:
    """Killed at some moment while it keeps changes; what it acknowledged is served by the next."""
    acknowledged: dict[str, float] = {}
    kept = counted = 0.0
    with promise("L1", f"{kills} kills of the service: every acknowledged change is served by the next") as entry:
        for turn in range(kills):
            with served(bundles, AISLE_OPEN="1", AISLE_PROCESSES="1") as service, httpx.Client() as http:
                for id, price in acknowledged.items():
                    found = http.get(f"{service.address}/v1/products/{id}").raise_for_status()
                    assert found.json()["product"]["price"] == price
                until = time.monotonic() + 0.3 + 0.01 * turn
                number = 0
                while time.monotonic() < until:
                    id, price = f"n{turn}-{number % 7}", float(number)
                    body = [{"id": id, "title": "zebra", "price": price}]
                    if http.put(f"{service.address}/v1/products", json=body).status_code == 200:
                        acknowledged[id] = price
                        kept += 1
                    number += 1
                counted += metric(service.address, "aisle_changes_total", op="put")
                service.process.send_signal(signal.SIGKILL)
                assert service.process.wait() == -signal.SIGKILL
        entry.figure = f"{kills} kills of the service: {kept:,.0f} changes acknowledged, 0 lost"
        entry.control = f"each ended by SIGKILL; {len(acknowledged)} products are compared at each start but the first"
        entry.metric = f"aisle_changes_total{{op=put}} +{counted:.0f}"
        assert len(acknowledged) >= kills
        assert counted == kept


@pytest.mark.parametrize("seconds", forms(8.0, 60.0))
def test_no_answer_shows_a_product_as_it_was_more_than_a_second_ago(
    bundles: Path, promise: Promise, seconds: float
) -> None:
    """Twenty updates a second, while three clients search, filter and browse, cached and not: prices only rise, so one
    that is too low is too old. The control: an answer held back for two seconds would be told."""
    ids = [f"p{number:03}" for number in range(0, 60, 6)]
    kept: dict[str, list[tuple[float, float]]] = {id: [(0.0, 0.0)] for id in ids}
    with promise("L3", f"{seconds:.0f} s at 20 updates a second: no answer older than a second") as found:
        with served(bundles, AISLE_OPEN="1", AISLE_PROCESSES="2") as service:
            end = time.monotonic() + seconds
            with ThreadPoolExecutor(4) as pool:
                readers = [pool.submit(_read_until, service, end, number) for number in range(3)]
                _update_until(service, end, ids, kept)
                seen = [one for reader in readers for one in reader.result()]
            counted = metric(service.address, "aisle_changes_total", op="patch")
        updates = sum(len(prices) - 1 for prices in kept.values())
        stale = [one for one in seen if one[2] < _least(kept[one[1]], one[0] - _SEEN_WITHIN_S)]
        late = [one for one in seen if one[2] < _least(kept[one[1]], one[0] + 1.0)]
        found.figure = (
            f"{seconds:.0f} s, two processes: {len(stale)} of {len(seen):,} products shown older than a second"
        )
        found.control = f"held against what was so a second later, {len(late):,} are too old"
        found.metric = f"aisle_changes_total{{op=patch}} +{counted:.0f}"
        assert len(seen) > 20 * seconds and sum(len(prices) for prices in kept.values()) > 15 * seconds
        assert stale == []
        assert late, "the control: nothing changed while it was looked at"
        assert counted == updates


def _least(prices: list[tuple[float, float]], at: float) -> float:
    """The last price that was acknowledged by then."""
    return max(price for moment, price in prices if moment <= at)


def _update_until(service: Served, end: float, ids: list[str], kept: dict[str, list[tuple[float, float]]]) -> None:
    number = 0
    with httpx.Client() as http:
        while (now := time.monotonic()) < end:
            id, price = ids[number % len(ids)], 1000.0 + number
            http.patch(f"{service.address}/v1/products/{id}", json={"price": price}).raise_for_status()
            kept[id].append((time.monotonic(), price))
            number += 1
            time.sleep(max(0.0, now + 0.05 - time.monotonic()))


def _read_until(service: Served, end: float, number: int) -> list[tuple[float, str, float]]:
    """(when it was asked, product, price) of every hit whose price was ever updated."""
    asked = (
        {"query": "headphones", "k": 60, "profile": ("default", "lexical", "default")[number]},
        {"query": f"headphones {number}", "k": 60, "sort": "-price"},
        {"filter": {"field": "price", "gte": 1000}, "k": 60},
    )
    seen = []
    turn = 0
    while time.monotonic() < end:
        at = time.monotonic()
        # A connection each, so that both processes are asked.
        answer = httpx.post(f"{service.address}/v1/search", json=asked[turn % 3]).raise_for_status().json()
        for hit in answer["hits"]:
            price = hit["product"].get("price", 0.0)
            if hit["id"] in {f"p{one:03}" for one in range(0, 60, 6)}:
                seen.append((at, hit["id"], price))
        turn += 1
    return seen


def _put(service: Served, id: str, price: float) -> None:
    body = [{"id": id, "title": f"zebra {id}", "price": price}]
    httpx.put(f"{service.address}/v1/products", json=body).raise_for_status()
