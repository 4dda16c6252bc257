"""Products, neighbours, collections and versions at the edge."""

from __future__ import annotations

import httpx
import pytest

from app.api.schemas import MAX_ID_CHARACTERS
from tests.api.stub_service import KNOWN, TAIL, VERSION


async def test_a_product_is_served_as_stored(client: httpx.AsyncClient) -> None:
    """The service's bytes, unchanged."""
    response = await client.get(f"/v1/products/{KNOWN}?collection=default")
    assert response.json() == {"id": KNOWN, "version": VERSION, "product": {"title": "Headphones"}}


async def test_neighbours_are_shaped_like_a_search(client: httpx.AsyncClient) -> None:
    """One shape for every list of products."""
    response = await client.get(f"/v1/products/{KNOWN}/similar?k=6&collection=default")
    assert response.status_code == 200
    assert response.content.endswith(TAIL)


@pytest.mark.parametrize("path", ["/v1/products/a/b", "/v1/products/a%2Fb", "/v1/products/a%2Fb/similar"])
async def test_an_id_may_contain_slashes(client: httpx.AsyncClient, path: str) -> None:
    """Escaped or not."""
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/v1/products/gone", "/v1/products/", "/v1/products//similar", "/v1/products/gone/similar",
     f"/v1/products/{'x' * (MAX_ID_CHARACTERS + 1)}", f"/v1/products/{KNOWN}?collection=other",
     "/v1/products/%ED%A0%80", "/v1/products/a%00b"],
)  # fmt: skip
async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """404 as a problem document."""
    response = await client.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [f"/v1/products/{KNOWN}?k=1", f"/v1/products/{KNOWN}/similar?k=0", f"/v1/products/{KNOWN}/similar?k=x",
     "/v1/collections?a=1", "/v1/versions?a"],
)  # fmt: skip
async def test_query_strings_are_strict(client: httpx.AsyncClient, path: str) -> None:
    """What a route does not take, it refuses."""
    assert (await client.get(path)).status_code == 422


async def test_what_is_served_is_listed(client: httpx.AsyncClient) -> None:
    """Collections for the page, versions for the operator."""
    assert (await client.get("/v1/collections")).json()["collections"][0]["name"] == "default"
    assert (await client.get("/v1/versions")).json()["collections"][0]["version"] == VERSION
