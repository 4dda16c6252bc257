"""`/v1/rescore`: batches and streams, where one item never fails another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api import ndjson
from app.api.schemas import MAX_LINE_BYTES, MAX_PAIRS
from app.errors import Overloaded
from app.types import RescoreCandidate, RescoreItem
from tests.api.conftest import client_of
from tests.api.stub_service import KNOWN, VERSION, StubService, score_of

NDJSON = {"Content-Type": "application/x-ndjson"}


def item(query: str, *candidates: dict[str, str]) -> dict[str, Any]:
    return {"query": query, "candidates": list(candidates)}


def written(*items: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in items)


def read(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.content.splitlines()]


async def test_a_batch_is_scored_item_by_item(client: httpx.AsyncClient, service: StubService) -> None:
    """Results in the candidates' order; an unknown product is an error of that candidate."""
    body = {"items": [item("q", {"id": KNOWN}, {"id": "gone"}), item("r", {"text": "eee"})]}
    response = await client.post("/v1/rescore", json=body)
    assert response.status_code == 200
    answer = response.json()
    assert answer["version"] == VERSION
    assert [one["results"] for one in answer["items"]] == [
        [{"index": 0, "score": 0.93}, {"index": 1, "error": "unknown product"}],
        [{"index": 0, "score": score_of("eee"), "missing_fields": ["brand"]}],
    ]
    assert service.rescored[0] == (
        RescoreItem("q", (RescoreCandidate(id=KNOWN), RescoreCandidate(id="gone"))), "default", "default",
    )  # fmt: skip


async def test_an_item_that_fails_leaves_the_others_alone(client: httpx.AsyncClient) -> None:
    """Its place holds the problem; nothing of an unexpected failure is shown."""
    body = {"items": [item("refused"), item("broken"), item("q", {"id": KNOWN})]}
    answer = (await client.post("/v1/rescore", json=body)).json()
    assert [one.get("error", {}).get("status") for one in answer["items"]] == [422, 500, None]
    assert "secret" not in json.dumps(answer)


async def test_a_batch_of_which_nothing_could_be_scored_is_an_error(client: httpx.AsyncClient) -> None:
    """Then the request failed, with its first item's reason."""
    unknown = await client.post("/v1/rescore", json={"items": [item("q")], "collection": "other"})
    assert unknown.status_code == 404
    assert (await client.post("/v1/rescore", json={"items": [item("refused")] * 2})).status_code == 422
    assert (await client.post("/v1/rescore", json={"items": [item("broken")]})).status_code == 500


async def test_a_batch_beyond_a_thousand_pairs_is_told_to_stream(client: httpx.AsyncClient) -> None:
    """At the limit served, one beyond 413 with advice."""
    full = [item("q", *[{"id": KNOWN}] * (MAX_PAIRS // 2))] * 2
    assert (await client.post("/v1/rescore", json={"items": full})).status_code == 200
    response = await client.post("/v1/rescore", json={"items": [*full, item("q", {"id": KNOWN})]})
    assert response.status_code == 413
    assert "x-ndjson" in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"items": [{"query": "q"}]},
        {"items": [item("")]},
        {"items": [item("q", {})]},
        {"items": [item("q", {"id": "a", "text": "b"})]},
        {"items": [item("q", {"id": ""})]},
        {"items": [item("q", {"text": ""})]},
        {"items": [item("q", {"id": "a", "nope": "b"})]},
        {"items": [item("q")], "nope": 1},
    ],
)
async def test_a_wrong_batch_is_refused(client: httpx.AsyncClient, body: Any) -> None:
    """A candidate has exactly one form, and nothing is left over."""
    assert (await client.post("/v1/rescore", json=body)).status_code == 422


async def test_an_answer_holds_one_version_when_another_is_published_meanwhile(
    client: httpx.AsyncClient, service: StubService
) -> None:
    """What the old version scored is scored again by the new one."""
    calls: list[str] = []

    def version_of(one: RescoreItem) -> str:
        calls.append(one.query)
        return "old" if len(calls) == 1 else "new"

    service.version_of = version_of
    answer = (await client.post("/v1/rescore", json={"items": [item("a"), item("b")]})).json()
    assert calls == ["a", "b", "a"]
    assert answer["version"] == "new"
    assert [one["version"] for one in answer["items"]] == ["new", "new"]


