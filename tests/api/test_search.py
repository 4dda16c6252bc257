"""`/v1/search` at the edge: what is understood, what is refused, what every answer carries."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api import schemas
from app.api.problems import problem
from app.errors import BadInput, DeadlineExceeded, EncoderUnavailable, Overloaded, Unavailable
from app.types import SearchRequest, Sort
from tests.api.conftest import client_of
from tests.api.stub_service import TAIL, StubService


async def test_the_whole_request_reaches_the_service(client: httpx.AsyncClient, service: StubService) -> None:
    """Every member of the contract's example is understood and handed on."""
    asked = {
        "query": "wireless headphones", "k": 20, "offset": 5,
        "filter": {"all": [{"field": "brand", "in": ["Sony"]}]},
        "facets": ["brand"], "sort": None, "profile": "fast", "timeout_ms": 50, "explain": True,
        "fields": ["title"], "collection": "default", "context": {"recent_product_ids": ["B07CXG6C9W"]},
    }  # fmt: skip
    response = await client.post("/v1/search", json=asked)
    assert response.status_code == 200
    assert service.searched == [
        SearchRequest(
            "wireless headphones", 20, 5, asked["filter"], ("brand",), (), "fast", 50.0, True, ("title",), "default"
        )
    ]


async def test_an_answer_is_three_members_and_then_the_service_s_own_bytes(client: httpx.AsyncClient) -> None:
    """`request_id`, `took_ms` and `cached` come first, the rest is not touched."""
    response = await client.post("/v1/search", json={"query": "x"})
    head = response.content[: -len(TAIL)]
    assert re.fullmatch(rb'\{"request_id":"[0-9a-f]+","took_ms":\d+\.\d{3},"cached":false,', head)
    assert response.content.endswith(TAIL)
    assert response.json()["request_id"] == response.headers["X-Request-ID"]
    assert response.headers["Server-Timing"] == "lexical;dur=0.210, total;dur=0.500"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, ()),
        ("price", (Sort("price"),)),
        ("-price", (Sort("price", True),)),
        ({"field": "price", "order": "desc"}, (Sort("price", True),)),
        (["brand", {"field": "price"}, "-stock"], (Sort("brand"), Sort("price"), Sort("stock", True))),
    ],
)
async def test_sort_takes_names_keys_and_lists(
    client: httpx.AsyncClient, service: StubService, given: Any, meant: tuple[Sort, ...]
) -> None:
    """A leading minus and `order: desc` mean the same."""
    assert (await client.post("/v1/search", json={"query": "x", "sort": given})).status_code == 200
    assert service.searched[0].sort == meant


async def test_a_query_string_is_a_search(client: httpx.AsyncClient, service: StubService) -> None:
    """GET understands what fits into an address."""
    response = await client.get(
        "/v1/search?q=caf%C3%A9+cup&k=7&offset=3&collection=default&profile=p&prefix=true&explain=false&timeout_ms=20.5"
    )
    assert response.status_code == 200
    assert service.searched == [SearchRequest("café cup", 7, 3, profile="p", timeout_ms=20.5, prefix=True)]


@pytest.mark.parametrize(
    "query_string",
    ["", "q=", "q=%20", "k=5", "q=x&k=0", "q=x&k=201", "q=x&k=7.0", "q=x&k=1_0", "q=x&k=+7", "q=x&k=", "q=x&k=\u0667",
     "q=x&offset=-1", "q=x&prefix=yes", "q=x&prefix=1", "q=x&timeout_ms=nan", "q=x&timeout_ms=1e3", "q=x&nope=1",
     "q=x&q=y", "q=x&query=y", "q=x&collection=a%20b", "q=x&" + "&".join(f"p{n}=1" for n in range(40))],
)  # fmt: skip
async def test_a_wrong_query_string_is_refused(
    client: httpx.AsyncClient, service: StubService, query_string: str
) -> None:
    """Unknown, repeated, converted and out-of-range parameters are 422."""
    assert (await client.get(f"/v1/search?{query_string}")).status_code == 422
    assert service.searched == []


async def test_a_query_string_that_is_no_utf8_is_malformed(client: httpx.AsyncClient) -> None:
    """Half a character is 400, not a guess."""
    assert (await client.get("/v1/search?q=%C3")).status_code == 400


async def test_a_filter_without_a_query_browses(client: httpx.AsyncClient, service: StubService) -> None:
    """No query is needed where there is a filter."""
    response = await client.post("/v1/search", json={"filter": {"field": "brand", "in": ["Sony"]}})
    assert response.status_code == 200
    assert service.searched[0].query is None


@pytest.mark.parametrize("query", ["", " ", "\t\n", "\u3000\u00a0", "\x00\x07", None])
async def test_an_empty_query_is_invalid(client: httpx.AsyncClient, service: StubService, query: str | None) -> None:
    """White space and controls are no query, and neither is none where there is no filter."""
    assert (await client.post("/v1/search", json={"query": query})).status_code == 422
    assert service.searched == []


LIMITS: list[tuple[str, Any, Any]] = [
    ("query", "x" * schemas.MAX_QUERY_CHARACTERS, "x" * (schemas.MAX_QUERY_CHARACTERS + 1)),
    ("k", schemas.MAX_K, schemas.MAX_K + 1),
    ("k", 1, 0),
    ("offset", schemas.MAX_OFFSET, schemas.MAX_OFFSET + 1),
    ("offset", 0, -1),
    ("facets", ["brand"] * schemas.MAX_FACETS, ["brand"] * (schemas.MAX_FACETS + 1)),
    ("sort", ["price"] * schemas.MAX_SORTS, ["price"] * (schemas.MAX_SORTS + 1)),
    ("fields", ["title"] * schemas.MAX_FIELDS, ["title"] * (schemas.MAX_FIELDS + 1)),
    ("timeout_ms", schemas.MAX_TIMEOUT_MS, schemas.MAX_TIMEOUT_MS + 1),
    ("timeout_ms", schemas.MIN_TIMEOUT_MS, 0.5),
    ("profile", "p" * 64, "p" * 65),
    ("context", {"recent_product_ids": ["a"] * schemas.MAX_RECENT_PRODUCTS},
     {"recent_product_ids": ["a"] * (schemas.MAX_RECENT_PRODUCTS + 1)}),
]  # fmt: skip


