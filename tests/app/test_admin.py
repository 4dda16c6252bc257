"""What administers the service is behind a key, and what tells about it is off unless it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.routing import Route

from app.api import keyfile
from app.main import create_app
from app.settings import Settings
from tests.conftest import ROOT, Client

_ADMIN = [("POST", "/v1/versions/reload"), ("POST", "/v1/versions/rollback")]
# Beside the routes that answer shoppers' questions: what is there under production settings, and nothing more.
_BESIDE = {
    "/",
    "/page/{name}",
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/v1/versions",
    *(path for _, path in _ADMIN),
}


def _paths(**settings: Any) -> set[str]:
    routes = create_app(Settings(**settings)).routes
    assert all(isinstance(one, Route) for one in routes), "something is mounted that no test knows of"
    return {one.endpoint.path for one in routes if isinstance(one, Route)}


@pytest.mark.promise("S14", "no route that nobody expects, documents off", control="switched on they are there")
def test_a_service_as_it_comes_has_no_documents_and_no_route_that_nobody_expects() -> None:
    """/docs and /openapi.json come with AISLE_DOCS alone, and nothing for debugging with anything."""
    asked = {path for path in _paths() if path.startswith(("/v1/", "/v2/", "/rerank"))} - _BESIDE
    assert _paths() - asked == _BESIDE
    assert _paths(docs=True) - _paths() == {"/docs", "/openapi.json"}
    assert _paths() - _paths(metrics_port=9100) == {"/metrics"}
    assert not any("debug" in path for path in _paths(docs=True))


@pytest.mark.promise(
    "S14", "403 without keys, 401 and 403 with others, open with the admin's", control="the admin's key is let in"
)
async def test_administration_is_closed_until_keys_or_the_owner_open_it(
    tiny_bundles: Path, tmp_path: Path, client: Client
) -> None:
    """403 without a file of keys; with one 401 without a key, 403 with a search key, and an answer with the admin's."""
    path, keys = tmp_path / "keys", {scope: keyfile.new_key() for scope in ("search", "admin")}
    for scope, key in keys.items():
        keyfile.append(path, keyfile.line_of(scope, frozenset((scope,)), key))
    async with client(tiny_bundles) as http:
        assert [await _status(http, *one) for one in _ADMIN] == [403, 403]
        assert await _status(http, "GET", "/metrics") == 200
    async with client(tiny_bundles, api_keys_file=path) as http:
        for method, route in [*_ADMIN, ("GET", "/metrics")]:
            assert await _status(http, method, route) == 401
            assert await _status(http, method, route, keys["search"]) == 403
        assert await _status(http, *_ADMIN[0], keys["admin"]) == 200
        assert await _status(http, *_ADMIN[1], keys["admin"]) == 404  # let in: there is nothing to go back to
        assert await _status(http, "GET", "/metrics", keys["admin"]) == 200
        assert await _status(http, "GET", "/v1/search?q=mug", keys["search"]) == 200
        assert await _status(http, "GET", "/livez") == 200


async def _status(http: httpx.AsyncClient, method: str, path: str, key: str | None = None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return (await http.request(method, path, headers=headers)).status_code


@pytest.mark.promise("S14", "no deployment is open or shows documents")
@pytest.mark.parametrize("place", ["docker-compose.yml", "deploy/kubernetes/base/configmap.yaml", "Dockerfile"])
def test_nothing_that_is_deployed_is_open_or_shows_its_documents(place: str) -> None:
    """AISLE_OPEN is for `make run` on the loopback alone, AISLE_DOCS for whoever asks."""
    text = (ROOT / place).read_text()
    assert "AISLE_OPEN" not in text
    if place.endswith("configmap.yaml"):
        assert "AISLE_DOCS" not in yaml.safe_load(text)["data"]
    assert "AISLE_DOCS=1" not in text and 'AISLE_DOCS: "1"' not in text
    assert "$(filter 127.0.0.1,$(HOST)),AISLE_OPEN" in (ROOT / "Makefile").read_text()
