"""Nothing secret comes out again: no canary of environment, headers or bodies in an error or in the log, no trace of
the code in an answer, and nothing of a caller's bytes raw in a log line."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import keyfile
from app.errors import BadInput
from tests.api.conftest import client_of, edge_app
from tests.api.stub_service import StubService
from tests.app.server import Served, served
from tests.conftest import ROOT

CANARY = "canary-5f1d0c"
HOSTILE = "\r\n2027-01-01 00:00:00 ERROR forged\x1b[31m\u2028\x00\u0085\u009b31m\x7f\u202e"
_STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [a-z._]+ "
LINE = re.compile(rf"({_STAMP}[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]+|aisle \S+ serves \S+)\n")
_OURS = re.compile(rf"Traceback|File \"|\.py\b|site-packages|line \d+, in|/home/|/tmp/|{re.escape(str(ROOT))}")


@pytest.fixture(scope="module")
def secret(tiny_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """The real service with secrets all around, and a key that opens everything."""
    path, key = tmp_path_factory.mktemp("secret") / "keys", keyfile.new_key()
    keyfile.append(path, keyfile.line_of("all", frozenset(("search", "write", "admin")), key))
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]  # Redis is not there: what connects to it fails, and says so
    environment = {
        "AISLE_REDIS_URL": f"redis://user:{CANARY}-redis@127.0.0.1:{nobody}/0",
        "AISLE_API_KEYS_FILE": str(path),
        "AISLE_LOG_QUERIES": "1",
        "AISLE_DOCS": "1",
        "DATABASE_PASSWORD": f"{CANARY}-environment",
    }
    with served(tiny_bundles, **environment) as running:
        yield running, key
        assert running.stop() == 0


def _bodies() -> list[tuple[str, Any]]:
    """(path, body) with a canary where a body may hold what is nobody else's: texts, values, members nobody knows."""
    text = f"{CANARY}-text"
    bad_filters: list[Any] = [
        {"field": "brand", "in": [{"password": text}]},
        {"field": "price", "gte": text},
        {"field": "brand", "is": text},
        {"field": "brand", "in": text},
        text,
    ]
    bodies: list[tuple[str, Any]] = [
        ("/v1/search", {"query": text, "k": 0}),
        ("/v1/search", {"query": [text]}),
        ("/v1/search", {"query": text, "password": text}),
        ("/v1/search", {"query": text, "timeout_ms": text}),
        ("/v1/search", {"query": text, "offset": 9_999}),
        ("/v1/rescore", {"items": [{"query": text, "candidates": [{"text": [text]}]}]}),
        ("/v1/rescore", {"items": [{"query": text, "candidates": [{"text": text, "id": "p001"}]}]}),
        ("/v1/classify", {"query": text, "text": text}),
        ("/v1/why-not", {"query": text, "id": "nobody"}),
        ("/v1/rerank", {"query": [text], "documents": [text]}),
        ("/v2/rerank", {"query": text, "documents": []}),
        ("/rerank", {"query": text, "texts": [[text]]}),
        ("/v1/versions/reload", {"collection": [text]}),
        ("/v1/versions/rollback", {"token": text}),
    ]
    return bodies + [("/v1/search", {"query": text, "filter": one}) for one in bad_filters]


def _errors(address: str, key: str) -> list[httpx.Response]:
    """Every kind of failed request, with canaries in headers and bodies."""
    secrets = {"Cookie": f"session={CANARY}", "X-Forwarded-For": CANARY, "Referer": f"http://{CANARY}/"}
    good = secrets | {"Authorization": f"Bearer {key}"}
    wrong = [{"Authorization": f"Bearer {CANARY}"}, {"X-API-Key": CANARY}, {"Authorization": f"Basic {CANARY}"}]
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=address) as http:
        for path, body in _bodies():
            answers.append(http.post(path, json=body, headers=good))
            answers.append(http.post(path, content=json.dumps(body)[:-2], headers=good))  # no JSON any more
            answers.append(http.post(path, content=f"{CANARY}-raw".encode(), headers=good | {"Content-Type": "text/x"}))
            answers += [http.post(path, json=body, headers=secrets | one) for one in wrong]
        answers.append(http.post("/v1/search", content=b"x" * 2_000_000, headers=good))
        for path in ("/nope", "/v1/products/nobody", "/v1/search", "/v1/versions/reload", "/page/../../etc/passwd"):
            answers.append(http.get(path, headers=good))
            answers.append(http.delete(path, headers=good))
        answers.append(http.get("/v1/search", headers={"X-Big": "x" * 70_000}))
        answers.append(http.post("/v1/versions/rollback", headers=good))
    return [answer for answer in answers if answer.status_code >= 400]


