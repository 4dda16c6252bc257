"""The locks pin every artefact by hash, name no registry, agree with each other and satisfy pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("build", "model", "cpu", "gpu", "test", "bench", "train")
EXTRAS = {
    "cpu": ["cpu"],
    "gpu": ["gpu"],
    "test": ["cpu", "test"],
    "bench": ["cpu", "test", "bench"],
    "train": ["cpu", "train"],
}
_PIN = re.compile(
    r"^(?P<requirement>[A-Za-z0-9][^\\\n]*?) \\\n(?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE
)


def environment(python: str) -> Environment:
    """Linux on x86_64 under one version of Python."""
    marks = default_environment()
    marks["python_version"], marks["python_full_version"] = python, f"{python}.9"
    marks["sys_platform"], marks["platform_machine"], marks["platform_system"] = "linux", "x86_64", "Linux"
    return marks


def pins(name: str, python: str) -> dict[str, Version]:
    """Package → the version that a lock installs under one Python."""
    found: dict[str, Version] = {}
    for match in _PIN.finditer((ROOT / "requirements" / f"{name}.lock").read_text()):
        requirement = Requirement(match["requirement"])
        if requirement.marker and not requirement.marker.evaluate(environment(python)):  # type: ignore[arg-type]
            continue
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{name}.lock: {requirement}"
        package = canonicalize_name(requirement.name)
        assert package not in found, f"{name}.lock installs {package} twice"
        found[package] = Version(specifier.version)
    return found


@pytest.mark.promise("S12", "every artefact pinned by hash")
@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_pin_with_hashes_and_nothing_else(name: str) -> None:
    """No address, local path, option or unhashed requirement gets into a lock."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    left = _PIN.sub("", text)
    assert [line for line in left.splitlines() if line and not line.startswith("#")] == []
    assert "://" not in text


@pytest.mark.promise("S12", "every lock satisfies pyproject")
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_satisfies_what_the_project_asks_for(name: str, python: str) -> None:
    """Whatever pyproject.toml asks for is pinned, at a version that it allows, under each supported Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for extra in EXTRAS[name]:
        asked += project["optional-dependencies"][extra]
    pinned = pins(name, python)
    for line in asked:
        requirement = Requirement(line)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{name}.lock lacks {requirement}; run `make lock`"
        assert requirement.specifier.contains(version), f"{name}.lock has {requirement.name} {version}; run `make lock`"


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_a_package_has_one_version_in_all_locks_of_one_environment(python: str) -> None:
    """`make test` and `make bench` add to what `make run` installed and replace none of it."""
    cpu = pins("cpu", python)
    for name in ("test", "bench", "train"):
        wider = pins(name, python)
        assert {package: wider.get(package) for package in cpu} == cpu, name


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_takes_one_build_of_onnx_runtime_and_of_faiss(name: str) -> None:
    """The CPU and the GPU build install the same import name over each other."""
    pinned = pins(name, "3.11").keys()
    kind = {"cpu": {"onnxruntime", "faiss-cpu"}, "gpu": {"onnxruntime-gpu", "faiss-gpu"}}
    here, other = ("gpu", "cpu") if name == "gpu" else ("cpu", "gpu")
    assert kind[here] <= pinned
    assert not kind[other] & pinned


@pytest.mark.parametrize("name", ["cpu", "gpu", "test", "bench"])
def test_torch_is_only_in_the_training_lock(name: str) -> None:
    """Serving, testing and measuring need no torch."""
    assert "torch" not in pins(name, "3.11")
    assert "torch" in pins("train", "3.11")


def test_the_gpu_lock_is_cuda_12_throughout() -> None:
    """ONNX Runtime and FAISS share one process, so they must want one CUDA."""
    nvidia = [package for package in pins("gpu", "3.11") if package.startswith("nvidia-")]
    assert nvidia
    assert [package for package in nvidia if not package.endswith("-cu12")] == []


@pytest.mark.promise("S12", "floors are the versions tried")
def test_floors_are_the_versions_that_were_tried() -> None:
    """A floor below what ever ran here would promise more than is known."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = chain(project["dependencies"], *project["optional-dependencies"].values())
    asked = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    for package, floor in {"starlette": "1.10", "faiss-cpu": "1.15.1", "onnxruntime": "1.32", "onnx": "1.23.2"}.items():
        assert str(asked[package].specifier) == f">={floor}"
    assert str(asked["onnxruntime-gpu"].specifier) == "==1.26.*"
    assert str(asked["faiss-gpu"].specifier) == "==1.15.*"
