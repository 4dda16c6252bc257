"""Write the bill of materials: what an installation takes from elsewhere, as CycloneDX 1.5 JSON.

    python requirements/sbom.py [OUT]    default: artifacts/sbom.cdx.json

Every pin of every lock is a component with the digests of its artefacts and the locks that hold it, and so is every
file of the shipped models. The same locks and weights give the same bytes: neither time nor chance is in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "artifacts" / "sbom.cdx.json"
# `name[extra]==version ; marker` and, over the lines that a backslash joins, its digests.
_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# Weights that are loaded; licences and cards lie beside them.
_WEIGHTS = {".onnx": "machine-learning-model", ".json": "data"}

Json = dict[str, Any]


def pins(lock: str) -> dict[tuple[str, str], set[str]]:
    """(package, version) → sha256 digests, of a lock's text."""
    found: dict[tuple[str, str], set[str]] = {}
    for pin in _PIN.finditer(lock):
        name = re.sub(r"[-_.]+", "-", pin["name"]).lower()
        found.setdefault((name, pin["version"]), set()).update(_HASH.findall(pin["rest"]))
    return found


def packages(folder: Path) -> list[Json]:
    """The components of all locks in `folder`, each once."""
    digests: dict[tuple[str, str], set[str]] = {}
    locks: dict[tuple[str, str], list[str]] = {}
    for path in sorted(folder.glob("*.lock")):
        for pin, found in pins(path.read_text(encoding="utf-8")).items():
            digests.setdefault(pin, set()).update(found)
            locks.setdefault(pin, []).append(path.stem)
    return [_package(*pin, sorted(digests[pin]), locks[pin]) for pin in sorted(digests)]


def _package(name: str, version: str, digests: list[str], locks: list[str]) -> Json:
    purl = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "scope": "required" if {"cpu", "gpu"} & set(locks) else "excluded",  # excluded: no part of what serves
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],  # of every artefact it may come as
        "properties": [{"name": "aisle:lock", "value": lock} for lock in locks],
    }


def models(folder: Path) -> list[Json]:
    """The files of every shipped model that are loaded."""
    found = []
    for path in sorted(folder.glob("*/*")):
        if path.suffix in _WEIGHTS:
            base = json.loads((path.parent / "encoder.json").read_text(encoding="utf-8")).get("base", {})
            found.append(_model(path, base))
    return found


def _model(path: Path, base: Json) -> Json:
    name = f"{path.parent.name}/{path.name}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    properties = {"aisle:base": base.get("name"), "aisle:base-sha256": base.get("sha256")}
    return {
        "type": _WEIGHTS[path.suffix],
        "bom-ref": f"model:{name}",
        "name": name,
        "version": digest[:12],
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": base["licence"]}}] if base.get("licence") else [],
        "properties": [{"name": key, "value": value} for key, value in properties.items() if value],
    }


def document(root: Path) -> Json:
    """The whole bill of the checkout at `root`."""
    components = packages(root / "requirements") + models(root / "models" / "weights")
    version = re.search(r'__version__ = "([^"]+)"', (root / "app" / "__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    content = json.dumps(components, sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "aisle",
                "name": "aisle",
                "version": version[1],
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
    }


def main(arguments: list[str]) -> int:
    out = Path(arguments[0]) if arguments else OUT
    bill = document(ROOT)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{out}: {len(bill['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
