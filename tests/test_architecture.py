"""The dependency rule of ARCHITECTURE.md, held by the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Who may import whom, inside app; a leaf imports only leaves.
LEAVES = {"app", "app.types", "app.errors", "app.metrics", "app.pace", "app.alarms"}
ALLOWED = {
    "app.processes": {"app.main", "app.runtime", "app.settings"},
    "app.main": {"app.api", "app.search", "app.index", "app.runtime", "app.settings"},
    "app.api": {"app.api", "app.search"},
    "app.search": {"app.search", "app.index", "app.runtime"},
    "app.index": {"app.index"},
    "app.runtime": {"app.runtime"},
    "app.settings": set(),
    "app.types": set(),
    "app.errors": set(),
    "app.metrics": set(),
    "app.pace": set(),
    "app.alarms": set(),
    "app": set(),
}
HOMES = {
    "redis": {"app/search/cache_link.py"},
    "onnxruntime": {"app/runtime/onnx.py", "app/runtime/onnx_cuda.py"},
    "faiss": {"app/index/dense.py", "app/index/dense_gpu.py"},
    "tokenizers": {"app/search/embed.py", "app/search/pieces.py"},
    "uvicorn": {"app/main.py", "app/api/protocol.py", "app/api/rehearsal.py"},
}
FOLDER_HOMES = {
    "numba": ("app/index/", "app/runtime/baton.py"),
    "fastapi": ("app/api/", "app/main.py"),
    "starlette": "app/api/",
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and f"{parts[0]}.{parts[1]}" in ALLOWED else parts[0]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def breaches(files: list[tuple[str, list[str]]]) -> list[str]:
    """`importer → imported` for every import between rooms that the rule does not allow."""
    found = []
    for module, imported in files:
        room = _room(module)
        for name in imported:
            if name.split(".")[0] in ("models", "scripts", "torch", "tests"):
                found.append(f"{module} → {name}")
            elif name.startswith("app"):
                target = _room(name)
                if target not in LEAVES and target not in ALLOWED[room] and target != room:
                    found.append(f"{module} → {name}")
    return found


def _app_files() -> list[tuple[str, list[str]]]:
    return [(_module(path), list(_imports(path))) for path in sorted((ROOT / "app").rglob("*.py"))]


def test_no_room_of_the_service_enters_one_it_may_not() -> None:
    """scripts → models → app; inside app main → api → search → {index, runtime} → leaves."""
    assert breaches(_app_files()) == []


@pytest.mark.parametrize(
    "breach",
    [
        ("app.api.search", ["app.index.catalog"]),
        ("app.index.dense", ["app.runtime.onnx"]),
        ("app.runtime.batcher", ["app.search.searcher"]),
        ("app.search.service", ["app.settings"]),
        ("app.search.embed", ["torch"]),
        ("app.index.catalog", ["models.relevance"]),
        ("app.types", ["app.index.catalog"]),
    ],
)
def test_a_breach_is_seen(breach: tuple[str, list[str]]) -> None:
    """Positive control: each rule catches its breach."""
    assert breaches([breach]) == [f"{breach[0]} → {breach[1][0]}"]


def test_models_never_imports_the_command_line() -> None:
    """scripts → models, not back."""
    for path in (ROOT / "models").rglob("*.py"):
        assert not [name for name in _imports(path) if name.split(".")[0] in ("scripts", "tests")], path


def test_each_library_has_one_home() -> None:
    """A foreign exception, or a change of a library's interface, is met in one file."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for name in {imported.split(".")[0] for imported in _imports(path)}:
            assert place in HOMES.get(name, {place}), f"{place} imports {name}"
            assert place.startswith(FOLDER_HOMES.get(name, "")), f"{place} imports {name}"


def test_serving_loads_no_torch() -> None:
    """Importing the service and the command line brings in none of the heavy learning libraries."""
    heavy = "('torch', 'transformers', 'onnx')"
    code = f"import app.main, scripts.cli, scripts.build, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
