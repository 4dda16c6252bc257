"""A corpus of bodies that JSON readers trip over: each has its expected answer, and none is a 5xx."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import client_of, edge_app
from tests.api.stub_service import StubService

BIG = 2**70
CORPUS: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "white space": (b"  \n", 400),
    "null": (b"null", 422),
    "true": (b"true", 422),
    "a number": (b"1", 422),
    "a string": (b'"x"', 422),
    "an array": (b"[]", 422),
    "an empty object": (b"{}", 422),
    "cut off": (b'{"query":"x"', 400),
    "trailing comma": (b'{"query":"x",}', 400),
    "trailing text": (b'{"query":"x"} x', 400),
    "two documents": (b'{"query":"x"}{"query":"y"}', 400),
    "single quotes": (b"{'query':'x'}", 400),
    "comment": (b'{"query":"x"/*c*/}', 400),
    "bare word": (b"{query:1}", 400),
    "NaN": (b'{"query":"x","timeout_ms":NaN}', 422),
    "-NaN": (b'{"query":"x","timeout_ms":-NaN}', 400),
    "Infinity": (b'{"query":"x","timeout_ms":Infinity}', 422),
    "-Infinity": (b'{"query":"x","timeout_ms":-Infinity}', 422),
    "1e999": (b'{"query":"x","timeout_ms":1e999}', 422),
    "-1e999": (b'{"query":"x","timeout_ms":-1e999}', 422),
    "NaN for an integer": (b'{"query":"x","k":NaN}', 422),
    "exponent for an integer": (b'{"query":"x","k":1e1}', 422),
    "float for an integer": (b'{"query":"x","k":7.0}', 422),
    "string for an integer": (b'{"query":"x","k":"7"}', 422),
    "true for an integer": (b'{"query":"x","k":true}', 422),
    "null for an integer": (b'{"query":"x","k":null}', 422),
    "2^70 for an integer": (b'{"query":"x","k":%d}' % BIG, 422),
    "-2^70 for an integer": (b'{"query":"x","offset":-%d}' % BIG, 422),
    "5,000 digits": (b'{"query":"x","k":%s}' % (b"9" * 5000), 400),
    "leading zero": (b'{"query":"x","k":07}', 400),
    "plus sign": (b'{"query":"x","k":+7}', 400),
    "hexadecimal": (b'{"query":"x","k":0x7}', 400),
    "integer for a number": (b'{"query":"x","timeout_ms":50}', 200),
    "string for a number": (b'{"query":"x","timeout_ms":"50"}', 422),
    "true for a number": (b'{"query":"x","timeout_ms":true}', 422),
    "1 for a boolean": (b'{"query":"x","explain":1}', 422),
    "string for a boolean": (b'{"query":"x","explain":"true"}', 422),
    "number for a string": (b'{"query":1}', 422),
    "array for a string": (b'{"query":["x"]}', 422),
    "object for a list": (b'{"query":"x","facets":{}}', 422),
    "string for a list": (b'{"query":"x","facets":"brand"}', 422),
    "null in a list": (b'{"query":"x","facets":[null]}', 422),
    "unknown member": (b'{"query":"x","nope":1}', 422),
    "unknown member within": (b'{"query":"x","context":{"nope":1}}', 422),
    "member in capitals": (b'{"Query":"x"}', 422),
    "lone high surrogate": (b'{"query":"\\ud800"}', 400),
    "lone low surrogate": (b'{"query":"\\udc00"}', 400),
    "surrogates in reverse": (b'{"query":"\\udc00\\ud800"}', 400),
    "lone surrogate in a key": (b'{"\\ud800":1}', 400),
    "lone surrogate in a filter": (b'{"filter":{"field":"brand","in":["\\ud800"]}}', 400),
    "lone surrogate as bytes": (b'{"query":"\xed\xa0\x80"}', 400),
    "surrogate pair": (b'{"query":"\\ud83d\\ude00"}', 200),
    "NUL escaped": (b'{"query":"a\\u0000b"}', 200),
    "NUL raw": (b'{"query":"a\x00b"}', 400),
    "NUL outside": (b'{"query":"x"}\x00', 400),
    "line break in a string": (b'{"query":"a\nb"}', 400),
    "bad escape": (b'{"query":"\\x41"}', 400),
    "duplicate keys: the last counts": (b'{"query":1,"query":"x"}', 200),
    "100,000 arrays deep": (b'{"filter":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "100,000 objects deep": (b'{"filter":' + b'{"not":' * 100_000 + b"1" + b"}" * 100_001, 400),
    "byte order mark": (b'\xef\xbb\xbf{"query":"x"}', 400),
    "UTF-16": ('{"query":"x"}'.encode("utf-16"), 400),
    "UTF-32": ('{"query":"x"}'.encode("utf-32"), 400),
    "Latin-1": (b'{"query":"caf\xe9"}', 400),
    "overlong UTF-8": (b'{"query":"\xc0\xaf"}', 400),
    "beyond Unicode": (b'{"query":"\xf4\x90\x80\x80"}', 400),
    "gzip": (b"\x1f\x8b\x08\x00", 400),
    "number for a filter": (b'{"query":"x","filter":1}', 422),
    "array for a filter": (b'{"query":"x","filter":[]}', 422),
    "100,000 unknown members": (b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}", 422),
}


@pytest.mark.promise(
    "S3", "0 5xx, each body has its written answer", control="sound bodies among them are answered 200"
)
@pytest.mark.parametrize("name", CORPUS)
async def test_each_body_of_the_corpus_has_its_answer(client: httpx.AsyncClient, name: str) -> None:
    """400 for what is no JSON, 422 for what is the wrong JSON, as a problem document."""
    body, status = CORPUS[name]
    response = await client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    if status != 200:
        assert response.headers["Content-Type"] == "application/problem+json"
        assert len(response.content) < 5000


@pytest.mark.promise("S3", "0 5xx, each content type has its written answer", control="JSON types are answered 200")
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/vnd.shop+json", 200),
        ("application/json; charset=utf-16", 400),
        ("application/x-www-form-urlencoded", 400),
        ("text/plain", 400),
        ("application/x-ndjson", 400),
        ("", 400),
    ],
)
async def test_a_body_must_not_say_that_it_is_something_else(
    client: httpx.AsyncClient, content_type: str | None, status: int
) -> None:
    """Without Content-Type a body is taken for JSON; any other type is refused, and the answer says what to send."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await client.post("/v1/search", content=b'{"query":"x"}', headers=headers)
    assert response.status_code == status
    assert status == 200 or "application/json" in response.json()["detail"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: f'{{"query":"{text}"}}'.encode()))
async def test_no_body_at_all_is_a_server_error(body: bytes) -> None:
    """Whatever bytes arrive, the answer is 200 or a refusal."""
    async with client_of(edge_app(StubService())) as client:
        for path in ("/v1/search", "/v1/rescore", "/v1/rerank", "/rerank"):
            response = await client.post(path, content=body)
            assert response.status_code in (200, 400, 422)
