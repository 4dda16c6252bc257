"""`aisle publish` and the gate in front of it, as a nightly job and a person meet them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.index.bundle import BundleStore
from scripts.cli import main as aisle
from tests import tiny

Told = pytest.CaptureFixture[str]


class Nightly:
    """A published version of sixty products, and candidates of other catalogues beside it."""

    def __init__(self, bundles: Path, encoder: Path, folder: Path, capsys: Told) -> None:
        shutil.copytree(bundles, folder / "b")
        self.store = BundleStore(folder / "b")
        self.first = self.store.current() or ""
        self._encoder, self._folder, self._capsys = encoder, folder, capsys

    def built(self, rows: list[dict[str, Any]], *more: str) -> tuple[int, dict[str, Any]]:
        catalogue = tiny.write_catalogue(self._folder / "p.jsonl", rows)
        words = [str(catalogue), "--encoder", str(self._encoder), *more]
        return self("build", *words)

    def candidate(self, rows: list[dict[str, Any]]) -> str:
        return str(self.built(rows, "--no-publish")[1]["version"])

    def __call__(self, command: str, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit code and the one object that --json prints."""
        self._capsys.readouterr()
        code = aisle([command, *words, "--bundles", str(self.store.folder), "--json"])
        return code, json.loads(self._capsys.readouterr().out)


@pytest.fixture
def nightly(tiny_bundles: Path, tiny_encoder: Path, tmp_path: Path, capsys: Told) -> Nightly:
    """Over a private copy of the tiny bundle."""
    return Nightly(tiny_bundles, tiny_encoder, tmp_path, capsys)


def _unbranded() -> list[dict[str, Any]]:
    return [{**row, "brand": None} for row in tiny.products()]


def test_a_refusal_names_the_layer_and_leaves_the_served_version(nightly: Nightly) -> None:
    """Exit code 3; every check is told, also those that passed; a whole catalogue is published (control)."""
    code, told = nightly("publish", nightly.candidate(_unbranded()))
    assert code == told["exit_code"] == 3 and told["published"] is None
    assert told["gate_verdict"]["layers_refusing"] == ["inputs"]
    assert "layer inputs" in told["error"] and "brand is gone from 100.0%" in told["error"]
    told_of = {one["check"]: one["verdict"] for one in told["gate_verdict"]["checks"]}
    assert told_of["fields"] == "refused" and told_of["vectors"] == told_of["top 100"] == "passed"
    assert nightly.store.current() == nightly.first
    assert nightly("publish", nightly.candidate(tiny.products()))[0] == 0


def test_a_person_reads_a_table(nightly: Nightly, capsys: Told) -> None:
    """One row a check on standard output, and the refusal in a line on the other stream, with the way out."""
    version = nightly.candidate(_unbranded())
    assert aisle(["publish", version, "--bundles", str(nightly.store.folder)]) == 3
    told = capsys.readouterr()
    (row,) = [line.split() for line in told.out.splitlines() if " fields " in line]
    assert row[:3] == ["inputs", "fields", "refused"]
    assert told.err.startswith("aisle: refused: the gate's layer inputs") and "--force" in told.err


def test_a_build_goes_through_the_same_gate(nightly: Nightly) -> None:
    """The version is there to be looked at, and not served."""
    code, told = nightly.built(_unbranded())
    assert code == 3 and told["published"] is False
    assert told["version"] in nightly.store.versions() and nightly.store.current() == nightly.first


def test_force_publishes_and_the_reason_is_kept(nightly: Nightly) -> None:
    """With the table that it overruled. An empty reason is none; what passes anyway is not called forced."""
    version = nightly.candidate(_unbranded())
    assert nightly("publish", version, "--force", " ")[0] == 1
    assert nightly.store.current() == nightly.first
    assert nightly("publish", version, "--force", "the brands were wrong")[0] == 0
    assert nightly.store.current() == version
    record = nightly.store.gate_record(version)
    assert record is not None and record["outcome"] == "forced" and record["reason"] == "the brands were wrong"
    assert [one["check"] for one in record["checks"] if one["verdict"] == "refused"] == ["fields"]
    good = nightly.candidate(_unbranded())
    assert nightly("publish", good, "--force", "to be sure")[1]["gate_verdict"]["outcome"] == "ungated"


