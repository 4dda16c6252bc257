"""The two files a shop judges relevance with: queries and graded (query, product) pairs.

``queries.tsv`` is ``query_id<TAB>text``; ``qrels.tsv`` is ``query_id<TAB>product_id<TAB>grade``. Both are UTF-8 without
a header. Reading is strict: a line that does not fit is refused with its file and number, because a judgement that is
silently lost or read twice moves every figure computed from it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

Duplicates = Literal["refuse", "last", "max"]


class JudgementError(ValueError):
    """A judgement file, or a set of judgements, that cannot be used; the message names the file and the line."""


class Queries(Mapping[str, str]):
    """Query texts by query id, in file order. Read-only."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Raises JudgementError on an id or a text that the file format cannot hold."""
        for query_id, text in texts.items():
            _check_field("query id", query_id)
            _check_field("query text", text)
        self._texts = dict(texts)

    def __getitem__(self, query_id: str) -> str:
        return self._texts[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"Queries({len(self)} queries)"

    @classmethod
    def load(cls, path: str | Path) -> Queries:
        """Read a ``query_id<TAB>text`` file.

        Raises JudgementError (file, line) on a wrong number of fields, an empty field or an id seen before, and OSError
        if the file cannot be read.
        """
        texts: dict[str, str] = {}
        for where, (query_id, text) in _rows(Path(path), ("query_id", "text")):
            if query_id in texts:
                raise JudgementError(f"{where}: query id {query_id!r} was given before")
            texts[query_id] = text
        return cls(texts)

    def save(self, path: str | Path) -> None:
        """Write the file that `load` reads."""
        _write(Path(path), (f"{query_id}\t{text}" for query_id, text in self.items()))

    @property
    def digest(self) -> str:
        """sha256 (hex) of the content; the order of the lines does not change it."""
        return _digest(f"{query_id}\t{text}" for query_id, text in self.items())


class Qrels(Mapping[str, Mapping[str, float]]):
    """Grades by query id and product id. Read-only.

    Grades are finite and not negative; what a grade is worth, and from which grade a product counts as relevant, is
    said by `models.relevance.metrics.Gain`. ``conflicts`` counts the pairs that were judged twice with different
    grades.
    """

    def __init__(self, grades: Mapping[str, Mapping[str, float]], conflicts: int = 0) -> None:
        """Raises JudgementError on an id or a grade that the file format cannot hold, and on a query without grades."""
        self._grades = {
            query_id: {product_id: float(g) for product_id, g in row.items()} for query_id, row in grades.items()
        }
        self.conflicts = conflicts
        for query_id, row in self._grades.items():
            _check_field("query id", query_id)
            if not row:
                raise JudgementError(f"query {query_id!r} has no judged product")
            for product_id, grade in row.items():
                _check_field("product id", product_id)
                _check_grade(grade, f"grade of ({query_id!r}, {product_id!r})")

    def __getitem__(self, query_id: str) -> Mapping[str, float]:
        return self._grades[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._grades)

    def __len__(self) -> int:
        return len(self._grades)

    def __repr__(self) -> str:
        return f"Qrels({len(self)} queries, {self.pairs} pairs)"

    @property
    def pairs(self) -> int:
        """How many (query, product) pairs are judged."""
        return sum(len(row) for row in self._grades.values())

    @property
    def digest(self) -> str:
        """sha256 (hex) of the content; the order of the lines does not change it."""
        return _digest(self._lines())

    @classmethod
    def load(cls, path: str | Path, duplicates: Duplicates = "refuse") -> Qrels:
        """Read a ``query_id<TAB>product_id<TAB>grade`` file.

        A pair given again with the same grade is accepted. With another grade it is refused, or, by ``duplicates``, the
        ``last`` or the ``max`` grade is kept and the pair is counted in ``conflicts``.

        Raises JudgementError (file, line) on a wrong number of fields, an empty field, a grade that is not a finite
        number of at least 0, or such a conflict, and OSError if the file cannot be read.
        """
        if duplicates not in ("refuse", "last", "max"):
            raise ValueError(f"duplicates must be 'refuse', 'last' or 'max', not {duplicates!r}")
        grades: dict[str, dict[str, float]] = {}
        conflicting: set[tuple[str, str]] = set()
        for where, (query_id, product_id, field) in _rows(Path(path), ("query_id", "product_id", "grade")):
            grade = _parse_grade(field, where)
            row = grades.setdefault(query_id, {})
            before = row.get(product_id, grade)
            if before != grade:
                if duplicates == "refuse":
                    raise JudgementError(
                        f"{where}: ({query_id!r}, {product_id!r}) is graded {grade:g} here and {before:g} before;"
                        " duplicates 'max' or 'last' would keep one"
                    )
                conflicting.add((query_id, product_id))
            row[product_id] = max(before, grade) if duplicates == "max" else grade
        return cls(grades, conflicts=len(conflicting))

    def save(self, path: str | Path) -> None:
        """Write the file that `load` reads."""
        _write(Path(path), self._lines())

    def restrict(self, query_ids: Iterable[str]) -> Qrels:
        """The judgements of these queries alone, for a fold or a segment. Raises KeyError on a query that has none."""
        return Qrels({query_id: self._grades[query_id] for query_id in query_ids})

    def _lines(self) -> Iterator[str]:
        for query_id, row in self._grades.items():
            for product_id, grade in row.items():
                yield f"{query_id}\t{product_id}\t{int(grade) if grade.is_integer() else repr(grade)}"


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line with its "file:line", checked for number and emptiness."""
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first id, where it would never match again.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object[: error.start].count(b"\n") + 1
        raise JudgementError(f"{path}:{bad}: not UTF-8") from error
    # Not splitlines(): it also breaks at U+2028 and the like, which a query text may hold.
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        fields = line.removesuffix("\r").split("\t")
        if len(fields) != len(columns):
            raise JudgementError(f"{where}: expected {'<TAB>'.join(columns)}, found {len(fields)} field(s)")
        for column, field in zip(columns, fields, strict=True):
            _check_field(column, field, where)
        yield where, fields


def _check_field(column: str, field: str, where: str = "") -> None:
    place = f"{where}: " if where else ""
    if not field.strip():
        raise JudgementError(f"{place}empty {column}")
    if any(character in field for character in "\t\n\r"):
        raise JudgementError(f"{place}{column} {field!r} holds a tab or a line break")


def _parse_grade(field: str, where: str) -> float:
    try:
        grade = float(field)
    except ValueError:
        raise JudgementError(f"{where}: grade {field!r} is not a number") from None
    _check_grade(grade, f"{where}: grade")
    return grade


def _check_grade(grade: float, what: str) -> None:
    if not math.isfinite(grade) or grade < 0:
        raise JudgementError(f"{what} {grade} is not a finite number of at least 0")


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8")).hexdigest()
