"""The cpu image, built in a plain folder, serves as nobody: no right, no home, nothing to write to but its /tmp."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.settings import Settings
from tests.deploy.dockerfile_runner import Image, build, order, stages

ROOT = Path(__file__).resolve().parents[2]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
          "--inh-caps=-all")  # fmt: skip


def interpreter() -> str:
    """A Python that another user may run too: the system's own where there is one."""
    system = "/usr/bin/python3.11"
    return system if Path(system).exists() else os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder that another user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="aisle-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    """The cpu target, every instruction of it carried out."""
    return build(ROOT, "cpu", scratch, interpreter())


@contextmanager
def serving(image: Image, bundles: Path, scratch: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The image's command under the image's environment, as uid 65534, in a folder that it cannot write to."""
    tmp = scratch / "tmp"
    tmp.mkdir(mode=0o1777, exist_ok=True)
    tmp.chmod(0o1777)
    environment = image.environment | {
        "AISLE_BUNDLES": str(bundles), "AISLE_HOST": "127.0.0.1", "AISLE_PORT": "0", "AISLE_DRAIN_S": "0",
        "HOME": str(scratch / "nowhere"), "TMPDIR": str(tmp), "NUMBA_CACHE_DIR": str(tmp / "numba"),
    }  # fmt: skip
    command = [*(NOBODY if os.geteuid() == 0 else ()), *image.command]
    with subprocess.Popen(command, cwd=image.root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


@pytest.mark.promise(
    "S11",
    "serves as uid 65534 without capabilities from read-only folders",
    control="the kernel names the user and the capabilities",
)
@pytest.mark.deep
def test_the_image_serves_as_nobody(image: Image, tiny_bundles: Path, scratch: Path) -> None:
    """It becomes ready, answers a search, satisfies its health check, holds no right, and stops on SIGTERM."""
    bundles = shutil.copytree(tiny_bundles, scratch / "bundles")
    for path in (bundles, *bundles.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with serving(image, bundles, scratch) as (process, address):
        body = json.dumps({"query": "red shoe", "k": 3}).encode()
        request = urllib.request.Request(f"{address}/v1/search", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["hits"]
        health = image.environment | {"AISLE_PORT": address.rpartition(":")[2]}
        assert subprocess.run(image.health, env=health, check=False, cwd=image.root).returncode == 0
        assert subprocess.run(image.health, env=health | {"AISLE_PORT": "1"}, check=False, cwd=image.root,
                              stderr=subprocess.DEVNULL).returncode != 0  # fmt: skip
        if os.geteuid() == 0:
            status = Path(f"/proc/{process.pid}/status").read_text().split("\n")
            held = {words[0].rstrip(":"): words[1] for line in status if len(words := line.split()) > 1}
            assert held["Uid"] == "65534"
            assert held["NoNewPrivs"] == "1"
            assert {held[one] for one in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        process.send_signal(signal.SIGTERM)
        # uvicorn drains, then lets the signal have its way.
        assert process.wait(timeout=30) in {0, -signal.SIGTERM}


@pytest.mark.promise("S11", "no installer, no torch, no tests in the image")
@pytest.mark.deep
def test_the_image_holds_what_serving_needs_and_no_more(image: Image) -> None:
    """The page and the shipped encoder are in it; installers, torch and the tests are not."""
    code = "import app.api, models, json; print(json.dumps([app.api.__path__[0], models.__path__[0]]))"
    python = image.root / "opt" / "venv" / "bin" / "python"
    ran = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    api, models = map(Path, json.loads(ran.stdout))
    assert api.is_relative_to(image.root)
    assert (api / "page" / "index.html").exists()
    assert list((models / "weights").rglob("*.onnx"))
    for absent in ("torch", "pip", "setuptools", "pytest", "tests"):
        tried = subprocess.run([python, "-I", "-c", f"import {absent}"], capture_output=True, check=False, cwd="/")
        assert tried.returncode == 1


def test_the_environment_of_the_image_is_one_that_the_service_accepts() -> None:
    """For both targets, read from the Dockerfile's ENV instructions."""
    found = stages((ROOT / "Dockerfile").read_text())
    for target, provider in (("cpu", "cpu"), ("gpu", "cuda")):
        words = [text for stage in order(found, target) for word, text in stage.steps if word == "ENV"]
        given = dict(pair.split("=", 1) for text in words for pair in text.split())
        settings = Settings.from_environment(given)
        assert (settings.provider, settings.host, settings.port) == (provider, "0.0.0.0", 8000)


def test_a_target_stands_on_its_own_stages_alone() -> None:
    """The cpu image takes nothing from the gpu environment, nor the other way round."""
    found = stages((ROOT / "Dockerfile").read_text())
    assert [stage.name for stage in order(found, "cpu")] == ["base", "service", "wheel", "venv-cpu", "cpu"]
    assert "venv-cpu" not in {stage.name for stage in order(found, "gpu")}