def test_versions_tell_what_the_gate_said(nightly: Nightly, capsys: Told) -> None:
    """Ungated without judgements, refused, or nothing for what was never brought before it."""
    refused, silent = nightly.candidate(_unbranded()), nightly.candidate(tiny.products(55))
    nightly("publish", refused)
    _, told = nightly("versions")
    assert {row["version"]: row["gate"] for row in told["versions"]} == {
        nightly.first: "ungated",
        refused: "refused",
        silent: None,
    }
    assert aisle(["versions", "--bundles", str(nightly.store.folder)]) == 0
    lines = {line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    assert lines == {"ungated", "refused", "products"}


def test_with_judgements_a_version_is_gated(nightly: Nightly, tmp_path: Path) -> None:
    """Given at publishing, or with the build; half of them is a mistake."""
    rows = tiny.products()
    asked = [f"{word} {row['title'].split()[-1]}" for row in rows[:6] for word in ("steel", "small")]
    queries, qrels = tmp_path / "q.tsv", tmp_path / "r.tsv"
    queries.write_text("".join(f"q{n}\t{text}\n" for n, text in enumerate(asked)))
    grades = [
        f"q{n}\t{row['id']}\t{3 if text.split()[0] in row['title'] else 1}\n"
        for n, text in enumerate(asked)
        for row in rows
        if row["title"].endswith(text.split()[1])
    ]
    qrels.write_text("".join(grades))
    given = ["--gate-queries", str(queries), "--gate-qrels", str(qrels)]
    code, told = nightly("publish", nightly.candidate(rows), *given)
    assert code == 0 and told["gate_verdict"]["outcome"] == "passed"
    assert nightly("publish", nightly.candidate(rows), *given[:2])[0] == 1
    code, told = nightly.built(rows, *given)
    assert code == 0 and told["gate_verdict"]["outcome"] == "passed" and told["gate"]["pairs"] == len(grades)
    code, told = nightly.built(rows)
    assert told["gate_verdict"]["outcome"] == "passed", "by the judgements that the served version was built with"


def test_a_served_version_that_is_broken_does_not_keep_its_successor_out(nightly: Nightly) -> None:
    """What cannot be compared is not run, and says why."""
    version = nightly.candidate(tiny.products(30))
    part = nightly.store.path(nightly.first) / "lexical.json"
    part.write_bytes(b"{}")
    code, told = nightly("publish", version)
    assert code == 0
    (products,) = [one for one in told["gate_verdict"]["checks"] if one["check"] == "products"]
    assert products["verdict"] == "not run" and "lexical.json" in products["found"]


def test_no_reason_publishes_a_corrupt_version(nightly: Nightly) -> None:
    """The first layer names the part; force cannot make it servable."""
    version = nightly.candidate(tiny.products())
    part = nightly.store.path(version) / "dense.faiss"
    part.write_bytes(part.read_bytes()[:-1] + b"\0\0")
    code, told = nightly("publish", version)
    assert code == 3 and told["gate_verdict"]["layers_refusing"] == ["inputs"] and "dense.faiss" in told["error"]
    assert nightly("publish", version, "--force", "in a hurry")[0] == 3
    assert nightly.store.current() == nightly.first


def test_a_stale_export_is_refused_and_a_rollback_is_not(nightly: Nightly) -> None:
    """An earlier catalogue is known by its digest, or by its date; going back on purpose has its own command."""
    rows = tiny.products()
    day = ["--as-of", "2030-01-02T00:00:00"]
    assert nightly.built(rows[:58], *day)[0] == 0
    code, told = nightly.built(rows[:59], "--as-of", "2030-01-03T00:00:00")
    assert code == 0
    code, told = nightly.built(rows[:58], "--as-of", "2030-01-04T00:00:00")
    assert code == 3 and "has been replaced since" in told["error"]
    code, told = nightly.built(rows[:57], "--as-of", "2030-01-02T12:00:00")
    assert code == 3 and "the served one is of" in told["error"]
    assert nightly("rollback")[0] == 0
    assert nightly.built(rows[:57], "--as-of", "2030-01-02T12:00:00")[0] == 0


def test_a_catalogue_may_be_too_old_to_serve(nightly: Nightly) -> None:
    """Whatever it replaces."""
    old = ["--as-of", "2020-01-02", "--force", "a test of age"]
    assert nightly.built(tiny.products()[:58], *old)[0] == 0
    code, told = nightly.built(tiny.products()[:57], "--as-of", "2020-01-03", "--max-age", "30")
    assert code == 3 and "days old" in told["error"]
    assert nightly.built(tiny.products()[:57], "--as-of", "2020-01-03")[0] == 0


def test_a_record_that_cannot_be_read_is_no_record(nightly: Nightly) -> None:
    """It says something of a version; the version does not depend on it."""
    path = nightly.store.folder / "GATE" / f"{nightly.first}.json"
    assert nightly.store.gate_record(nightly.first) is not None
    for broken in (b"{", b"[]", b"\xff"):
        path.write_bytes(broken)
        assert nightly.store.gate_record(nightly.first) is None
    assert nightly("publish", nightly.candidate(tiny.products()))[0] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["--force", " "],
        ["--margin", "nan"],
        ["--max-age", "nan"],
        ["--max-age", "inf"],
        ["--gate-queries", "nowhere.tsv"],
        ["--gate-queries", "nowhere.tsv", "--gate-qrels", "nowhere.tsv"],
        ["--queries", "nowhere.tsv", "--qrels", "nowhere.tsv"],
    ],
)
def test_what_is_wrong_with_the_gate_s_options_is_said_before_a_version_is_made(
    wrong: list[str], nightly: Nightly
) -> None:
    """Not after an hour of embedding; and a margin that is no number would let every version pass."""
    before = nightly.store.versions()
    code, told = nightly.built(tiny.products(), *wrong)
    assert code == 1 and (wrong[0] in told["error"] or "nowhere.tsv" in told["error"])
    assert nightly.store.versions() == before
