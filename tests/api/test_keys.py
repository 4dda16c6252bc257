"""API keys at the door: who comes in, who does not and why, and what a change of the file does."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from app.api import keyfile, keys
from app.api.access import ADMIN, LISTING, OPEN, SCRAPE, SEARCH, WRITE, Access
from app.api.endpoint import Endpoint, route
from app.api.install import _routes
from app.api.keyfile import KeyFileError, expiry, line_of, new_key
from app.api.keys import Keys
from app.api.options import EdgeOptions
from app.metrics import REGISTRY
from tests.api.conftest import client_of, edge_app
from tests.api.stub_service import StubService

_SCOPES = {"search": "search", "write": "write", "admin": "admin", "both": "search,write"}


class Ring:
    """A file of keys and the keys themselves, one for each scope."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[str, str] = {}
        for name, scopes in _SCOPES.items():
            self.add(name, scopes)

    def add(self, name: str, scopes: str, expires: str | None = None) -> str:
        key = self.keys[name] = new_key()
        keyfile.append(self.path, line_of(name, frozenset(scopes.split(",")), key, expires))
        return key


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path / "keys")


@pytest.fixture
async def locked(service: StubService, ring: Ring) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that asks for keys; it brings none of itself."""
    async with client_of(edge_app(service, docs=True, keys_file=ring.path)) as http:
        yield http


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _refused(reason: str) -> float:
    return REGISTRY.get_sample_value("aisle_auth_refused_total", {"reason": reason}) or 0.0


def _accesses(**options: Any) -> dict[tuple[str, str], Access]:
    """(path, method) → access, of every route of an application."""
    endpoints = [one.endpoint for one in _routes(EdgeOptions(**options)) if isinstance(one, Route)]
    assert endpoints and all(isinstance(one, Endpoint) for one in endpoints)
    return {(one.path, method): access for one in endpoints for method, access in one.access.items()}


def test_every_route_says_who_may_call_it() -> None:
    """Search routes `search`, changes of products `write`, changes of versions `admin`; open is what shows nothing
    secret. A route without an access cannot be written."""
    for (path, method), access in _accesses(docs=True).items():
        if path in ("/", "/page/{name}", "/livez", "/readyz", "/startupz", "/docs", "/openapi.json"):
            assert access == OPEN, path
        elif path == "/metrics":
            assert access == SCRAPE
        elif path == "/v1/versions":
            assert access == LISTING
        elif path.startswith("/v1/versions/"):
            assert access == ADMIN
        elif path.startswith("/v1/products") and method in ("PUT", "PATCH", "DELETE"):
            assert access == WRITE
        else:
            assert path.startswith(("/v1/", "/v2/", "/rerank")), path
            assert access == SEARCH, path
    with pytest.raises(TypeError):
        route("/v1/more", get=_handler)  # type: ignore[call-arg]


async def _handler(request: Any) -> Any:
    raise AssertionError


def test_the_methods_of_a_path_may_differ_in_who_may_call_them() -> None:
    """HEAD is GET's; a method without an access cannot be declared."""
    one = route("/v1/products/{id}", {"get": SEARCH, "delete": WRITE}, get=_handler, delete=_handler).endpoint
    assert isinstance(one, Endpoint)
    assert one.access == {"GET": SEARCH, "HEAD": SEARCH, "DELETE": WRITE}
    with pytest.raises(KeyError):
        route("/v1/products/{id}", {"get": SEARCH}, get=_handler, put=_handler)


