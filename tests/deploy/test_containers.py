"""The Dockerfile and docker-compose.yml: linted, valid, and hardened service by service."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = BIN / "hadolint" if (BIN / "hadolint").exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    return subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=False)


@pytest.mark.promise("S11", "hadolint: 0")
def test_the_dockerfile_is_clean_under_hadolint() -> None:
    """No finding; and the linter does find something in a careless Dockerfile."""
    assert hadolint((ROOT / "Dockerfile").read_text()).stdout == ""
    assert "DL3007" in hadolint("FROM python:latest\nRUN cd /tmp\n").stdout


def test_the_image_runs_as_nobody_and_hears_sigterm() -> None:
    """Both targets inherit a numeric non-root user, an exec-form command and a health check on readiness."""
    text = (ROOT / "Dockerfile").read_text()
    stage = text[text.index("AS service") : text.index("FROM service")]
    assert re.search(r"^USER 65534:65534$", stage, re.MULTILINE)
    assert re.search(r'^CMD \["aisle", "serve"\]$', stage, re.MULTILINE)
    assert "HEALTHCHECK" in stage
    assert "/readyz" in stage
    assert set(re.findall(r"^FROM service AS (\w+)$", text, re.MULTILINE)) == {"cpu", "gpu"}


def test_every_install_in_the_image_is_held_by_hashes() -> None:
    """pip takes locked artefacts, or the wheel that was built beside them, and nothing else."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]+)", text)
    assert len(installs) == 5
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)


@pytest.mark.promise("M5", "the compose file satisfies its schema")
def test_the_compose_file_satisfies_the_compose_schema() -> None:
    """check-jsonschema's copy of the Compose specification accepts the file."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.promise("S11", "read-only, no capability, no new privilege")
@pytest.mark.parametrize("name", ["aisle-cpu", "aisle-gpu", "redis", "prometheus"])
def test_a_compose_service_can_write_nowhere_and_gain_nothing(name: str) -> None:
    """Read-only root, no capability, no new privileges, non-root, bounded memory; ports on loopback alone."""
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not str(service["user"]).startswith("0")
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", ["aisle-cpu", "aisle-gpu"])
def test_the_environment_of_a_container_is_one_that_the_service_accepts(name: str) -> None:
    """An unknown AISLE_ name would keep the service from starting."""
    environment = compose()["services"][name]["environment"]
    given = {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in environment.items()}
    settings = Settings.from_environment(given)
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.provider == name.removeprefix("aisle-").replace("gpu", "cuda")


def test_each_profile_runs_one_service_with_redis_and_prometheus() -> None:
    """`--profile cpu` and `--profile gpu` differ in the service alone."""
    services = compose()["services"]
    for profile in ("cpu", "gpu"):
        named = {name for name, service in services.items() if profile in service["profiles"]}
        assert named == {f"aisle-{profile}", "redis", "prometheus"}
