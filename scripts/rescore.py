"""aisle rescore: score the (query, product) pairs of a file; the same functions as online, so the same numbers."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import AisleError, BadInput
from app.runtime.cores import usable_cores
from app.search.rescore import Reading, read, scored
from app.search.searcher import Searcher
from app.types import RescoreCandidate, RescoreResult, SearchRequest
from scripts.output import Output
from scripts.stored import add_bundle_arguments, open_version

Row = dict[str, Any]
_BATCH = 512
_REMEMBERED_QUERIES = 4096
_LONGEST_CELL = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", metavar="IN", type=Path, help="JSONL, CSV or Parquet with the columns query and id or text"
    )
    parser.add_argument(
        "output", metavar="OUT", type=Path, help="the same rows with score and error; format by its name"
    )
    parser.add_argument("--profile", default="default", help="ranking profile (default: default)")
    add_bundle_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    searcher = open_version(arguments).searcher
    if arguments.profile not in searcher.ranking.profiles:
        raise BadInput(f"no profile {arguments.profile!r}; there are {', '.join(searcher.ranking.profiles)}")
    scorer = _Scorer(searcher, arguments.profile)
    asked = {"input": _stamp(arguments.input), "version": searcher.version, "profile": arguments.profile}
    with (
        _writer(arguments.output, arguments.input, asked) as (part, write),
        output.progress("rescoring", unit="pairs") as tick,
        ThreadPoolExecutor(usable_cores()) as pool,
    ):
        if part.rows:
            output.say(f"{part.rows:,} pairs were rescored before it was cut short; going on")
            tick(part.rows)
        batches = _batches(islice(_rows(arguments.input), part.rows, None))
        # As many batches in hand as there are cores: flat memory, whatever the file's size.
        while some := list(islice(batches, usable_cores())):
            for scored in pool.map(scorer.score, some):
                write(scored)
                part.rows += len(scored)
                part.failed += sum(row["error"] is not None for row in scored)
                tick(len(scored))
            part.keep()
    output.result(
        {"rows": part.rows, "failed": part.failed, "version": searcher.version, "out": str(arguments.output)},
        f"{part.rows:,} pairs rescored, {part.failed:,} with an error, version {searcher.version} → {arguments.output}",
    )
    return 0


class _Scorer:
    """Scores rows; what a query is to its products is found out once for the latest thousands of queries."""

    def __init__(self, searcher: Searcher, profile: str) -> None:
        self._searcher = searcher
        self._profile = searcher.ranking.profiles[profile]
        self._reading: Callable[[str], Reading] = lru_cache(_REMEMBERED_QUERIES)(
            lambda text: read(searcher, text, self._profile)
        )

    def score(self, rows: list[Row]) -> list[Row]:
        made: list[Row] = []
        for query, group in groupby(rows, key=lambda row: row.get("query")):
            made += self._group(query, list(group))
        return made

    def _group(self, query: Any, rows: list[Row]) -> list[Row]:
        told: list[str | RescoreCandidate] = [_candidate(row) for row in rows]
        candidates = [one for one in told if isinstance(one, RescoreCandidate)]
        try:
            if not isinstance(query, str):
                raise BadInput("no query")
            text = self._searcher.query(SearchRequest(query, k=1)).text or ""
            results = iter(scored(self._searcher, self._reading(text), candidates) if candidates else ())
        except AisleError as error:
            return [{**row, "score": None, "error": error.detail} for row in rows]
        made = []
        for row, one in zip(rows, told, strict=True):
            result = RescoreResult(0, error=one) if isinstance(one, str) else next(results)
            made.append({**row, "score": result.score, "error": result.error})
        return made


def _candidate(row: Row) -> str | RescoreCandidate:
    """What a row asks about, or what is wrong with it."""
    identifier, text = _value(row.get("id")), _value(row.get("text"))
    if (identifier in (None, "")) == (text in (None, "")):
        return "give an id or a text"
    return RescoreCandidate(text=str(text)) if identifier in (None, "") else RescoreCandidate(id=str(identifier))


def _value(cell: Any) -> Any:
    """The cell as it was meant: a column of whole numbers with gaps comes out of a data frame as 7.0 and NaN."""
    if not isinstance(cell, float):
        return cell
    return None if cell != cell else int(cell) if cell.is_integer() else cell


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _rows(path: Path) -> Iterator[Row]:
    match _format(path):
        case "parquet":
            for batch in pq.ParquetFile(path).iter_batches(_BATCH):
                yield from batch.to_pylist()
        case "csv":
            yield from _csv_rows(path)
        case _:
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.isspace():
                        continue
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise BadInput(f"{path.name}:{number}: not JSON ({error})") from error
                    if not isinstance(row, dict):
                        raise BadInput(f"{path.name}:{number}: not an object")
                    yield row


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=head.count), strict=True)
        try:
            if "query" not in (reader.fieldnames or ()):
                raise BadInput(f"{path.name}: no column 'query'; there are {', '.join(reader.fieldnames or ())}")
            for row in reader:
                if None in row:
                    raise csv.Error("more cells than columns")
                yield row
        except csv.Error as error:
            raise BadInput(f"{path.name}:{reader.line_num}: {error}") from error


class _Part:
    """The output while it is made, `.OUT.part`, and how far it is, `.OUT.part.json`: lines survive a run that is cut
    short, and the same command goes on after them. A Parquet file is readable only once it is closed, so it begins
    anew."""

    def __init__(self, named: Path, asked: Row) -> None:
        self.path = named.with_name(f".{named.name}.part")
        self._state = named.with_name(f".{named.name}.part.json")
        self._asked = {**asked, "format": _format(named)}
        self.rows = self.failed = 0
        self.heads: list[str] = []
        self.file: TextIO | None = None
        self.bytes = 0

    def resume(self) -> None:
        """Take up what an earlier run left, if it was asked the same."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(self._state.read_bytes())
            if state["asked"] == self._asked and self.path.stat().st_size >= state["bytes"]:
                self.rows, self.failed, self.bytes = (int(state[name]) for name in ("rows", "failed", "bytes"))
                self.heads = [str(head) for head in state["heads"]]

    def open(self) -> TextIO:
        """The file, cut off behind the last rows that are known to be whole."""
        self.resume()
        self.path.touch()
        os.truncate(self.path, self.bytes)
        self.file = self.path.open("a", newline="", encoding="utf-8")
        return self.file

    def keep(self) -> None:
        """What was written so far will not be made again."""
        if self.file is None:
            return
        self.file.flush()
        os.fsync(self.file.fileno())
        told = {"rows": self.rows, "failed": self.failed, "bytes": self.path.stat().st_size}
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps({"asked": self._asked, "heads": self.heads, **told}), encoding="utf-8")
        new.replace(self._state)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