@pytest.mark.promise("S8", "401, told how a key is sent", metric="aisle_auth_refused_total by its reason")
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "missing"),
        ({"Authorization": "Bearer"}, "missing"),
        ({"Authorization": "Bearer  "}, "missing"),
        ({"X-API-Key": ""}, "missing"),
        ({"Authorization": "Bearer aisle_0"}, "unknown"),
        ({"X-API-Key": "aisle_0"}, "unknown"),
        ({"Authorization": "Bearer " + "x" * 10_000}, "unknown"),
        ({"Authorization": b"Bearer \xff\xfe"}, "unknown"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/search?q=x", "/v1/products/B07CXG6C9W", "/v1/versions", "/metrics"])
async def test_without_a_key_that_counts_nothing_is_answered(
    locked: httpx.AsyncClient, path: str, headers: Any, reason: str
) -> None:
    """401 as a problem that says how a key is sent, counted by its reason."""
    before = _refused(reason)
    response = await locked.get(path, headers=headers)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["title"] == "Unauthorized"
    assert _refused(reason) == before + 1


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_foreign_shapes_are_refused_in_their_own_form(locked: httpx.AsyncClient, ring: Ring, path: str) -> None:
    """Their clients send Bearer, too, and are let in by it."""
    body = {"query": "x", "documents": ["y"], "texts": ["y"]}
    refused = await locked.post(path, json=body)
    assert refused.status_code == 401 and {"message", "error"} & set(refused.json())
    assert (await locked.post(path, json=body, headers=_bearer(ring.keys["search"]))).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/livez", "/readyz", "/startupz", "/docs", "/openapi.json"])
async def test_what_shows_nothing_secret_stays_open(locked: httpx.AsyncClient, path: str) -> None:
    """Probes, the page and the reference, also to somebody with a wrong key."""
    assert (await locked.get(path)).status_code == 200
    assert (await locked.get(path, headers=_bearer("wrong"))).status_code == 200


@pytest.mark.promise(
    "S8",
    "200 with the scope, 403 without",
    control="every route is tried with every key",
    metric="aisle_auth_refused_total{reason=scope}",
)
@pytest.mark.parametrize(
    ("method", "path", "let_in"),
    [
        ("GET", "/v1/search?q=x", {"search", "both"}),
        ("HEAD", "/v1/search?q=x", {"search", "both"}),
        ("GET", "/v1/collections", {"search", "both"}),
        ("GET", "/v1/products/B07CXG6C9W", {"search", "both"}),
        ("GET", "/v1/versions", {"search", "both", "admin"}),
        ("POST", "/v1/versions/reload", {"admin"}),
        ("POST", "/v1/versions/rollback", {"admin"}),
        ("GET", "/metrics", {"admin"}),
    ],
)
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_opens_what_its_scopes_say(
    locked: httpx.AsyncClient, ring: Ring, method: str, path: str, let_in: set[str], header: str
) -> None:
    """200 with the scope, 403 without it, never 401."""
    for name, key in ring.keys.items():
        before = _refused("scope")
        response = await locked.request(method, path, headers={header: f"bearer {key}" if header[0] == "A" else key})
        assert response.status_code == (200 if name in let_in else 403), name
        assert _refused("scope") == before + (name not in let_in)


async def test_a_refusal_comes_before_the_body(locked: httpx.AsyncClient) -> None:
    """Not a byte of it is asked for."""
    asked = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        asked += 1
        yield b"{}"

    for path in ("/v1/search", "/v1/rescore", "/v1/versions/rollback"):
        assert (await locked.post(path, content=body())).status_code == 401
    assert asked == 0
    ring_less = Keys(None, is_open=True)
    ring_less.admit(WRITE, [])  # positive control: where nothing is asked for, the body is
    async with client_of(edge_app(StubService())) as open_client:
        await open_client.post("/v1/search", content=body())
    assert asked == 1


@pytest.mark.promise(
    "S8",
    "expired 401, not yet expired 200",
    control="both kinds in one file",
    metric="aisle_auth_refused_total{reason=expired}",
)
async def test_an_expired_key_is_refused_and_one_that_is_not_yet_is_let_in(service: StubService, ring: Ring) -> None:
    """Dates count to their end, datetimes to their second, in UTC where they name no zone."""
    over = [ring.add("past", "search", when) for when in ("2020-01-01", "2020-01-01T10:00:00+02:00")]
    good = [ring.add("future", "search", when) for when in ("2999-01-01", "2999-01-01T00:00:00Z")]
    async with client_of(edge_app(service, keys_file=ring.path)) as http:
        before = _refused("expired")
        for key in over:
            response = await http.get("/v1/search?q=x", headers=_bearer(key))
            assert response.status_code == 401 and "expired" in response.json()["detail"]
        assert _refused("expired") == before + len(over)
        for key in good:
            assert (await http.get("/v1/search?q=x", headers=_bearer(key))).status_code == 200
    assert expiry("1970-01-01") == 86_400
    assert expiry("1970-01-01T00:01:00") == expiry("1970-01-01T02:01:00+02:00") == 60


@pytest.mark.promise(
    "S8", "two keys count during a rotation, then the new one alone", control="the old one is 401 afterwards"
)
async def test_a_key_is_rotated_without_a_pause(
    service: StubService, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new key is added and both count; the old one's line is taken out, and the new one alone does."""
    monkeypatch.setattr(keys, "_LOOK_EVERY_S", 0.0)
    async with client_of(edge_app(service, keys_file=ring.path)) as http:

        async def statuses(*given: str) -> list[int]:
            return [(await http.get("/v1/search?q=x", headers=_bearer(key))).status_code for key in given]

        old = ring.keys["search"]
        assert await statuses(old) == [200]
        new = ring.add("search", "search")
        assert await statuses(old, new) == [200, 200]
        gone = keyfile.digest_of(old.encode()).hex()
        left = [line for line in ring.path.read_text().splitlines() if gone not in line]
        ring.path.write_text("\n".join(left))
        assert await statuses(old, new) == [401, 200]


def _reads(outcome: str) -> float:
    return REGISTRY.get_sample_value("aisle_key_file_reads_total", {"outcome": outcome}) or 0.0


@pytest.mark.parametrize("broken", ["", "# none\n", "shop search nonsense", b"\xff\xfe", None])
async def test_a_file_that_broke_keeps_the_keys_before_it(
    service: StubService, ring: Ring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: Any
) -> None:
    """Whether empty, half written or gone: one line in the log, one step of the metric, and nobody is locked out; the
    next good file is taken up."""
    monkeypatch.setattr(keys, "_LOOK_EVERY_S", 0.0)
    whole = ring.path.read_text()
    async with client_of(edge_app(service, keys_file=ring.path)) as http:
        before = _reads("refused"), _reads("read")
        if broken is None:
            ring.path.unlink()
        else:
            ring.path.write_bytes(broken.encode() if isinstance(broken, str) else broken)
        for _ in range(3):
            assert (await http.get("/v1/search?q=x", headers=_bearer(ring.keys["search"]))).status_code == 200
        assert (_reads("refused"), _reads("read")) == (before[0] + 1, before[1])
        assert len([one for one in caplog.records if one.name == "aisle.keys"]) == 1
        ring.path.write_text(whole.replace(whole.splitlines()[0] + "\n", ""))
        assert (await http.get("/v1/search?q=x", headers=_bearer(ring.keys["search"]))).status_code == 401
        assert _reads("read") == before[1] + 1


def test_the_file_is_looked_at_once_a_second_at_most(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests come; what changed is seen at the first look after."""
    now, looks = 1000.0, 0
    whole = keys._signature

    def counted(path: Path) -> Any:
        nonlocal looks
        looks += 1
        return whole(path)

    monkeypatch.setattr(keys, "monotonic", lambda: now)
    monkeypatch.setattr(keys, "_signature", counted)
    asked = Keys(ring.path)
    assert looks == 1
    headers = [(b"authorization", b"Bearer " + ring.keys["search"].encode())]
    for _ in range(10_000):
        asked.admit(SEARCH, headers)
        now += 0.001
    assert 9 <= looks - 1 <= 10


@pytest.mark.promise(
    "S8", "as many comparisons for the first key, the last and none", control="comparisons are counted"
)
def test_every_key_is_compared_to_the_end_and_in_constant_time(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many comparisons for the first key, the last and none; digests are compared, never the keys."""
    compared: list[tuple[bytes, bytes]] = []

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(keys, "compare_digest", noted)
    asked = Keys(ring.path)
    counts = []
    for given in [*ring.keys.values(), "aisle_unknown"]:
        compared.clear()
        asked._find(given.encode())
        counts.append(len(compared))
        assert all(len(one) == len(other) == 32 for one, other in compared)
    assert counts == [len(ring.keys)] * (len(ring.keys) + 1)


@pytest.mark.promise("S8", "nothing of a key is stored", control="its digest is")
def test_only_digests_are_stored(ring: Ring) -> None:
    """Nothing of a key is in the file, which is for its owner alone; a key has 32 random bytes."""
    text = ring.path.read_text()
    for key in ring.keys.values():
        assert key not in text and key.removeprefix("aisle_") not in text
        assert keyfile.digest_of(key.encode()).hex() in text
        assert key.startswith("aisle_") and len(key) >= len("aisle_") + 43
    assert ring.path.stat().st_mode & 0o777 == 0o600
    assert len({new_key() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key"),
        ("shop search", "line 1"),
        (f"shop search {'a' * 64} 2027-01-01 more", "line 1"),
        (f"# x\nsh*p search {'a' * 64}", "line 2"),
        (f"shop read {'a' * 64}", "scopes"),
        (f"shop search, {'a' * 64}", "scopes"),
        (f"shop search {'A' * 64}", "64 hex"),
        (f"shop search {'a' * 64} 2027-13-01", "expiry"),
        (f"shop search {'a' * 64} soon", "expiry"),
        (f"a search {'a' * 64}\nb admin {'a' * 64}", "twice"),
        ("\n".join(f"n{n} search {n:064x}" for n in range(1001)), "at most"),
    ],
)
def test_a_file_that_is_none_is_refused_and_not_repeated(tmp_path: Path, text: str, said: str) -> None:
    """The line is named; what it holds may be a key, so it is not."""
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=said) as refused:
        keyfile.read(path)
    assert "a" * 64 not in refused.value.detail and "A" * 64 not in refused.value.detail
    with pytest.raises(KeyFileError, match="AISLE_API_KEYS_FILE"):
        Keys(path)


def test_comments_and_blank_lines_are_skipped() -> None:
    """Also behind a key."""
    (key,) = keyfile.parse(f"# keys\n\n  shop  search,admin {'0' * 64}  # the shop's\r\n")
    assert (key.name, key.scopes, key.digest) == ("shop", {"search", "admin"}, bytes(32))


def test_a_file_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """A folder, or nothing at all."""
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(KeyFileError):
            Keys(path)


def test_a_line_is_appended_whole_and_what_was_there_stays(tmp_path: Path) -> None:
    """Comments, a missing line end, the mode and a link to the file; a file that is none is left as it is."""
    path, link = tmp_path / "real" / "keys", tmp_path / "link"
    path.parent.mkdir()
    path.write_text(f"# mine\nshop search {'0' * 64}")
    path.chmod(0o640)
    link.symlink_to(path)
    line = line_of("more", frozenset(("admin",)), new_key())
    keyfile.append(link, line)
    assert path.read_text() == f"# mine\nshop search {'0' * 64}\n{line}\n"
    assert path.stat().st_mode & 0o777 == 0o640 and link.is_symlink()
    path.write_text("nonsense")
    with pytest.raises(KeyFileError):
        keyfile.append(path, line)
    assert path.read_text() == "nonsense"
    assert [one.name for one in path.parent.iterdir()] == ["keys"]


async def test_lines_appended_at_once_are_all_kept(tmp_path: Path) -> None:
    """Sixteen at the same time."""
    lines = [line_of(f"n{number}", frozenset(("search",)), new_key()) for number in range(16)]
    await asyncio.gather(*(asyncio.to_thread(keyfile.append, tmp_path / "keys", line) for line in lines))
    assert sorted((tmp_path / "keys").read_text().splitlines()) == sorted(lines)


@asynccontextmanager
async def _unkeyed(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(edge_app(StubService(), **options)) as http:
        yield http


async def test_without_a_file_searching_is_open_and_administration_is_closed() -> None:
    """403 with what to set; `is_open` lets programs in, and no page of a browser."""
    async with _unkeyed() as http:
        for path in ("/v1/search?q=x", "/v1/versions", "/metrics"):
            assert (await http.get(path)).status_code == 200
            assert (await http.get(path, headers=_bearer("any"))).status_code == 200
        before = _refused("closed")
        for path in ("/v1/versions/reload", "/v1/versions/rollback"):
            response = await http.post(path, headers=_bearer("any"))
            assert response.status_code == 403
            assert "AISLE_API_KEYS_FILE" in response.json()["detail"] and "AISLE_OPEN" in response.json()["detail"]
        assert _refused("closed") == before + 2
    async with _unkeyed(is_open=True) as http:
        assert (await http.post("/v1/versions/rollback")).status_code == 200
        for header in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await http.post("/v1/versions/rollback", headers=header)).status_code == 403
            assert (await http.get("/v1/search?q=x", headers=header)).status_code == 200


async def test_a_file_of_keys_outweighs_an_open_service(ring: Ring) -> None:
    """Both set: keys are asked for."""
    async with _unkeyed(is_open=True, keys_file=ring.path) as http:
        assert (await http.post("/v1/versions/rollback")).status_code == 401
        assert (await http.post("/v1/versions/rollback", headers=_bearer(ring.keys["admin"]))).status_code == 200


@pytest.mark.promise("S10", "no key in an answer or the log", control="the log tells of each failure")
async def test_no_key_is_ever_in_the_log_or_an_answer(
    service: StubService, ring: Ring, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good, unknown or put where its digest belongs, also where a handler fails; the log is not empty."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(keys, "_LOOK_EVERY_S", 0.0)
    given = [*ring.keys.values(), "aisle_unknown-to-this-service"]
    async with client_of(edge_app(service, keys_file=ring.path, log_queries=True)) as http:
        for fail in (None, RuntimeError("x")):
            service.fail = fail
            for key in given:
                for headers in (_bearer(key), {"X-API-Key": key}):
                    for path in ("/v1/search?q=x", "/v1/versions/reload", "/nope"):
                        response = await http.request("POST" if "reload" in path else "GET", path, headers=headers)
                        assert not any(one in response.text for one in given)
        service.fail = None
        ring.path.write_text(f"shop search {given[0]}\n")
        assert (await http.get("/v1/search?q=x", headers=_bearer(given[0]))).status_code == 200
    assert "was refused" in caplog.text and "failed with RuntimeError" in caplog.text
    assert not any(one in caplog.text for one in given)


def test_the_document_names_the_keys(make_app: Callable[..., Any], ring: Ring) -> None:
    """Both ways to send one; where keys are asked for, which scopes an operation takes."""
    schemes = make_app().openapi()["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer" and schemes["header"]["name"] == "X-API-Key"
    paths = make_app(keys_file=ring.path).openapi()["paths"]
    assert paths["/v1/search"]["post"]["security"] == [{"bearer": ["search"]}, {"header": ["search"]}]
    assert paths["/v1/versions"]["get"]["security"][0] == {"bearer": ["admin", "search"]}
    assert "security" not in paths["/livez"]["get"]
    assert {"401", "403"} <= set(paths["/v1/versions/rollback"]["post"]["responses"])
    assert "security" not in make_app().openapi()["paths"]["/v1/search"]["post"]
