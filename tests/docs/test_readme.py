"""Every example of the README runs, as it is written."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from scripts.cli import main as aisle
from tests.conftest import ROOT, Client

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line]


def _commands(program: str) -> list[str]:
    return [line for line in COMMANDS if line.startswith(f"{program} ")]


def test_the_readme_has_examples_of_every_kind() -> None:
    """So that the tests below have something to run."""
    assert len(_commands("curl")) >= 10
    assert len(_commands("aisle")) >= 6
    assert [line.split("#")[0].strip() for line in _commands("make")] == ["make run", "make test"]


async def test_every_request_is_answered(shipped_bundles: Path, client: Client) -> None:
    """Status 200, hits where the example asks for products, and the shapes that the README shows; open, as `make run`
    serves."""
    async with client(shipped_bundles, open=True) as http:
        for line in _commands("curl"):
            method, url, headers, body = _parsed(line)
            response = await http.request(method, url, headers=headers, content=body)
            assert response.status_code == 200, f"{line}\n{response.text}"
            last = json.loads(response.text.strip().splitlines()[-1])
            assert _has_content(last), line


def test_every_command_succeeds_in_the_order_it_is_shown(
    shipped_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`my-bundles` is a folder of the reader's; `bundles` is what `make run` built."""
    monkeypatch.chdir(ROOT)
    places = {"my-bundles": str(tmp_path / "my-bundles"), "bundles": str(shipped_bundles)}
    for line in _commands("aisle"):
        words = [places.get(word, word) for word in shlex.split(line)[1:]]
        assert aisle(words) == 0, f"{line}\n{capsys.readouterr()}"
        assert capsys.readouterr().out.strip(), line


async def test_the_error_example_is_what_the_service_says(shipped_bundles: Path, client: Client) -> None:
    """The misspelt field."""
    shown = json.loads(re.findall(r"```json\n(\{\"type\".*?)```", README, re.DOTALL)[0])
    async with client(shipped_bundles) as http:
        response = await http.post("/v1/search", json={"query": "mug", "filter": {"field": "brnad", "in": ["x"]}})
    told = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    for name in ("type", "title", "status"):
        assert told[name] == shown[name]
    assert shown["detail"] in told["detail"]


def _parsed(line: str) -> tuple[str, str, dict[str, str], str | None]:
    words = shlex.split(line)[1:]
    headers, body, url, method = {}, None, "", None
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        elif word == "-X":
            method = words.pop(0)
        elif not word.startswith("-"):
            url = word.removeprefix("localhost:8000")
    return method or ("GET" if body is None else "POST"), url, headers, body


_CONTENT = ("hits", "product", "items", "results", "categories", "stage", "accepted")


def _has_content(answer: Any) -> bool:
    if isinstance(answer, list):
        return bool(answer)
    return any(answer.get(name) for name in _CONTENT)
