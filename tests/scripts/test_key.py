"""`aisle key`: a key, and the line by which a service knows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.api import keyfile
from app.api.access import SEARCH, WRITE
from app.api.keys import Keys
from app.errors import Forbidden
from scripts.cli import main as aisle

Told = pytest.CaptureFixture[str]


def test_a_key_is_printed_once_with_its_line(capsys: Told) -> None:
    """Two lines on standard output: the key, and what is kept of it."""
    assert aisle(["key", "shop", "--scope", "write,search", "--expires", "2999-12-31"]) == 0
    key, line = capsys.readouterr().out.splitlines()
    assert line == f"shop search,write {keyfile.digest_of(key.encode()).hex()} 2999-12-31"
    assert aisle(["key", "shop", "--scope", "write,search"]) == 0
    assert capsys.readouterr().out.splitlines()[0] != key


def test_an_appended_key_opens_what_its_scopes_say(tmp_path: Path, capsys: Told) -> None:
    """The file is for its owner alone; a second key of the same name leaves the first as it was."""
    path = tmp_path / "keys"
    made = []
    for _ in range(2):
        assert aisle(["key", "shop", "--scope", "search", "--append", str(path), "--json"]) == 0
        made.append(json.loads(capsys.readouterr().out))
    assert path.read_text().splitlines() == [one["line"] for one in made]
    assert path.stat().st_mode & 0o777 == 0o600
    keys = Keys(path)
    for one in made:
        headers = [(b"authorization", f"Bearer {one['key']}".encode())]
        keys.admit(SEARCH, headers)
        with pytest.raises(Forbidden, match="write"):
            keys.admit(WRITE, headers)


@pytest.mark.parametrize(
    "words",
    [
        ["shop"],
        ["shop", "--scope", "read"],
        ["shop", "--scope", ""],
        ["shop", "--scope", "search", "--expires", "soon"],
        ["shop", "--scope", "search", "--expires", "2020-01-01"],
    ],
)
def test_wrong_usage_is_exit_code_two_and_makes_no_key(words: list[str], capsys: Told) -> None:
    """An unknown scope, a date that is none or is over."""
    with pytest.raises(SystemExit) as ended:
        aisle(["key", *words])
    assert ended.value.code == 2
    assert keyfile.PREFIX not in capsys.readouterr().out


def test_a_file_that_is_none_is_left_as_it_is(tmp_path: Path, capsys: Told) -> None:
    """Exit code 1 for it, for a name that no line can hold, and for a folder that is not there; no key is shown."""
    path = tmp_path / "notes"
    path.write_text("my notes\n")
    assert aisle(["key", "shop", "--scope", "search", "--append", str(path)]) == 1
    assert path.read_text() == "my notes\n"
    assert aisle(["key", "two words", "--scope", "search"]) == 1
    assert keyfile.PREFIX not in capsys.readouterr().out
    assert aisle(["key", "shop", "--scope", "search", "--append", str(tmp_path / "no" / "keys")]) == 1