@contextmanager
def _writer(named: Path, source: Path, asked: Row) -> Iterator[tuple[_Part, Callable[[list[Row]], None]]]:
    """Yields what to call with each batch; the file is there, and whole, once the block ends. Where the block fails for
    something in the input nothing is left; where it is cut short, what the same command needs to go on."""
    part = _Part(named, asked)
    try:
        with _opened(named, part, source) as write:
            yield part, write
        part.path.replace(named)
        part.forget()
    except BaseException as error:
        if part.file is None or isinstance(error, AisleError):
            part.forget()
        raise


@contextmanager
def _opened(named: Path, part: _Part, source: Path) -> Iterator[Callable[[list[Row]], None]]:
    match _format(named):
        case "parquet":
            typed = _format(source) == "parquet"
            with _ParquetFile(part.path, pq.read_schema(source) if typed else None) as parquet:
                yield parquet.write
        case "csv":
            with part.open() as file:
                sheet = csv.writer(file)

                def write_csv(rows: list[Row]) -> None:
                    if not part.heads:
                        part.heads.extend(rows[0])
                        sheet.writerow(part.heads)
                    sheet.writerows([row.get(head) for head in part.heads] for row in rows)

                yield write_csv
        case _:
            with part.open() as lines:
                # Dates and decimals, which Parquet has and JSON has not, become text.
                yield lambda rows: lines.writelines(
                    json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows
                )


def _stamp(path: Path) -> list[int]:
    """Tells a file from another, or from itself before it was changed. Raises BadInput where it is not there."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    return [found.st_size, found.st_mtime_ns]


class _ParquetFile:
    """A Parquet file with the given columns and types, or else those of its first batch, and score and error."""

    def __init__(self, path: Path, kept: pa.Schema | None) -> None:
        self._path = path
        self._schema = None if kept is None else _with_results(kept)
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> _ParquetFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:  # no rows are a table, too
            self._open(_with_results(pa.schema([("query", pa.string())])))
        if self._file is not None:
            self._file.close()

    def write(self, rows: list[Row]) -> None:
        try:
            if self._file is None:
                self._open(_with_results(pa.Table.from_pylist(rows).schema))
            assert self._file is not None
            self._file.write_table(pa.Table.from_pylist(rows, schema=self._file.schema))
        except pa.ArrowException as error:
            raise BadInput(
                f"{self._path.name[1:-5]}: a column changes its type ({error}); JSONL can hold it"
            ) from error

    def _open(self, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(self._path, self._schema or schema)


def _with_results(kept: pa.Schema) -> pa.Schema:
    """The columns that stay, and the results; a column that only has gaps so far is taken for one of texts."""
    fields = [
        pa.field(one.name, pa.string()) if pa.types.is_null(one.type) else one
        for one in kept
        if one.name not in ("score", "error")
    ]
    return pa.schema([*fields, pa.field("score", pa.float64()), pa.field("error", pa.string())])


def _format(path: Path) -> str:
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in ("jsonl", "csv", "parquet"):
        raise BadInput(f"{path.name}: the name must end in .jsonl, .csv or .parquet")
    return suffix
