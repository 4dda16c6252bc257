"""Changing the served version over HTTP: reload, roll back, and what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import metrics
from app.index import bundle
from app.index.bundle import BundleStore, read_manifest
from app.search import collections
from tests.conftest import Client


@pytest.fixture
def store(tiny_bundles: Path, tmp_path: Path) -> BundleStore:
    """A private copy of the tiny bundle."""
    shutil.copytree(tiny_bundles, tmp_path / "bundles")
    return BundleStore(tmp_path / "bundles")


@pytest.fixture
def no_following(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service never looks at CURRENT by itself."""
    monkeypatch.setattr(collections, "_POLL_S", 3600.0)


def _sealed(store: BundleStore, note: str, *, whole: bool = True) -> str:
    """Another version with the same parts; one that is not `whole` cannot rank."""
    old = store.path(store.current() or "")
    content = read_manifest(old).content if whole else {}
    with store.building() as folder:
        for path in old.iterdir():
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        return store.seal(folder, {**content, "note": note})


async def _change(http: httpx.AsyncClient, what: str, collection: str = "default") -> httpx.Response:
    return await http.post(f"/v1/versions/{what}", json={"collection": collection})


async def _served(http: httpx.AsyncClient) -> str:
    answer = await http.post("/v1/search", json={"query": "steel mug"})
    assert answer.status_code == 200
    version: str = answer.json()["version"]
    return version


async def _until_served(http: httpx.AsyncClient, version: str) -> None:
    for _ in range(100):
        if await _served(http) == version:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{version} is not served")


