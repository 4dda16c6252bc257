"""The search page and the reference page: what is served, and under which policy."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from tests.api.conftest import client_of


async def test_the_page_and_all_it_refers_to_are_served(client: httpx.AsyncClient) -> None:
    """Every address in it answers, with the right type and nosniff."""
    page = await client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    addresses = re.findall(r'(?:href|src)="(page/[^"]+)"', page.text)
    assert len(addresses) >= 3
    for address in addresses:
        asset = await client.get(f"/{address}")
        assert asset.status_code == 200
        assert asset.headers["X-Content-Type-Options"] == "nosniff"


async def test_nothing_foreign_and_nothing_inline_may_run_in_the_page(make_app: Callable[..., FastAPI]) -> None:
    """Pictures from other hosts only where the installation shows them."""
    async with client_of(make_app()) as client:
        policy = (await client.get("/")).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    async with client_of(make_app(show_images=True)) as client:
        assert "img-src 'self' https:;" in (await client.get("/")).headers["Content-Security-Policy"]


async def test_an_unchanged_page_is_not_sent_again(client: httpx.AsyncClient) -> None:
    """Revalidated by its tag."""
    first = await client.get("/page/page.js")
    again = await client.get("/page/page.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["../page.py", "..%2fpage.py", "%2e%2e/__init__.py", "nope.js", "page.py", ""])
async def test_only_the_page_s_own_files_are_served(client: httpx.AsyncClient, name: str) -> None:
    """Names are looked up, never opened."""
    assert (await client.get(f"/page/{name}")).status_code == 404


async def test_the_documents_are_served_only_where_they_are_switched_on(make_app: Callable[..., FastAPI]) -> None:
    """Off by default."""
    for on, status in ((False, 404), (True, 200)):
        async with client_of(make_app(docs=on)) as client:
            assert (await client.get("/docs")).status_code == status
            assert (await client.get("/openapi.json")).status_code == status


async def test_the_reference_page_needs_no_script_and_no_other_host(client: httpx.AsyncClient) -> None:
    """Its policy allows its own style sheet alone."""
    page = await client.get("/docs")
    assert "<script" not in page.text
    assert set(re.findall(r"https?://[^/\s'\"<]+", page.text)) == {"http://localhost:8000"}
    assert "script-src" not in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for path in ("/v1/search", "/v1/rescore", "/v2/rerank", "/rerank", "/v1/products/{id}"):
        assert f"<code>{path}</code>" in page.text
