"""The Makefile's promises that can be read without carrying them out: help, laziness, no torch, tidying up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str, folder: Path = ROOT) -> str:
    """What make prints. The environment of a make around this one would leak its variables into it."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    outer = {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MY_TURN", "VENV"}
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    ran = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=kept)
    return ran.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The Makefile and the files that its rules look at, in a folder of their own."""
    for name in ("Makefile", "pyproject.toml", "requirements"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    return tmp_path


def test_help_names_every_target() -> None:
    """A target without a help text cannot be found."""
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert sorted(re.findall(r"^  make (\w+) ", make(), re.MULTILINE)) == sorted(targets[1].split())


@pytest.mark.parametrize("target", ["install", "test"])
def test_serving_and_testing_install_from_the_locks_and_without_torch(copy: Path, target: str) -> None:
    """Every pip command is held by hashes, or installs the checkout itself."""
    planned = make("--dry-run", target, folder=copy)
    installs = re.findall(r"pip install (.*)", planned)
    assert len(installs) >= 2
    assert all("--require-hashes" in one or "--editable ." in one for one in installs)
    assert "train.lock" not in planned


def test_an_environment_that_is_up_to_date_is_left_alone(copy: Path) -> None:
    """A second `make install` runs no pip, until a lock changes."""
    stamp = copy / ".venv" / ".runtime.stamp"
    stamp.parent.mkdir()
    stamp.touch()
    assert "pip install" not in make("--dry-run", "install", folder=copy)
    os.utime(copy / "requirements" / "cpu.lock", (stamp.stat().st_mtime + 5,) * 2)
    assert "pip install" in make("--dry-run", "install", folder=copy)


def test_an_environment_whose_install_was_cut_short_is_made_anew(copy: Path) -> None:
    """pip cannot tell which files of an unfinished install are missing."""
    venv = copy / ".venv"
    venv.mkdir()
    (venv / ".runtime.stamp").touch()
    (venv / ".installing").touch()
    assert "pip install" in make("--dry-run", "install", folder=copy)
    assert not venv.exists()


def test_clean_keeps_the_bundles(copy: Path) -> None:
    """Whoever built a catalogue of their own into bundles/ keeps it."""
    for name in ("bundles", ".venv", "build", "artifacts", "app", "models", "scripts", "tests"):
        (copy / name).mkdir()
    make("clean", folder=copy)
    assert (copy / "bundles").is_dir()
    assert not any((copy / name).exists() for name in (".venv", "build", "artifacts"))