@pytest.mark.promise("S6", "at the limit 200, one beyond 422, named", control="each limit is tried from both sides")
@pytest.mark.parametrize(("name", "most", "beyond"), LIMITS)
async def test_limits_hold_at_the_limit_and_one_beyond(
    client: httpx.AsyncClient, name: str, most: Any, beyond: Any
) -> None:
    """The limit itself is served, one more is 422 and named."""
    assert (await client.post("/v1/search", json={"query": "x", name: most})).status_code == 200
    response = await client.post("/v1/search", json={"query": "x", name: beyond})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"].startswith(name)


async def test_the_detail_names_the_first_faults(client: httpx.AsyncClient) -> None:
    """Who logs `detail` alone knows what was wrong; of many faults it names three, and how many more there are."""
    refused = (await client.post("/v1/search", json={"query": "x", "k": 0})).json()
    fault = refused["errors"][0]
    assert refused["detail"].endswith(f": {fault['field']}: {fault['message']}")
    unknown = {f"unknown{number}": 1 for number in range(5)}
    many = (await client.post("/v1/search", json={"query": "x", **unknown})).json()
    assert "unknown2" in many["detail"] and "unknown3" not in many["detail"] and many["detail"].endswith("and 2 more")


def test_a_detail_that_is_its_fault_is_told_once() -> None:
    """A filter's, which whoever has no list of faults must read as well."""
    fault = {"field": "filter.price", "message": "must be a number"}
    error = BadInput("filter.price: must be a number", errors=[fault])
    assert problem(error, {"path": "/v1/search"})["detail"] == "filter.price: must be a number"
    other = BadInput("the request", errors=[fault])
    assert problem(other, {"path": "/v1/search"})["detail"] == "the request: filter.price: must be a number"


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (Overloaded("full", retry_after_s=3), 429, "3"),
        (Unavailable("starting"), 503, "1"),
        (EncoderUnavailable("stalled"), 503, "1"),
        (DeadlineExceeded("nothing yet"), 504, None),
    ],
)
async def test_failures_become_problems_with_their_status(
    client: httpx.AsyncClient, service: StubService, failure: Exception, status: int, retry_after: str | None
) -> None:
    """The error tree decides the status; a refusal says when to come back."""
    service.fail = failure
    response = await client.post("/v1/search", json={"query": "x"})
    assert response.status_code == status
    assert response.headers.get("Retry-After") == retry_after
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert problem["status"] == status
    assert problem["instance"] == "/v1/search"
    assert problem["request_id"] == response.headers["X-Request-ID"]


async def test_an_unexpected_failure_shows_nothing_of_itself(
    client: httpx.AsyncClient, service: StubService, caplog: pytest.LogCaptureFixture
) -> None:
    """500 without detail; the log has the request id and the kind of failure, not its message."""
    service.fail = ValueError("secret-of-the-house")
    response = await client.post("/v1/search", json={"query": "the query itself"})
    assert response.status_code == 500
    assert b"secret" not in response.content
    assert b"Traceback" not in response.content
    assert response.headers["X-Request-ID"] in caplog.text
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text
    assert "the query itself" not in caplog.text


async def test_the_service_s_deadline_holds_where_none_is_given(
    make_app: Callable[..., FastAPI], service: StubService
) -> None:
    """`timeout_ms` has a default, which the installation sets."""
    async with client_of(make_app(timeout_ms=123.0)) as client:
        await client.post("/v1/search", json={"query": "x"})
    assert service.searched[0].timeout_ms == 123.0


async def test_queries_are_logged_only_where_it_is_asked_for(
    make_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    """Off by default; where on, as JSON, so that no line break or terminal code is raw."""
    caplog.set_level(logging.DEBUG, logger="app")
    hostile = "head\r\nphones\x1b[31m"
    async with client_of(make_app()) as client:
        await client.post("/v1/search", json={"query": hostile})
    assert "phones" not in caplog.text
    async with client_of(make_app(log_queries=True)) as client:
        await client.post("/v1/search", json={"query": hostile})
    assert json.dumps(hostile)[1:-1].replace("\\u001b", "") in caplog.text.replace("\\u001b", "")
    assert "\x1b" not in caplog.text


async def test_a_search_nobody_waits_for_is_cancelled(make_app: Callable[..., FastAPI], service: StubService) -> None:
    """When the client goes away the service's work ends; the same search with a patient client does not."""
    service.hold = asyncio.Event()
    gone = asyncio.Event()
    body = b'{"query":"x"}'
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        if message is None:
            await gone.wait()
            return {"type": "http.disconnect"}
        return message

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/search", "raw_path": b"/v1/search", "query_string": b"",
        "headers": [(b"content-length", b"%d" % len(body))], "root_path": "", "state": {},
    }  # fmt: skip
    request = asyncio.create_task(make_app()(scope, receive, send))
    await service.until_running(1)
    assert service.cancelled == 0
    gone.set()
    await asyncio.wait_for(request, 5)
    assert service.cancelled == 1
    assert sent == []
