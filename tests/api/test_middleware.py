"""The outermost layer: ids, the body limit, counts."""

from __future__ import annotations

import re
import string
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from fastapi import FastAPI

from app import metrics
from app.metrics import REGISTRY
from tests.api.conftest import client_of
from tests.api.stub_service import KNOWN, StubService


@pytest.mark.parametrize("given", ["abc", "A-1_2.3", "x" * 64])
async def test_a_caller_s_request_id_is_kept(client: httpx.AsyncClient, given: str) -> None:
    """In the header, the answer and the problem."""
    response = await client.post("/v1/search", json={"query": "x"}, headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, 'a"b', "a b", "é", "a\tb", "a\n"])
async def test_a_strange_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    """Nothing that would need escaping anywhere gets in."""
    headers = [(b"X-Request-ID", given.encode())]
    response = await client.post("/v1/search", json={"query": "x"}, headers=headers)
    assert response.headers["X-Request-ID"] != given
    assert response.json()["request_id"] == response.headers["X-Request-ID"]


async def test_every_answer_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    """Errors and probes too."""
    answers = [await client.get(path) for path in ("/livez", "/nope", "/v1/search?q=x", "/v1/search", "/metrics", "/")]
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)


async def test_every_answer_says_how_long_it_took(client: httpx.AsyncClient) -> None:
    """In Server-Timing: errors and streams too, and a search that names no stages."""
    paths = ("/livez", "/nope", "/v1/search", "/metrics", "/", f"/v1/products/{KNOWN}", f"/v1/products/{KNOWN}/similar")
    answers = [await client.get(path) for path in paths]
    line = {"query": "x", "candidates": [{"id": KNOWN}]}
    answers.append(await client.post("/v1/rescore", json={"items": [line]}))
    answers.append(await client.post("/v1/rescore", json=line, headers={"Content-Type": "application/x-ndjson"}))
    answers.append(await client.post("/rerank", json={"query": "x", "texts": ["y"]}))
    for answer in answers:
        assert re.search(r"(^|, )total;dur=[0-9.]+$", answer.headers["Server-Timing"]), answer.url