def _reloads(outcome: str) -> float:
    labels = {"collection": "default", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("aisle_bundle_reloads_total", labels) or 0.0


@pytest.mark.usefixtures("no_following")
async def test_a_reload_serves_what_is_published_at_once(store: BundleStore, client: Client) -> None:
    """The answer comes once it is served; a second one says that it is."""
    first, second = store.current(), _sealed(store, "second")
    async with client(store.folder, open=True) as http:
        store.publish(second)
        assert await _served(http) == first, "it was noticed without being told"
        answer = (await _change(http, "reload")).json()
        assert answer == {"collection": "default", "version": second, "before": first, "changed": True}
        assert await _served(http) == second
        answer = (await _change(http, "reload")).json()
        assert answer == {"collection": "default", "version": second, "before": second, "changed": False}


async def test_a_roll_back_is_published_served_and_followed(store: BundleStore, client: Client) -> None:
    """CURRENT names the version before, and another process over the same folder serves it within a second."""
    first, second = store.current(), _sealed(store, "second")
    store.publish(second)
    async with client(store.folder, open=True) as one, client(store.folder) as other:
        assert await _served(one) == await _served(other) == second
        answer = (await _change(one, "rollback")).json()
        assert answer == {"collection": "default", "version": first, "before": second, "changed": True}
        assert store.current() == first and await _served(one) == first
        await _until_served(other, str(first))
        response = await _change(one, "rollback")
        assert response.status_code == 404 and "no earlier version" in response.json()["detail"]
        assert await _served(one) == first


@pytest.mark.usefixtures("no_following")
@pytest.mark.parametrize("what", ["reload", "rollback"])
async def test_a_version_that_is_refused_changes_nothing(store: BundleStore, client: Client, what: str) -> None:
    """A part that was tampered with: 409 names it, CURRENT stays, the old version is served; made whole again it is
    taken."""
    first, second = str(store.current()), _sealed(store, "second")
    if what == "rollback":
        store.publish(second)
    wanted, before = (second, first) if what == "reload" else (first, second)
    part = store.path(wanted) / "golden.json"
    whole = part.read_bytes()
    async with client(store.folder, open=True) as http:
        if what == "reload":
            (store.folder / "CURRENT").write_text(second)
        current, refused = store.current(), _reloads("refused")
        part.write_bytes(whole.replace(b"p", b"q", 1))
        response = await _change(http, what)
        assert response.status_code == 409 and response.json()["title"] == "Version refused"
        assert "golden.json: sha256" in response.json()["detail"]
        assert str(store.folder) not in response.text
        assert (store.current(), await _served(http)) == (current, before)
        assert _reloads("refused") == refused + 1
        part.write_bytes(whole)
        assert (await _change(http, what)).json()["version"] == wanted == await _served(http)


@pytest.mark.usefixtures("no_following")
async def test_a_version_that_is_whole_and_cannot_rank_is_never_rolled_back_to(
    store: BundleStore, client: Client
) -> None:
    """Its digests are right, so publishing it would have passed: it is opened before CURRENT is touched."""
    good = str(store.current())
    bad = _sealed(store, "bad", whole=False)
    store.publish(bad)
    store.publish(good)
    async with client(store.folder, open=True) as http:
        response = await _change(http, "rollback")
        assert response.status_code == 409 and "ranking" in response.json()["detail"]
        assert (store.current(), await _served(http)) == (good, good)
    assert store.roll_back() == bad, "the command line's does not open it"


@pytest.mark.usefixtures("no_following")
async def test_a_folder_that_cannot_be_written_to_is_a_conflict(
    store: BundleStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod, whose bundles are mounted read-only: 409 says where to go, and the version stays."""
    second = _sealed(store, "second")
    store.publish(second)

    def mkstemp(**_: Any) -> None:
        raise OSError(30, "Read-only file system", str(store.folder))

    async with client(store.folder, open=True) as http:
        with monkeypatch.context() as patched:
            patched.setattr(bundle.tempfile, "mkstemp", mkstemp)
            response = await _change(http, "rollback")
            assert response.status_code == 409 and "Read-only file system" in response.json()["detail"]
            assert "aisle rollback" in response.json()["detail"] and str(store.folder) not in response.text
            assert (store.current(), await _served(http)) == (second, second)
        assert (await _change(http, "rollback")).status_code == 200


@pytest.mark.usefixtures("no_following")
@pytest.mark.parametrize(
    ("damage", "reloaded", "rolled_back"),
    [
        (lambda store: (store.folder / "CURRENT").write_text("soon"), 409, 409),
        (lambda store: (store.folder / "CURRENT").write_text("20300101-00000000"), 404, 200),
        (lambda store: shutil.rmtree(store.folder), 404, 404),
    ],
)
async def test_whatever_the_folder_holds_the_old_version_goes_on(
    store: BundleStore, client: Client, damage: Callable[[BundleStore], Any], reloaded: int, rolled_back: int
) -> None:
    """A garbled CURRENT, one that names nothing (a roll back mends it), no folder at all: a clear answer, no 500."""
    first = store.current()
    async with client(store.folder, open=True) as http:
        damage(store)
        for what, status in (("reload", reloaded), ("rollback", rolled_back)):
            response = await _change(http, what)
            assert response.status_code == status, response.text
            assert str(store.folder) not in response.text
        assert await _served(http) == first


async def test_a_collection_that_is_not_published_is_not_found(store: BundleStore, client: Client) -> None:
    """Nor does a name reach outside the folder."""
    async with client(store.folder, open=True) as http:
        for what in ("reload", "rollback"):
            for name in ("other", "collections", "A..b"):
                response = await _change(http, what, name)
                assert response.status_code == 404, response.text


@pytest.mark.usefixtures("no_following")
async def test_a_collection_published_since_is_served_by_a_reload(store: BundleStore, client: Client) -> None:
    """It had no version before."""
    async with client(store.folder, open=True) as http:
        other = BundleStore(store.folder, "other")
        old = store.path(store.current() or "")
        with other.building() as folder:
            for path in old.iterdir():
                shutil.copyfile(path, folder / path.name)
            version = other.seal(folder, read_manifest(old).content)
        other.publish(version)
        answer = (await _change(http, "reload", "other")).json()
        assert answer == {"collection": "other", "version": version, "before": None, "changed": True}
        found = await http.post("/v1/search", json={"query": "steel mug", "collection": "other"})
        assert found.json()["version"] == version


async def test_changes_at_once_take_turns(store: BundleStore, client: Client) -> None:
    """Eight reloads while the service follows by itself: the version is loaded once, and all say what is served."""
    second = _sealed(store, "second")
    async with client(store.folder, open=True) as http:
        before = _reloads("served")
        store.publish(second)
        answers = [one.json() for one in await asyncio.gather(*(_change(http, "reload") for _ in range(8)))]
        assert {one["version"] for one in answers} == {second}
        assert _reloads("served") == before + 1
        assert json.loads((await http.get("/v1/versions")).text)["collections"][0]["version"] == second
