"""The command line as a newcomer and as a nightly job use it."""

from __future__ import annotations

import csv
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import BundleError, CorruptPart
from app.index.bundle import BundleStore
from app.index.dense import ExactIndex
from app.search.embed import Encoder
from app.types import Floats, Mask, Rows, SearchRequest
from scripts.build import _recall_probe
from scripts.cli import COMMANDS
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import open_current

Told = pytest.CaptureFixture[str]


def _build(catalogue: Path, encoder: Path, bundles: Path, *more: str) -> int:
    return aisle(["build", str(catalogue), "--encoder", str(encoder), "--bundles", str(bundles), *more])


def _told(capsys: Told) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return value


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: Told) -> None:
    """--help names what it takes, and exits with 0."""
    with pytest.raises(SystemExit) as ended:
        aisle([command, "--help"])
    assert ended.value.code == 0
    assert "usage: aisle" in capsys.readouterr().out


def test_wrong_usage_is_exit_code_two() -> None:
    """An unknown command or option."""
    for words in (["serch"], ["search"], ["build", "x", "--bundles", "y", "--frobnicate"]):
        with pytest.raises(SystemExit) as ended:
            aisle(words)
        assert ended.value.code == 2


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_every_form_of_a_catalogue_gives_the_same_products(
    form: str, tiny_bundles: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    """Ids and documents equal those of the JSONL build."""
    rows = [{**row, "category": row["category"][-1]} for row in tiny.products()]
    catalogue = tmp_path / f"products.{form}"
    if form.startswith("jsonl"):
        tiny.write_catalogue(catalogue, rows)
    elif form == "csv":
        with catalogue.open("w", newline="", encoding="utf-8") as file:
            sheet = csv.DictWriter(file, list(rows[0]))
            sheet.writeheader()
            sheet.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), catalogue)
    assert _build(catalogue, tiny_encoder, tmp_path / "b") == 0
    searcher, expected = open_current(tmp_path / "b"), open_current(tiny_bundles)
    assert [searcher.catalog.id(row) for row in range(60)] == [expected.catalog.id(row) for row in range(60)]
    titles = [searcher.catalog.fields(row)["title"] for row in range(60)]
    assert titles == [row["title"] for row in tiny.products()]
    prices = [searcher.catalog.fields(row).get("price") for row in range(60)]
    assert prices == [row["price"] for row in tiny.products()]