async def test_each_line_of_a_stream_is_answered_in_order(client: httpx.AsyncClient, service: StubService) -> None:
    """More lines than are in flight at once; blank ones are skipped, the last needs no line end."""
    count = 5 * ndjson.LINES_IN_FLIGHT
    body = b"\r\n \n" + written(*(item(f"q{n}", {"text": "e" * n + "x"}) for n in range(count))).rstrip()
    response = await client.post("/v1/rescore?profile=fast", content=body, headers=NDJSON)
    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert [line["results"][0]["score"] for line in read(response)] == [score_of("e" * n + "x") for n in range(count)]
    assert {(collection, profile) for _, collection, profile in service.rescored} == {("default", "fast")}
    assert service.most_running <= ndjson.LINES_IN_FLIGHT


async def test_a_line_that_fails_is_answered_on_its_line(client: httpx.AsyncClient) -> None:
    """Malformed, invalid, oversized, refused and broken lines each get their problem; the rest is scored."""
    lines = [
        written(item("q", {"id": KNOWN})), b"nope\n", written({"query": 1}), b"\xff\n", written(item("refused")),
        written(item("broken")), written(item("q", *[{"id": KNOWN}] * (MAX_PAIRS + 1))),
        b'"' + b"x" * MAX_LINE_BYTES + b'"\n', written(item("q", {"id": KNOWN})),
    ]  # fmt: skip
    answers = read(await client.post("/v1/rescore", content=b"".join(lines), headers=NDJSON))
    assert [one.get("error", {}).get("status") for one in answers] == [None, 400, 422, 400, 422, 500, 413, 413, None]
    assert "secret" not in json.dumps(answers)


async def test_a_refused_line_does_not_end_the_stream(client: httpx.AsyncClient, service: StubService) -> None:
    """Overload is an answer like another."""
    service.fail = Overloaded("full")
    answers = read(await client.post("/v1/rescore", content=written(item("a"), item("b")), headers=NDJSON))
    assert [one["error"]["status"] for one in answers] == [429, 429]


async def test_a_stream_may_be_larger_than_any_body(make_app: Callable[..., FastAPI]) -> None:
    """The body limit is for bodies that are held; positive control: the same bytes as JSON are refused."""
    body = written(*[item("q", {"text": "x" * 500})] * 50)
    async with client_of(make_app(max_body_bytes=1000)) as client:
        assert len(read(await client.post("/v1/rescore", content=body, headers=NDJSON))) == 50
        assert (await client.post("/v1/rescore", content=body)).status_code == 413
        assert (await client.post("/v1/search", content=body, headers=NDJSON)).status_code in (400, 413)


@pytest.mark.parametrize("query_string", ["nope=1", "collection=", "profile=a&profile=b"])
async def test_a_stream_s_query_string_is_strict(client: httpx.AsyncClient, query_string: str) -> None:
    """Before a line is read."""
    response = await client.post(f"/v1/rescore?{query_string}", content=written(item("q")), headers=NDJSON)
    assert response.status_code == 422


async def test_a_stream_before_the_service_has_started_is_refused(
    client: httpx.AsyncClient, service: StubService
) -> None:
    """503 for the whole, instead of one a line."""
    service.started = False
    assert (await client.post("/v1/rescore", content=written(item("q")), headers=NDJSON)).status_code == 503


async def test_an_answer_leaves_before_the_next_line_comes(make_app: Callable[..., FastAPI]) -> None:
    """A client that waits for each answer before it writes on is served: no batch, no timer, no deadlock."""
    exchange = Exchange()
    serving = asyncio.create_task(make_app()(exchange.scope, exchange.receive, exchange.send))
    for number in range(3):
        exchange.write(written(item("q", {"text": "e" * (number + 1)})))
        answer = json.loads(await exchange.next_body())
        assert answer["results"][0]["score"] == score_of("e" * (number + 1))
    exchange.end()
    assert await exchange.next_body() == b""
    await serving


