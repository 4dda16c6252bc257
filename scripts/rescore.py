"""aisle rescore: score the (query, product) pairs of a file; the same functions as online, so the same numbers."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import AisleError, BadInput
from app.runtime.cores import usable_cores
from app.search.searcher import RescoreJob, Searcher
from app.types import Floats, RescoreCandidate, RescoreResult, SearchRequest
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
    rows, failed = 0, 0
    temporary = arguments.output.with_name(f".{arguments.output.name}.part")
    scorer = _Scorer(searcher, arguments.profile)
    with (
        _writer(arguments.output, temporary, arguments.input) as write,
        output.progress("rescoring", unit="pairs") as tick,
        ThreadPoolExecutor(usable_cores()) as pool,
    ):
        batches = _batches(_rows(arguments.input))
        # As many batches in hand as there are cores: flat memory, whatever the file's size.
        while some := list(islice(batches, usable_cores())):
            for scored in pool.map(scorer.score, some):
                write(scored)
                rows += len(scored)
                failed += sum(row["error"] is not None for row in scored)
                tick(len(scored))
    temporary.replace(arguments.output)
    output.result(
        {"rows": rows, "failed": failed, "version": searcher.version, "out": str(arguments.output)},
        f"{rows:,} pairs rescored, {failed:,} with an error, version {searcher.version} → {arguments.output}",
    )
    return 0


class _Scorer:
    def __init__(self, searcher: Searcher, profile: str) -> None:
        self._searcher = searcher
        self._profile = searcher.ranking.profiles[profile]
        self._vector: Callable[[str], Floats] = lru_cache(_REMEMBERED_QUERIES)(
            lambda text: searcher.query_vectors([text], self._profile)[0]
        )

    def score(self, rows: list[Row]) -> list[Row]:
        return [{**row, **self._one(row)} for row in rows]

    def _one(self, row: Row) -> Row:
        identifier, text = _value(row.get("id")), _value(row.get("text"))
        try:
            if not isinstance(row.get("query"), str):
                raise BadInput("no query")
            if (identifier in (None, "")) == (text in (None, "")):
                raise BadInput("give an id or a text")
            query = self._searcher.query(SearchRequest(row["query"], k=1)).text or ""
            candidate = (
                RescoreCandidate(id=str(identifier))
                if identifier not in (None, "")
                else RescoreCandidate(text=str(text))
            )
            vector = self._vector(query) if self._profile.uses_dense else None
            job = RescoreJob(self._searcher, query, self._profile, [candidate], vector=vector)
            self._searcher.rescore(job)
            result = job.results[0]
        except AisleError as error:
            result = RescoreResult(0, error=error.detail)
        return {"score": result.score, "error": result.error}


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


@contextmanager
def _writer(named: Path, path: Path, source: Path) -> Iterator[Callable[[list[Row]], None]]:
    """Yields what to call with each batch; the file is whole once the block ends, and gone where the block fails."""
    try:
        with _opened(named, path, source) as write:
            yield write
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _opened(named: Path, path: Path, source: Path) -> Iterator[Callable[[list[Row]], None]]:
    match _format(named):
        case "parquet":
            typed = _format(source) == "parquet"
            with _ParquetFile(path, pq.read_schema(source) if typed else None) as parquet:
                yield parquet.write
        case "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                sheet = csv.writer(file)
                heads: list[str] = []

                def write_csv(rows: list[Row]) -> None:
                    if not heads:
                        heads.extend(rows[0])
                        sheet.writerow(heads)
                    sheet.writerows([row.get(head) for head in heads] for row in rows)

                yield write_csv
        case _:
            with path.open("w", encoding="utf-8") as lines:
                # Dates and decimals, which Parquet has and JSON has not, become text.
                yield lambda rows: lines.writelines(
                    json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows
                )


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
