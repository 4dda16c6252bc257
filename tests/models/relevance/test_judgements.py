"""Judgement files: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.relevance import JudgementError, Qrels, Queries


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / "judgements.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_queries_and_qrels_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """Texts in any script, fractional grades and the order of the lines survive a round trip."""
    queries = Queries({"q2": "16 gb memory card", "q1": "毛衣绿色 拼接"})
    qrels = Qrels({"q2": {"b": 2.33, "a": 3.0}, "q1": {"c": 0.0}})
    queries.save(tmp_path / "q.tsv")
    qrels.save(tmp_path / "r.tsv")
    assert (tmp_path / "r.tsv").read_text() == "q2\tb\t2.33\nq2\ta\t3\nq1\tc\t0\n"
    assert list(Queries.load(tmp_path / "q.tsv").items()) == list(queries.items())
    assert list(Qrels.load(tmp_path / "r.tsv").items()) == list(qrels.items())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("q1\ta\t3\nq1\tb\n", "judgements.tsv:2: expected query_id<TAB>product_id<TAB>grade, found 2"),
        ("q1 a 3\n", "judgements.tsv:1: expected"),
        ("q1\ta\t3\tx\n", "judgements.tsv:1: expected"),
        ("q1\ta\t3\n\nq1\tb\t3\n", "judgements.tsv:2: expected"),
        ("q1\ta\t3\n\tb\t3\n", "judgements.tsv:2: empty query_id"),
        ("q1\t \t3\n", "judgements.tsv:1: empty product_id"),
        ("query_id\tproduct_id\tgrade\n", "judgements.tsv:1: grade 'grade' is not a number"),
        ("q1\ta\tnan\n", "judgements.tsv:1: grade nan"),
        ("q1\ta\tinf\n", "judgements.tsv:1: grade inf"),
        ("q1\ta\t-1\n", "judgements.tsv:1: grade -1"),
        ("q1\ta\t3\nq1\ta\t2\n", "judgements.tsv:2: ('q1', 'a') is graded 2 here and 3 before"),
        (b"q1\ta\t3\nq1\t\xff\t3\n", "judgements.tsv:2: not UTF-8"),
    ],
)
def test_a_malformed_judgement_is_refused_with_its_file_and_line(
    tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    """Nothing is skipped or guessed at."""
    with pytest.raises(JudgementError) as refusal:
        Qrels.load(_file(tmp_path, content))
    assert complaint in str(refusal.value)


def test_a_query_id_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    """Also with the same text: two lines for one id mean that somebody's file is broken."""
    with pytest.raises(JudgementError, match=r"judgements\.tsv:3: query id 'q1' was given before"):
        Queries.load(_file(tmp_path, "q1\tdrill\nq2\tsaw\nq1\tdrill\n"))


def test_windows_line_ends_a_byte_order_mark_and_odd_separators_are_read(tmp_path: Path) -> None:
    """What editors and spreadsheets add is not part of an id, and what Unicode calls a line end is part of a text."""
    loaded = Queries.load(_file(tmp_path, "\ufeffq1\tdrill\r\nq2\tsaw\u2028blade\r\n"))
    assert dict(loaded) == {"q1": "drill", "q2": "saw\u2028blade"}


@pytest.mark.parametrize(("keep", "grade"), [("last", 1.0), ("max", 3.0)])
def test_a_pair_judged_twice_is_settled_as_asked_and_counted(tmp_path: Path, keep: str, grade: float) -> None:
    """Three different grades of one pair are one conflict; the same grade again is none."""
    path = _file(tmp_path, "q1\ta\t2\nq1\ta\t3\nq1\ta\t1\nq1\tb\t2\nq1\tb\t2\n")
    qrels = Qrels.load(path, duplicates=keep)  # type: ignore[arg-type]
    assert qrels["q1"] == {"a": grade, "b": 2.0}
    assert qrels.conflicts == 1


def test_the_digest_follows_the_content_and_not_the_order_of_the_lines(tmp_path: Path) -> None:
    """Two files that judge alike have one digest; one changed grade changes it."""
    first = Qrels.load(_file(tmp_path, "q1\ta\t3\nq2\tb\t2.5\n"))
    again = Qrels.load(_file(tmp_path, "q2\tb\t2.50\nq1\ta\t3.0\n"))
    other = Qrels.load(_file(tmp_path, "q2\tb\t2.5\nq1\ta\t2\n"))
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert len(first.digest) == 64
    assert Queries({"a": "x", "b": "y"}).digest == Queries({"b": "y", "a": "x"}).digest


def test_what_the_file_cannot_hold_is_refused_before_it_is_written() -> None:
    """A tab in a text, an empty id, a grade that is no number and a query without judgements cannot become a file."""
    with pytest.raises(JudgementError, match="tab or a line break"):
        Queries({"q1": "two\twords"})
    with pytest.raises(JudgementError, match="empty product id"):
        Qrels({"q1": {"": 3.0}})
    with pytest.raises(JudgementError, match="not a finite number"):
        Qrels({"q1": {"a": float("nan")}})
    with pytest.raises(JudgementError, match="no judged product"):
        Qrels({"q1": {}})


def test_restricting_keeps_the_judgements_of_the_named_queries_alone() -> None:
    """A fold sees its own queries; asking for one that is not judged is an error."""
    qrels = Qrels({"q1": {"a": 3.0}, "q2": {"b": 1.0, "c": 2.0}})
    assert dict(qrels.restrict(["q2"])) == {"q2": {"b": 1.0, "c": 2.0}}
    assert qrels.pairs == 3
    with pytest.raises(KeyError):
        qrels.restrict(["q9"])