async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_refused(make_app: Callable[..., FastAPI]) -> None:
    """Declared or streamed."""
    body = b'{"query":"x"}'

    async def pieces(of: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(of), 5):
            yield of[at : at + 5]

    async with client_of(make_app(max_body_bytes=len(body))) as client:
        assert (await client.post("/v1/search", content=body)).status_code == 200
        assert (await client.post("/v1/search", content=pieces(body))).status_code == 200
        for more in (body + b" ", pieces(body + b" ")):
            response = await client.post("/v1/search", content=more)
            assert response.status_code == 413
            assert response.headers["Connection"] == "close"
            assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.promise(
    "S4", "declared: not a byte read; streamed: no further than the limit", control="the stream has no end"
)
async def test_an_oversized_body_is_refused_before_it_is_read(make_app: Callable[..., FastAPI]) -> None:
    """By its declared length: not a byte is asked for; one that streams is read no further than the limit."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield b"x" * 1000

    async with client_of(make_app(max_body_bytes=10_000)) as client:
        response = await client.post("/v1/search", content=endless(), headers={"Content-Length": "200000000"})
        assert (response.status_code, read) == (413, 0)
        assert (await client.post("/v1/search", content=endless())).status_code == 413
        assert read <= 11_000
        read = 0
        kinds = [("Content-Type", "application/json"), ("Content-Type", "application/x-ndjson")]
        assert (await client.post("/v1/rescore", content=endless(), headers=kinds)).status_code == 413
        assert read <= 11_000, "a body is a stream by its first Content-Type alone"


async def test_an_unread_body_does_not_change_an_answer(make_app: Callable[..., FastAPI]) -> None:
    """A route that takes no body answers as ever, and the connection is closed."""
    async with client_of(make_app(max_body_bytes=10)) as client:
        response = await client.request("GET", "/livez", content=b"x" * 100)
        assert (response.status_code, response.headers["Connection"]) == (200, "close")


async def test_a_refusal_that_leaves_a_body_unread_says_that_the_connection_ends(
    make_app: Callable[..., FastAPI],
) -> None:
    """A client would send its next request into a connection that is being closed; without a body, or once it was
    read, the connection stays."""
    async with client_of(make_app()) as client:
        for path in ("/nope", "/readyz", "/v1/versions/reload", "/v1/search?q=x"):
            response = await client.post(path, json={"query": "x"})
            assert response.status_code >= 400 and response.headers["Connection"] == "close", path
            assert "Connection" not in (await client.post(path)).headers, path
        response = await client.post("/v1/search", json={"query": ""})
        assert response.status_code == 422 and "Connection" not in response.headers


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/search/", "/V1/search", "/v1/nope/%00"])
async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    """404, without a redirect."""
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["title"] == "Not found"


async def test_a_wrong_method_is_told_the_right_ones(client: httpx.AsyncClient) -> None:
    """405 with Allow; OPTIONS asks for just that."""
    response = await client.delete("/v1/search")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert response.headers["Content-Type"] == "application/problem+json"
    options = await client.options("/v1/search")
    assert (options.status_code, options.headers["Allow"], options.content) == (204, "GET, HEAD, POST", b"")
    assert (await client.request("BREW", "/v1/search")).status_code == 405


async def test_head_answers_as_get_does(client: httpx.AsyncClient) -> None:
    """Same status and type."""
    for path in ("/v1/search?q=x", "/readyz", "/", f"/v1/products/{KNOWN}"):
        head, get = await client.head(path), await client.get(path)
        assert (head.status_code, head.headers["Content-Type"]) == (get.status_code, get.headers["Content-Type"])


def _count(**labels: str) -> float:
    return REGISTRY.get_sample_value("aisle_http_requests_total", labels) or 0.0


async def test_every_request_is_counted_once(client: httpx.AsyncClient) -> None:
    """By template, method and status; the time and the gauge agree."""
    before = _count(route="/v1/products/{id}", method="GET", status="200")
    lost = _count(route="/v1/products/{id}", method="GET", status="404")
    for path in (KNOWN, KNOWN, "gone"):
        await client.get(f"/v1/products/{path}")
    assert _count(route="/v1/products/{id}", method="GET", status="200") == before + 2
    assert _count(route="/v1/products/{id}", method="GET", status="404") == lost + 1
    assert REGISTRY.get_sample_value("aisle_http_requests_in_flight") == 0
    total = sum(s.value for m in REGISTRY.collect() for s in m.samples if s.name == "aisle_http_requests_total")
    timed = sum(
        s.value for m in REGISTRY.collect() for s in m.samples if s.name == "aisle_http_request_duration_seconds_count"
    )
    assert total == timed


async def test_nothing_a_caller_sends_adds_a_series(client: httpx.AsyncClient) -> None:
    """Random paths, methods and parameters count under labels that exist; positive control: a new route adds one."""
    for method in ("GET", "BREW"):
        await client.request(method, "/nope")
    before = _series()
    for number in range(200):
        await client.get(f"/random/{number}?a={number}")
        await client.request(f"BREW{number}", f"/{number}")
    assert _series() == before
    await client.delete("/startupz")
    assert _series() == before + 1


def _series() -> int:
    return sum(1 for metric in REGISTRY.collect() for s in metric.samples if s.name == "aisle_http_requests_total")


@pytest.mark.promise(
    "S7",
    "10,000 random requests add 0 series to all metrics",
    control="a label that was not there before is seen",
    metric="all of the registry",
)
async def test_ten_thousand_strange_requests_add_no_series_to_any_metric(make_app: Callable[..., FastAPI]) -> None:
    """Paths, query strings, methods, collections, ids, headers and keys at random, once the first thousand have met
    every route with every outcome; positive control: a label that was not there before is seen."""
    app, random = make_app(), Random(7)
    letters = string.printable.replace("\n", "") + "äß漢\u202e\x1b"

    def strange(length: int = 12) -> str:
        return "".join(random.choice(letters) for _ in range(random.randint(1, length)))

    async def ask(number: int) -> None:
        paths = ("/v1/products/{}", "/v1/search?q={}", "/v1/search?q=x&collection={}", "/{}", "/page/{}", "/v1/{}",
                 "/v1/versions/{}", "/v1/products/{}/similar", "/metrics?{}")  # fmt: skip
        target = paths[number % len(paths)].format(quote(strange()))
        method = random.choice(["GET", "HEAD", "POST", strange(6)])
        await _ask(app, method, target, [(b"x-api-key", strange().encode()), (b"x-request-id", strange().encode())])

    for number in range(1000):
        await ask(number)
    before = _all_series()
    for number in range(10_000):
        await ask(number)
    assert _all_series() - before == set()
    metrics.AUTH_REFUSED.labels("never").inc()
    assert _all_series() - before == {("aisle_auth_refused_total", "never"), ("aisle_auth_refused_created", "never")}
    metrics.AUTH_REFUSED.remove("never")


async def _ask(app: FastAPI, method: str, target: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Straight into the application, as uvicorn hands a request over."""
    path, _, query = target.partition("?")
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
             "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
             "headers": headers, "client": ("127.0.0.1", 1), "server": ("edge", 80)}  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        pass

    await app(scope, receive, send)


def _all_series() -> set[tuple[str, ...]]:
    return {(s.name, *s.labels.values()) for metric in REGISTRY.collect() for s in metric.samples}


async def test_a_failed_request_leaves_the_gauge_at_zero(client: httpx.AsyncClient, service: StubService) -> None:
    """Whatever happens inside."""
    service.fail = RuntimeError()
    await client.post("/v1/search", json={"query": "x"})
    assert REGISTRY.get_sample_value("aisle_http_requests_in_flight") == 0