@pytest.mark.promise(
    "S10",
    "no canary in any 4xx or 5xx body, header or log line; no path, no frame",
    control="an error that holds the canary on purpose shows it",
)
def test_no_error_and_no_log_line_holds_a_secret(secret: tuple[Served, str]) -> None:
    """Bodies, headers and the whole log of a service under wrong requests of every kind; no answer shows a path of the
    machine or a frame of the code. What a search was for is in the log only where it was asked for."""
    service, key = secret
    errors = _errors(service.address, key)
    assert {400, 401, 404, 405, 413, 422} <= {answer.status_code for answer in errors}
    for answer in errors:
        said = answer.text + str(answer.headers)
        assert CANARY not in said, (answer.request.url, answer.status_code, answer.text)
        assert key not in said and keyfile.digest_of(key.encode()).hex() not in said
        assert not _OURS.search(answer.text), answer.text
    with httpx.Client(base_url=service.address, headers={"Authorization": f"Bearer {key}"}) as http:
        assert http.post("/v1/search", json={"query": "asked-for"}).status_code == 200  # AISLE_LOG_QUERIES
        for line in service.lines:
            assert CANARY not in line and key not in line, line
        _until_logged(service, "asked-for")


@pytest.mark.promise(
    "S7",
    "every line of the log is of the service's own making",
    control="the hostile text is in the log, escaped; a raw code would be seen",
)
def test_what_a_caller_sends_is_never_raw_in_the_log(secret: tuple[Served, str]) -> None:
    """Line breaks and terminal codes in queries, names, ids, paths and headers: each line of the log is a line of the
    service's own making; the query is there, escaped."""
    service, key = secret
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=service.address, headers=headers) as http:
        http.post("/v1/search", json={"query": HOSTILE + "mug"})
        strange_filter = {"field": HOSTILE, "in": [HOSTILE]}
        for name, value in (("collection", HOSTILE), ("profile", HOSTILE), ("filter", strange_filter),
                            ("facets", [HOSTILE]), ("sort", HOSTILE), (HOSTILE, 1)):  # fmt: skip
            http.post("/v1/search", json={"query": "x", name: value})
        for path in ("/{}", "/v1/products/{}", "/v1/search?q={}", "/v1/search?{}=1", "/page/{}"):
            http.get(path.format("%0d%0aforged%1b%5b31m%00"))
        http.post("/v1/versions/reload", json={"collection": HOSTILE})
        for name in ("X-Request-ID", "X-API-Key", "User-Agent"):
            http.get("/v1/search?q=x", headers=[(name.encode(), "x\x1b[31m\u0085forged".encode())])
        assert http.post("/v1/search", json={"query": "last-of-all"}).status_code == 200
    _until_logged(service, "last-of-all")
    assert any("\\u001b[31m" in line and "forged" in line for line in service.lines), "nothing hostile was logged"
    for line in service.lines:
        assert LINE.fullmatch(line), repr(line)
    assert not LINE.fullmatch("2027-01-01 00:00:00,000 INFO aisle a\x1b[31m\n"), "the measure must notice a raw code"


def _until_logged(service: Served, text: str) -> None:
    for _ in range(200):
        if any(text in line for line in service.lines):
            return
        time.sleep(0.02)
    raise AssertionError(f"{text!r} is not in the log")


@pytest.mark.promise("S10", "the control: a planted leak is seen")
async def test_a_leak_would_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    """Positive control: an error whose text holds the canary on purpose shows it, and one that was not foreseen shows
    neither it nor a path, in the answer or in the log."""
    service = StubService()
    async with client_of(edge_app(service)) as http:
        service.fail = BadInput(f"{CANARY} in {ROOT}/app")
        shown = await http.post("/v1/search", json={"query": "x"})
        assert CANARY in shown.text
        service.fail = RuntimeError(f"{CANARY} in {ROOT}/app")
        hidden = await http.post("/v1/search", json={"query": "x"})
        assert hidden.status_code == 500 and CANARY not in hidden.text and not _OURS.search(hidden.text)
        assert "RuntimeError" in caplog.text and CANARY not in caplog.text
