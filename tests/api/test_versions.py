"""What is served, and what is to be, at the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.errors import Conflict, NotFound, VersionRefused
from tests.api.conftest import client_of, edge_app
from tests.api.stub_service import VERSION, StubService

PATHS = ("/v1/versions/reload", "/v1/versions/rollback")


@pytest.fixture
async def http(service: StubService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an open application."""
    async with client_of(edge_app(service, is_open=True)) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_a_change_without_a_body_is_of_the_default_collection(http: httpx.AsyncClient, path: str) -> None:
    """As with one that names it."""
    expected = {"collection": "default", "version": VERSION, "before": VERSION, "changed": False}
    assert (await http.post(path)).json() == expected
    assert (await http.post(path, json={})).json() == expected
    assert (await http.post(path, json={"collection": "default"})).json() == expected


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"collection": "other"}', 404),
        (b'{"collection": "../x"}', 422),
        (b'{"collection": null}', 422),
        (b'{"version": "x"}', 422),
        (b"[]", 422),
        (b"{", 400),
    ],
)
async def test_a_body_that_cannot_be_meant_is_refused(
    http: httpx.AsyncClient, path: str, body: bytes, status: int
) -> None:
    """As strictly as any other."""
    response = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", PATHS)
async def test_changes_take_no_query_string_and_no_other_method(http: httpx.AsyncClient, path: str) -> None:
    """422 and 405: nothing that a link could set off."""
    assert (await http.post(f"{path}?collection=default")).status_code == 422
    response = await http.get(path)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (VersionRefused("dense.faiss: sha256 a, expected b"), 409, "Version refused"),
        (Conflict("cannot be written to"), 409, "Conflict"),
        (NotFound("no earlier version"), 404, "Not found"),
    ],
)
async def test_why_a_version_is_not_served_is_told(
    http: httpx.AsyncClient, service: StubService, path: str, error: Exception, status: int, title: str
) -> None:
    """In the problem's detail, not as a failure of the service."""
    service.fail = error
    response = await http.post(path)
    assert (response.status_code, response.json()["title"]) == (status, title)
    assert response.json()["detail"] == str(error)