def test_refused_rows_are_counted_with_their_reasons(tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """A bad row costs itself, never the build; the manifest and the output say how many and why."""
    rows: list[dict[str, Any]] = [*tiny.products(10), {"id": "p001", "title": "twice"}, {"title": "no id"}, {"id": "x"}]
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", rows)
    catalogue.write_bytes(catalogue.read_bytes() + b"{not json}\n")
    assert _build(catalogue, tiny_encoder, tmp_path / "b", "--json") == 0
    told = _told(capsys)
    assert told["products"] == 10
    assert sum(told["refused"].values()) == 4
    assert len(told["refused"]) == 4
    assert told["refused_examples"][0] == {"line": 11, "detail": "duplicate id: 'p001' came before"}


def test_a_person_is_told_which_lines_were_refused(tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """The first few, with their reasons."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", [*tiny.products(3), {"id": "x"}])
    assert _build(catalogue, tiny_encoder, tmp_path / "b") == 0
    assert "line 4: no title" in capsys.readouterr().err


def test_a_price_that_is_no_number_is_warned_of(tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """Else the shop finds out when a filter is refused; a price in numbers brings no word (control)."""
    rows = tiny.products(10)
    assert _build(tiny.write_catalogue(tmp_path / "p.jsonl", rows), tiny_encoder, tmp_path / "b") == 0
    assert "price" not in capsys.readouterr().err
    dollars = [{**row, "price": f"${row['price']}"} for row in rows]
    assert _build(tiny.write_catalogue(tmp_path / "p.jsonl", dollars), tiny_encoder, tmp_path / "b") == 0
    assert "warning: price holds text, such as '$" in capsys.readouterr().err


def test_a_title_of_nothing_but_signs_does_not_stop_a_build(tiny_encoder: Path, tmp_path: Path) -> None:
    """It leaves no query to keep as a golden one; the product is there all the same."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", [{"id": "sign", "title": "™"}, *tiny.products(3)])
    assert _build(catalogue, tiny_encoder, tmp_path / "b") == 0
    assert open_current(tmp_path / "b").catalog.row("sign") is not None


def test_synonyms_are_a_verified_part_of_the_version(tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """What the file says is served, and a changed part is refused; a wrong line is named and nothing is published."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products())
    words = tmp_path / "shop.txt"
    words.write_text("# houses' words\nteapot => kettle\n", "utf-8")
    assert _build(catalogue, tiny_encoder, tmp_path / "b", "--synonyms", str(words), "--json") == 0
    assert _told(capsys)["synonyms"] == 1
    searcher = open_current(tmp_path / "b")
    parsed = searcher.words.parse(searcher.query(SearchRequest("teapot")).text or "")
    assert parsed.words == ("kettle",) and searcher.words.search(parsed, 5).matched > 0
    part = tmp_path / "b" / searcher.version / "lexical.synonyms.json"
    part.write_text(part.read_text("utf-8").replace("kettle", "mettle"), "utf-8")
    with pytest.raises(CorruptPart, match=r"lexical\.synonyms\.json"):
        open_current(tmp_path / "b")
    for content, reason in ((b"a, b\nc\n", "line 2"), (b"a, b\n\xff, c\n", "line 2: not UTF-8")):
        words.write_bytes(content)
        assert _build(catalogue, tiny_encoder, tmp_path / "c", "--synonyms", str(words)) == 1
        assert reason in capsys.readouterr().err
    assert _build(catalogue, tiny_encoder, tmp_path / "c", "--synonyms", str(tmp_path / "none.txt")) == 1
    assert BundleStore(tmp_path / "c").current() is None


def test_a_nightly_rebuild_embeds_only_what_changed(
    tiny_encoder: Path, tmp_path: Path, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One new text, one changed price, one changed title → two embedded; vectors bit-equal to a whole build."""
    rows = tiny.products()
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", rows)
    assert _build(catalogue, tiny_encoder, tmp_path / "b", "--json") == 0
    assert _told(capsys)["vectors"] == {"embedded": 60, "reused": 0, "given": 0}
    rows[3]["title"] = "A quite different kettle"
    rows[4]["price"] = 1.0
    rows.append({**rows[0], "id": "p900", "title": "New wooden speaker"})
    tiny.write_catalogue(catalogue, rows)
    seen: list[int] = []
    whole = Encoder.products
    monkeypatch.setattr(Encoder, "products", lambda self, texts: seen.append(len(texts)) or whole(self, texts))  # type: ignore[func-returns-value]
    reuse = ["--reuse", "current", "--no-publish", "--json"]  # publishing encodes products of its own choice again
    assert _build(catalogue, tiny_encoder, tmp_path / "b", *reuse) == 0
    told = _told(capsys)
    assert told["vectors"] == {"embedded": 2, "reused": 59, "given": 0}
    assert sum(seen) == 4, "a title and a whole text for each of the two"
    assert aisle(["publish", told["version"], "--bundles", str(tmp_path / "b")]) == 0
    assert _build(catalogue, tiny_encoder, tmp_path / "whole") == 0
    reused, anew = open_current(tmp_path / "b"), open_current(tmp_path / "whole")
    for row in range(61):
        assert np.array_equal(reused.vectors.vector(row), anew.vectors.vector(row))


def test_vectors_of_another_encoder_are_not_reused(tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """The digest tells."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products(10))
    assert _build(catalogue, tiny_encoder, tmp_path / "b") == 0
    other = tiny.write_encoder(tmp_path / "other", seed=99)
    assert _build(catalogue, other, tmp_path / "b", "--reuse", "current") == 1
    assert "another encoder" in capsys.readouterr().err


def test_given_vectors_are_taken_as_they_are(tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """In the order of their own ids. A stranger's are taken too, with a warning, for a first version; to replace
    one that is served they must be the encoder's."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products(10))
    ids = [f"p{number:03}" for number in reversed(range(10))]
    vectors = np.random.default_rng(0).standard_normal((10, tiny.DIMENSION)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "v.ids.txt").write_text("\n".join(ids) + "\n")
    given = ["--vectors", str(tmp_path / "v.npy")]
    assert _build(catalogue, tiny_encoder, tmp_path / "c") == 0
    before = BundleStore(tmp_path / "c").current()
    assert _build(catalogue, tiny_encoder, tmp_path / "c", *given) == 3
    assert BundleStore(tmp_path / "c").current() == before
    assert _build(catalogue, tiny_encoder, tmp_path / "b", *given) == 0
    told = capsys.readouterr().err
    assert "mean cosine" in told and "long" in told
    searcher = open_current(tmp_path / "b")
    for place, product in enumerate(ids):
        row = searcher.catalog.row(product)
        assert row is not None
        np.testing.assert_allclose(searcher.vectors.vector(row), vectors[place], atol=2e-3)


@pytest.mark.promise(
    "D7",
    "vectors that are not finite, zero or do not fit: the build ends with 1, names them, publishes nothing",
    control="sound vectors are taken by the same command",
)
@pytest.mark.parametrize("fault", ["lacking", "twice", "shape", "nan", "zero", "vast", "minute", "pickle", "absent"])
def test_vectors_that_do_not_fit_are_refused(fault: str, tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """Named; nothing is published; nothing is unpickled."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products(10))
    ids = [f"p{number:03}" for number in range(10)]
    vectors = np.ones((10, tiny.DIMENSION), dtype=np.float32)
    if fault == "lacking":
        ids[4] = "other"
    elif fault == "twice":
        ids[4] = "p003"
    elif fault == "shape":
        vectors = vectors[:, :-1]
    elif fault == "nan":
        vectors[3, 3] = np.nan
    elif fault in ("zero", "vast", "minute"):  # float16 ends at 65,504 and begins at 6e-8
        vectors[3] *= {"zero": 0, "vast": 1e5, "minute": 1e-9}[fault]
    if fault == "pickle":
        np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif fault != "absent":
        np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "v.ids.txt").write_text("\n".join(ids))
    assert _build(catalogue, tiny_encoder, tmp_path / "b", "--vectors", str(tmp_path / "v.npy")) == 1
    assert "--vectors" in capsys.readouterr().err
    assert BundleStore(tmp_path / "b").current() is None


def test_publish_rollback_versions_verify(tiny_bundles: Path, tiny_encoder: Path, tmp_path: Path, capsys: Told) -> None:
    """The life of a version from the command line, with its exit codes."""
    bundles = tmp_path / "b"
    shutil.copytree(tiny_bundles, bundles)
    first = BundleStore(bundles).current()
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products(50))
    assert _build(catalogue, tiny_encoder, bundles, "--no-publish", "--json") == 0
    second = _told(capsys)["version"]
    where = ["--bundles", str(bundles)]
    assert BundleStore(bundles).current() == first
    assert aisle(["publish", second, *where]) == 0
    assert BundleStore(bundles).current() == second
    assert aisle(["rollback", *where]) == 0
    assert BundleStore(bundles).current() == first
    assert aisle(["rollback", *where]) == 1
    capsys.readouterr()
    assert aisle(["versions", *where, "--json"]) == 0
    assert {row["version"]: row["served"] for row in _told(capsys)["versions"]} == {first: True, second: False}
    assert aisle(["verify", *where]) == 0
    part = BundleStore(bundles).path(second) / "dense.faiss"
    part.write_bytes(part.read_bytes()[:-1] + b"\0\0")
    assert aisle(["verify", *where, "--version", second]) == 3
    assert "dense.faiss" in capsys.readouterr().err
    assert aisle(["publish", second, *where]) == 3
    assert aisle(["publish", "20200101-00000000", *where]) == 1


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_file_of_pairs_is_rescored_as_online(form: str, tiny_bundles: Path, tmp_path: Path, capsys: Told) -> None:
    """Same scores as a search gives; a bad pair is its own error; other columns stay."""
    searcher = open_current(tiny_bundles)
    ids = [searcher.catalog.id(row) for row in range(12)]
    rows: list[dict[str, Any]] = [{"query": "steel mug", "id": one, "text": None, "note": f"n{one}"} for one in ids]
    rows += [
        {"query": "steel mug", "id": None, "text": "a steel mug", "note": "t"},
        {"query": "steel mug", "id": "nobody", "text": None, "note": "u"},
        {"query": "steel mug", "id": None, "text": None, "note": "v"},
    ]
    given, made = tmp_path / f"in.{form}", tmp_path / f"out.{form}"
    if form == "jsonl":
        tiny.write_catalogue(given, rows)
    elif form == "csv":
        with given.open("w", newline="") as file:
            sheet = csv.DictWriter(file, list(rows[0]))
            sheet.writeheader()
            sheet.writerows({k: v or "" for k, v in row.items()} for row in rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), given)
    assert aisle(["rescore", str(given), str(made), "--bundles", str(tiny_bundles)]) == 0
    if form == "parquet":
        scored = pq.read_table(made).to_pylist()
    elif form == "csv":
        scored = list(csv.DictReader(made.open()))
    else:
        scored = [json.loads(line) for line in made.read_text().splitlines()]
    assert [row["note"] for row in scored] == [row["note"] for row in rows]
    capsys.readouterr()
    assert aisle(["search", "steel mug", "--bundles", str(tiny_bundles), "-k", "60", "--json"]) == 0
    online = {hit["id"]: hit["score"] for hit in _told(capsys)["hits"]}
    found = {row["id"]: float(row["score"]) for row in scored if row["id"] in online}
    assert found and all(score == pytest.approx(online[one], abs=1e-9) for one, score in found.items())
    assert float(scored[12]["score"]) > 0
    assert scored[13]["error"] == "unknown product"
    assert scored[14]["error"] == "give an id or a text"


def _rescored(given: Path, made: Path, bundles: Path) -> list[dict[str, Any]]:
    assert aisle(["rescore", str(given), str(made), "--bundles", str(bundles)]) == 0
    if made.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(made).to_pylist()
        return rows
    return [json.loads(line) for line in made.read_text().splitlines()]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_column_that_begins_with_a_thousand_gaps_is_kept(form: str, tiny_bundles: Path, tmp_path: Path) -> None:
    """Ids first and texts later, as a union of two tables has them, whatever wrote the file."""
    rows: list[dict[str, Any]] = [{"query": "mug", "id": "p000", "text": None}] * 1000
    rows.append({"query": "mug", "id": None, "text": "a steel mug"})
    given = tmp_path / f"in.{form}"
    if form == "jsonl":
        tiny.write_catalogue(given, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), given)
    scored = _rescored(given, tmp_path / "out.parquet", tiny_bundles)
    assert len(scored) == 1001
    assert scored[-1]["text"] == "a steel mug" and scored[-1]["score"] > 0


def test_a_table_of_no_pairs_gives_a_table_of_no_scores(tiny_bundles: Path, tmp_path: Path) -> None:
    """A night without pairs is not a failure, and the file is there."""
    pq.write_table(
        pa.table({"query": pa.array([], pa.string()), "id": pa.array([], pa.int64())}), tmp_path / "i.parquet"
    )
    assert _rescored(tmp_path / "i.parquet", tmp_path / "o.parquet", tiny_bundles) == []
    assert pq.read_schema(tmp_path / "o.parquet").names == ["query", "id", "score", "error"]


def test_ids_and_dates_of_a_data_frame_come_through(tiny_encoder: Path, tmp_path: Path) -> None:
    """Integer ids with gaps are floats there, gaps are NaN, and JSON has no dates."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", [{"id": 7, "title": "steel mug"}])
    assert _build(catalogue, tiny_encoder, tmp_path / "b") == 0
    day = datetime.date(2026, 1, 2)
    table = {"query": ["mug"] * 2, "id": [7.0, float("nan")], "text": [None, "a mug"], "day": [day, day]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    scored = _rescored(tmp_path / "in.parquet", tmp_path / "out.jsonl", tmp_path / "b")
    assert [row["error"] for row in scored] == [None, None]
    assert scored[0]["day"] == "2026-01-02"


def test_pairs_as_editors_and_spreadsheets_write_them(tiny_bundles: Path, tmp_path: Path, capsys: Told) -> None:
    """Byte order marks, blank lines, semicolons and long cells are read."""
    (tmp_path / "i.jsonl").write_text('\ufeff{"query": "mug", "id": "p000"}\n\n{"query": "mug", "id": "p001"}\n')
    assert len(_rescored(tmp_path / "i.jsonl", tmp_path / "o.jsonl", tiny_bundles)) == 2
    (tmp_path / "i.csv").write_text(f'query;text\nmug;"{"steel mug; " * 20_000}"\n')
    assert len(_rescored(tmp_path / "i.csv", tmp_path / "o.jsonl", tiny_bundles)) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("i.csv", "query,id\nmug,p000\nmug,p001,more\n", "i.csv:3: more cells"),
        ("i.csv", "query,id\nmug,p000\nmug," + "x" * 1_100_000, "field larger than field limit"),
        ("i.jsonl", '{"query": "mug", "id": "p000"}\noops\n', "i.jsonl:2: not JSON"),
        ("i.jsonl", '{"query": "mug", "id": "p000"}\n{"query": ["mug"], "id": "p000"}\n', "changes its type"),
        ("absent.csv", None, "absent.csv"),
    ],
)
def test_a_rescoring_that_fails_says_where_and_leaves_nothing(
    name: str, content: str | None, said: str, tiny_bundles: Path, tmp_path: Path, capsys: Told
) -> None:
    """One line with the file's name, no traceback, no half of an output."""
    if content is not None:
        (tmp_path / name).write_text(content)
    before = sorted(tmp_path.iterdir())
    assert aisle(["rescore", str(tmp_path / name), str(tmp_path / "o.parquet"), "--bundles", str(tiny_bundles)]) == 1
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_setting_out_of_range_is_named_as_it_was_given(capsys: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option, or by the variable."""
    assert aisle(["serve", "--port", "99999", "--bundles", "b"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("aisle: --port '99999': ") and "65535" in told
    monkeypatch.setenv("AISLE_PORT", "99998")
    assert aisle(["serve", "--bundles", "b"]) == 2
    assert capsys.readouterr().err.startswith("aisle: AISLE_PORT='99998': ")


def test_words_need_no_quotes(tiny_bundles: Path, capsys: Told) -> None:
    """As one text, quoted or not; words that no product has are told."""
    found = []
    for words in (["steel mug"], ["steel", "mug"]):
        assert aisle(["search", *words, "--bundles", str(tiny_bundles), "--json"]) == 0
        found.append(_told(capsys)["hits"])
    assert found[0] == found[1] != []
    assert aisle(["search", "qzxqzx", "--bundles", str(tiny_bundles)]) == 0
    assert "closest in meaning" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "mug", "--bundles", "nowhere"], "aisle build"),
        (["build", "nowhere.jsonl", "--bundles", "b"], "nowhere.jsonl"),
        (["build", "nowhere.xlsx", "--bundles", "b"], "xlsx"),
        (["build", "p.jsonl", "--bundles", "b", "--encoder", "nowhere"], "--encoder nowhere"),
        (
            ["build", "p.jsonl", "--bundles", "b", "--queries", "nowhere.tsv", "--qrels", "q"],
            "nowhere.tsv: no such file",
        ),
        (["build", "p.jsonl", "--bundles", "b", "--queries", "q.tsv"], "--qrels"),
        (["build", "p.jsonl", "--bundles", "b", "--vectors", "v.npy", "--reuse", "current"], "exclude"),
    ],
)
def test_a_mistake_is_said_in_a_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    """What is wrong and, where there is one, the way out; exit code 1."""
    monkeypatch.chdir(tmp_path)
    tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products(3))
    assert aisle(words) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_many_products_of_one_text_are_no_fault_of_the_index() -> None:
    """Whichever of two hundred equals the index brings, it has found the best."""
    one = np.full(tiny.DIMENSION, tiny.DIMENSION**-0.5, dtype=np.float32)

    class Backwards(ExactIndex):
        def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
            rows = np.arange(len(self) - depth, len(self), dtype=np.int32)
            return rows, self.scores(query, rows)

    alike = np.tile(one, (200, 1))
    assert _recall_probe(Backwards(alike), alike) == 1.0
    alike[100:] *= -1
    with pytest.raises(BundleError, match="exact top 100"):
        _recall_probe(Backwards(alike), alike)


def test_versions_are_listed_in_the_order_of_their_making(tiny_bundles: Path, tmp_path: Path, capsys: Told) -> None:
    """Also those of one day, whose names do not tell."""
    store = BundleStore(tmp_path / "b")
    day = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    made = []
    for hour in range(8):
        with store.building() as folder:
            made.append(store.seal(folder, {"products": hour}, day.replace(hour=hour)))
    assert made != sorted(made), "the control: names alone would not do"
    assert aisle(["versions", "--bundles", str(tmp_path / "b"), "--json"]) == 0
    assert [row["version"] for row in _told(capsys)["versions"]] == made


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["publish", "20200101-00000000", "--bundles", "BUNDLES"], 1, "no version"),
        (["search", "mug", "--bundles", "BUNDLES", "--profile", "best"], 1, "no profile 'best'"),
        (["versions", "--bundles", "BUNDLES", "--collection", "Shop"], 3, "refused: a collection's name"),
    ],
)
def test_with_json_an_error_is_an_object_too(
    words: list[str], code: int, said: str, tiny_bundles: Path, capsys: Told
) -> None:
    """A script reads one JSON object from standard output however the command ends; people read the other stream."""
    words = [str(tiny_bundles) if word == "BUNDLES" else word for word in words]
    assert aisle(words) == code
    told = capsys.readouterr()
    assert not told.out and said in told.err and "warning" not in told.err
    assert aisle([*words, "--json"]) == code
    told = capsys.readouterr()
    value = json.loads(told.out)
    assert value["exit_code"] == code and said in value["error"] and said in told.err


def test_a_folder_that_may_not_be_written_is_exit_code_three(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    """Permission is a refusal; a full disk, whoever notices it, is a failure in one line that leaves nothing behind."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", tiny.products(3))
    for error, code in ((PermissionError(13, "Permission denied", "b"), 3), (RuntimeError("write error"), 1)):

        def write_index(index: object, path: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("app.index.dense.faiss.write_index", write_index)
        assert _build(catalogue, tiny_encoder, tmp_path / "b") == code
        assert "Traceback" not in capsys.readouterr().err
        assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("option", [["-k", "0"], ["-k", "-3"], ["-k", "ten"], ["--filter", "{brand"]])
def test_an_option_that_cannot_be_meant_is_wrong_usage(option: list[str], tiny_bundles: Path, capsys: Told) -> None:
    """No answer of nothing for nought products; a filter that is not JSON is told so."""
    with pytest.raises(SystemExit) as ended:
        aisle(["search", "mug", "--bundles", str(tiny_bundles), *option])
    assert ended.value.code == 2
    assert {"-k": "from 1 on", "--filter": "not JSON"}[option[0]] in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "r.toml"], ["distill", "p.jsonl", "--teacher", "t", "--out", "o"]])
def test_no_threads_is_wrong_usage(words: list[str], capsys: Told) -> None:
    """Said before PyTorch is loaded, which would end in a traceback."""
    with pytest.raises(SystemExit) as ended:
        aisle([*words, "--threads", "0"])
    assert ended.value.code == 2
    assert "from 1 on" in capsys.readouterr().err


def test_a_benchmark_of_nothing_is_said_in_a_line(tmp_path: Path, capsys: Told) -> None:
    """Not by the traceback of the process that would have measured."""
    assert aisle(["bench", "--bundles", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "nothing is published" in told and "Traceback" not in told
