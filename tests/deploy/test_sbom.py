"""The bill of materials names all that an installation takes from elsewhere, with its digests."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def bill(root: Path, out: Path) -> dict[str, Any]:
    """What the script of the checkout at `root` writes."""
    command = [sys.executable, str(root / "requirements" / "sbom.py"), str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=root)
    written: dict[str, Any] = json.loads(out.read_text())
    return written


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bill of this checkout."""
    return bill(ROOT, tmp_path_factory.mktemp("sbom") / "sbom.json")


def locked(path: Path) -> dict[str, set[str]]:
    """name@version → digests, read line by line: another way than the script's."""
    found: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in path.read_text().splitlines():
        if line.startswith("    --hash=sha256:"):
            current.add(line.strip().removeprefix("--hash=sha256:").removesuffix("\\").strip())
        elif line and not line.startswith("#"):
            requirement = Requirement(line.removesuffix("\\").strip())
            (specifier,) = requirement.specifier
            current = found.setdefault(f"{canonicalize_name(requirement.name)}@{specifier.version}", set())
    return found


@pytest.mark.promise("S12", "the bill lists 100 % of the locks")
def test_every_pin_of_every_lock_is_listed_with_all_its_digests(shipped: dict[str, Any]) -> None:
    """One for one, both ways; each names the locks that hold it."""
    libraries = {f"{one['name']}@{one['version']}": one for one in shipped["components"] if one["type"] == "library"}
    expected: dict[str, set[str]] = {}
    for path in LOCKS:
        for name, digests in locked(path).items():
            expected.setdefault(name, set()).update(digests)
            assert {"name": "aisle:lock", "value": path.stem} in libraries[name]["properties"]
    assert {name: {h["content"] for h in one["hashes"]} for name, one in libraries.items()} == expected
    assert all(expected.values()) and len(expected) > 100
    for name, one in libraries.items():
        assert one["purl"] == one["bom-ref"] == f"pkg:pypi/{name}"


def test_the_shipped_weights_are_listed_with_their_digests(shipped: dict[str, Any]) -> None:
    """Every ONNX file is a machine-learning model; its digest is the file's and the one that its description names."""
    models = {one["name"]: one for one in shipped["components"] if one["type"] == "machine-learning-model"}
    files = {f"{path.parent.name}/{path.name}": path for path in (ROOT / "models" / "weights").glob("*/*.onnx")}
    assert models.keys() == files.keys() and files
    for name, path in files.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert models[name]["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert json.loads((path.parent / "encoder.json").read_text())["sha256"][path.name] == digest
        assert models[name]["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_form_is_cyclonedx(shipped: dict[str, Any]) -> None:
    """Version 1.5: its head, a serial number, references that are unique, digests of the right length."""
    assert (shipped["bomFormat"], shipped["specVersion"], shipped["version"]) == ("CycloneDX", "1.5", 1)
    assert shipped["serialNumber"] == f"urn:uuid:{uuid.UUID(shipped['serialNumber'].removeprefix('urn:uuid:'))}"
    references = [one["bom-ref"] for one in shipped["components"]]
    assert len(set(references)) == len(references)
    for one in shipped["components"]:
        assert one["type"] in {"library", "machine-learning-model", "data"}
        assert all(re.fullmatch("[0-9a-f]{64}", digest["content"]) for digest in one["hashes"])


@pytest.mark.promise("S12", "the bill follows the locks", control="a changed lock changes it")
def test_a_changed_lock_changes_the_bill_and_nothing_else_does(tmp_path: Path, shipped: dict[str, Any]) -> None:
    """Written twice it is the same; a pin taken out of every lock is gone, so what compares above can fail."""
    copy = tmp_path / "checkout"
    for name in ("requirements", "models/weights"):
        shutil.copytree(ROOT / name, copy / name)
    (copy / "app").mkdir()
    shutil.copy(ROOT / "app" / "__init__.py", copy / "app")
    assert bill(copy, tmp_path / "same.json") == shipped
    for path in (copy / "requirements").glob("*.lock"):
        path.write_text(re.sub(r"^orjson==.*\n(?: {4}--hash.*\n)+", "", path.read_text(), flags=re.MULTILINE))
    fewer = bill(copy, tmp_path / "fewer.json")
    gone = {one["name"] for one in shipped["components"]} - {one["name"] for one in fewer["components"]}
    assert gone == {"orjson"} and fewer["serialNumber"] != shipped["serialNumber"]
