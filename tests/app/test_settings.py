"""How it runs: one variable a setting, refused where it cannot be meant, and every one of them felt."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from app.settings import Settings, SettingsError
from scripts.cli import parser
from tests.app.server import served
from tests.conftest import Client


def test_a_variable_sets_its_field_and_an_empty_one_counts_as_unset() -> None:
    """Types and units as the field has them; variables of tests and benchmarks are not the service's."""
    environment = {
        "AISLE_BUNDLES": "/b",
        "AISLE_CACHE_MB": "1.5",
        "AISLE_DOCS": "1",
        "AISLE_PORT": "",
        "AISLE_REDIS_URL": "",
        "AISLE_TEST_DATA": "elsewhere",
        "HOME": "/root",
    }
    assert Settings.from_environment(environment) == Settings(bundles=Path("/b"), cache_mb=1.5, docs=True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AISLE_TIMOUT_MS", "5", "unknown setting AISLE_TIMOUT_MS; did you mean AISLE_TIMEOUT_MS?"),
        ("AISLE_XYZZY", "5", "unknown setting AISLE_XYZZY"),
        ("AISLE_PORT", "http", "AISLE_PORT='http': "),
        ("AISLE_PORT", "65536", "AISLE_PORT='65536': "),
        ("AISLE_METRICS_PORT", "0", "AISLE_METRICS_PORT='0': "),
        ("AISLE_CACHE_MB", "nan", "AISLE_CACHE_MB='nan': "),
        ("AISLE_CACHE_MB", "-1", "AISLE_CACHE_MB='-1': "),
        ("AISLE_CACHE_TTL_S", "0", "AISLE_CACHE_TTL_S='0': "),
        ("AISLE_TIMEOUT_MS", "inf", "AISLE_TIMEOUT_MS='inf': "),
        ("AISLE_PROVIDER", "gpu", "AISLE_PROVIDER='gpu': "),
        ("AISLE_DOCS", "perhaps", "AISLE_DOCS='perhaps': "),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(name: str, value: str, said: str) -> None:
    """Never a default in silence."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({name: value})
    assert str(refused.value).startswith(said)


def test_the_help_of_serve_lists_every_setting() -> None:
    """With its default."""
    text = parser("serve")._subparsers._group_actions[0].choices["serve"].format_help()  # type: ignore
    for name, field in Settings.model_fields.items():
        assert f"AISLE_{name.upper()} " in text
        assert f"{field.description} (default: {field.default})" in text


async def test_a_body_beyond_the_limit_is_refused(tiny_bundles: Path, client: Client) -> None:
    """AISLE_MAX_BODY_KB; just below it passes."""
    async with client(tiny_bundles, max_body_kb=2) as http:
        for padding, status in ((1_000, 200), (3_000, 413)):
            body = b'{"query": "mug"' + b" " * padding + b"}"
            response = await http.post("/v1/search", content=body, headers={"content-type": "application/json"})
            assert response.status_code == status


async def test_an_answer_is_not_served_from_the_cache_beyond_its_time(tiny_bundles: Path, client: Client) -> None:
    """AISLE_CACHE_TTL_S, so short that it is over when the next search comes."""
    async with client(tiny_bundles, cache_ttl_s=1e-6) as http:
        for _ in range(3):
            answer = (await http.post("/v1/search", json={"query": "steel mug"})).json()
            assert not answer["cached"]


def test_metrics_are_served_on_a_port_of_their_own(tiny_bundles: Path) -> None:
    """AISLE_METRICS_PORT: there, and no longer beside the searches."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(tiny_bundles, AISLE_METRICS_PORT=str(port)) as service:
        beside = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert beside.status_code == 200 and "\naisle_ready 1.0\n" in beside.text
        assert httpx.get(f"http://127.0.0.1:{port}/v1/search?q=mug").status_code == 404
        assert httpx.get(f"{service.address}/metrics").status_code == 404
        assert service.stop() == 0