async def test_a_client_that_does_not_read_holds_no_more_than_the_window(
    make_app: Callable[..., FastAPI], service: StubService
) -> None:
    """Reading rests while nothing is read: memory is bounded by the lines in flight."""
    exchange = Exchange(reads=False)
    serving = asyncio.create_task(make_app()(exchange.scope, exchange.receive, exchange.send))
    for number in range(100):
        exchange.write(written(item(f"q{number}")))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert len(service.rescored) <= ndjson.LINES_IN_FLIGHT
    exchange.may_read.set()
    exchange.end()
    await serving
    assert len(service.rescored) == 100


async def test_a_stalled_reader_is_told_why_it_is_cut_off(make_app: Callable[..., FastAPI]) -> None:
    """The server's protocol marks the request; the stream ends with advice as its last line."""
    exchange = Exchange()
    exchange.scope["state"][ndjson.STALLED] = True
    exchange.write(written(item("a"), item("b"), item("c")))
    await make_app()(exchange.scope, exchange.receive, exchange.send)
    lines = b"".join(exchange.bodies).splitlines()
    assert len(lines) == 2
    assert "read them while you write" in json.loads(lines[-1])["error"]["detail"]


async def test_a_client_that_stops_writing_is_cut_off(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line must be complete within its time; what came before is answered."""
    monkeypatch.setattr(ndjson, "LINE_WITHIN_S", 0.05)
    exchange = Exchange()
    exchange.write(written(item("a")) + b'{"query"')
    await asyncio.wait_for(make_app()(exchange.scope, exchange.receive, exchange.send), 5)
    lines = b"".join(exchange.bodies).splitlines()
    assert "results" in json.loads(lines[0])
    assert json.loads(lines[1])["error"]["status"] == 504


async def test_a_stream_whose_client_is_gone_ends(make_app: Callable[..., FastAPI], service: StubService) -> None:
    """What is under way is cancelled, and nothing more is read."""
    service.hold = asyncio.Event()
    exchange = Exchange()
    exchange.write(written(item("a"), item("b")))
    serving = asyncio.create_task(make_app()(exchange.scope, exchange.receive, exchange.send))
    await service.until_running(2)
    exchange.leave()
    await asyncio.wait_for(serving, 5)
    await asyncio.sleep(0)
    assert service.running == 0
    assert service.cancelled == 2


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
async def test_lines_do_not_depend_on_how_they_arrive(size: int) -> None:
    """Cut anywhere, the same lines come out; an oversized one comes out as None and is not held."""
    whole = b'{"a":1}\n\n{"b":"\xc3\xa9"}\r\n' + b"last"
    got = [line async for line in ndjson.lines(_pieces(whole[at : at + size] for at in range(0, len(whole), size)))]
    assert got == [b'{"a":1}', b'{"b":"\xc3\xa9"}\r', b"last"]


async def test_an_oversized_line_is_one_line() -> None:
    """However long it is, in however many pieces."""
    pieces = [b"a\n", *[b"x" * 65536] * (MAX_LINE_BYTES // 65536 + 3), b"y\nb"]
    assert [line async for line in ndjson.lines(_pieces(pieces))] == [b"a", None, b"b"]


def _pieces(pieces: Iterable[bytes]) -> Callable[[], Any]:
    async def messages() -> AsyncIterator[dict[str, Any]]:
        for piece in pieces:
            yield {"type": "http.request", "body": piece, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    stream = messages()
    return stream.__anext__


class Exchange:
    """One streamed request, written and read by hand."""

    def __init__(self, *, reads: bool = True) -> None:
        self.scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": "/v1/rescore", "raw_path": b"/v1/rescore", "query_string": b"",
            "headers": [(b"content-type", b"application/x-ndjson"), (b"transfer-encoding", b"chunked")],
            "root_path": "", "state": {},
        }  # fmt: skip
        self.bodies: list[bytes] = []
        self.may_read = asyncio.Event()
        if reads:
            self.may_read.set()
        self._written: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()

    def write(self, body: bytes) -> None:
        self._written.put_nowait({"type": "http.request", "body": body, "more_body": True})

    def end(self) -> None:
        self._written.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def leave(self) -> None:
        self._written.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self._written.get()

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await self.may_read.wait()
            self.bodies.append(message["body"])
            self._sent.put_nowait(message["body"])

    async def next_body(self) -> bytes:
        return await asyncio.wait_for(self._sent.get(), 5)
