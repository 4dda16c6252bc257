"""Catalogue files → products: JSON lines, CSV (both plain or gzip) and Parquet.

    reader = open_catalogue(Path("products.jsonl.gz"), Path("mapping.toml"))
    products = sorted(reader.products(), key=lambda product: product.id)
    catalog = Catalog.build(products, reader.schema)

A file is read twice: once to see which columns there are and what they hold, once for the products, one at a time.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import decimal
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from app.errors import BadInput
from app.index.record import RecordRefused, product_id, typed_fields
from app.index.schema import CatalogueInfo, Schema
from app.types import Product
from scripts.column_profile import ColumnProfile, Profiles
from scripts.mapping import load_mapping, resolve

MAX_LINE_BYTES = 8 * 2**20
MAX_CELL_CHARACTERS = 2**20
MAX_COLUMNS = 2000
MAX_EXAMPLES = 5
PARQUET_BATCH_ROWS = 2048
_CHUNK_BYTES = 2**20
_NO_VALUE = frozenset(("", "NaN", "nan", "NULL", "N/A", "#N/A", "#NV", "<NA>", "\\N"))  # how tables write it in CSV

Row = tuple[int, dict[str, Any] | RecordRefused]
"""Line (JSON lines, CSV) or row (Parquet) counted from 1, and the record or why there is none."""


@dataclass(slots=True)
class ReadReport:
    """What became of a file's rows: how many there were, how many became products, the refused ones by reason, and
    the first few refused with their lines."""

    rows: int = 0
    products: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    examples: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, line: int, error: RecordRefused) -> None:
        self.refused[error.reason] = self.refused.get(error.reason, 0) + 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append((line, f"{error.reason}: {error.detail}"))

    def to_json(self) -> dict[str, Any]:
        examples = [{"line": line, "detail": detail} for line, detail in self.examples]
        return {"rows": self.rows, "products": self.products, "refused": dict(self.refused), "examples": examples}

    def __str__(self) -> str:
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(self.refused.items()))
        return f"{self.rows} rows, {self.products} products, refused: {refused or 'none'}"


class CatalogueReader:
    """One catalogue file under one mapping. `report` belongs to the latest pass of `products()`."""

    def __init__(self, path: Path, mapping_path: Path | None = None) -> None:
        self._path = path
        self._rows = _format(path)
        mapping = load_mapping(mapping_path)
        self._mapping = resolve(mapping, _profiles(path, self._rows))
        self.info: CatalogueInfo = mapping.info
        self.schema: Schema = self._mapping.schema
        self.report = ReadReport()

    def products(self) -> Iterator[Product]:
        """The products in the file's order, typed by the schema; refused rows are counted in `report`.

        Of products with one id the first is kept. BadInput at the end when no row was a product.
        """
        report = self.report = ReadReport()
        seen: set[str] = set()
        for line, record in self._rows(self._path):
            report.rows += 1
            try:
                product = self._product(record)
                if product.id in seen:
                    raise RecordRefused("duplicate id", f"{product.id!r} came before")
            except RecordRefused as error:
                report.refuse(line, error)
                continue
            seen.add(product.id)
            report.products += 1
            yield product
        if not report.products:
            first = f"; first, line {report.examples[0][0]}: {report.examples[0][1]}" if report.examples else ""
            raise BadInput(f"{self._path}: no row is a product ({report}){first}")

    def _product(self, record: dict[str, Any] | RecordRefused) -> Product:
        if isinstance(record, RecordRefused):
            raise record
        id = product_id(record.get(self._mapping.id_column))
        return Product(id, typed_fields(self._mapping.record(record), self.schema))


def open_catalogue(path: Path, mapping_path: Path | None = None) -> CatalogueReader:
    """A reader whose `schema` and `info` are known at once and whose `products()` may be called any number of times.

    BadInput for a missing file, an unknown extension, an empty or damaged file, and a mapping that does not fit.
    """
    return CatalogueReader(path, mapping_path)


def read(path: Path, mapping_path: Path | None = None) -> Iterator[Product]:
    """The products of a catalogue file, refused rows left out; `open_catalogue` also reports them."""
    return open_catalogue(path, mapping_path).products()


def _format(path: Path) -> Callable[[Path], Iterator[Row]]:
    if not path.exists():
        raise BadInput(f"catalogue {path} does not exist")
    if not path.is_file():
        raise BadInput(f"catalogue {path} is not a file")
    name = path.name.lower()
    for ending, rows in _FORMATS.items():
        if name.endswith(ending):
            return rows
    raise BadInput(f"catalogue {path}: unknown extension; known: {', '.join(_FORMATS)}")


def _profiles(path: Path, rows: Callable[[Path], Iterator[Row]]) -> Profiles:
    columns: dict[str, ColumnProfile] = {}
    count = 0
    first: RecordRefused | None = None
    for _, record in rows(path):
        count += 1
        if isinstance(record, RecordRefused):
            first = first or record
            continue
        for name, value in record.items():
            profile = columns.get(name)
            if profile is None:
                if len(columns) >= MAX_COLUMNS:
                    raise BadInput(f"catalogue {path} has more than {MAX_COLUMNS} columns")
                profile = columns[name] = ColumnProfile()
            profile.see(value)
    if not columns:
        why = f": none of its {count} rows can be read; the first: {first.detail}" if first else " is empty"
        raise BadInput(f"catalogue {path}{why}")
    return Profiles(columns, untyped=rows is _csv_rows)


def _opened(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"), 2**18)
    return path.open("rb")


def _json_rows(path: Path) -> Iterator[Row]:
    line_number = 0
    try:
        with _opened(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                line_number += 1
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    _skip_line(file)
                    yield line_number, RecordRefused("oversize line", f"longer than {MAX_LINE_BYTES} bytes")
                elif not line.isspace():
                    yield line_number, _json_record(line.removeprefix(b"\xef\xbb\xbf") if line_number == 1 else line)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"catalogue {path} is damaged after line {line_number}: {error}") from error


def _skip_line(file: IO[bytes]) -> None:
    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _json_record(line: bytes) -> dict[str, Any] | RecordRefused:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            record = orjson.loads(_repaired(line))
        except (ValueError, RecursionError) as error:
            return RecordRefused("bad JSON", str(error) or "cannot be parsed")
    if not isinstance(record, dict):
        return RecordRefused("not an object", f"a line must hold one JSON object, not {type(record).__name__}")
    return record


def _repaired(line: bytes) -> str:
    """The JSON text with lone surrogates and bytes that are not UTF-8 replaced: the strict parser refuses both."""
    lenient = json.loads(line.decode("utf-8", "replace"), parse_constant=_no_constant)
    text = json.dumps(lenient, ensure_ascii=False)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    line = 0
    try:
        encoding = _encoding(path)
        with _opened(path) as binary, io.TextIOWrapper(binary, encoding, "replace", newline="") as file:
            header_line, skipped = file.readline(MAX_CELL_CHARACTERS), 1
            if header_line.rstrip("\r\n")[:-1] == "sep=":  # what spreadsheets are told the delimiter with
                header_line, skipped = file.readline(MAX_CELL_CHARACTERS), 2
            delimiter = max(",;\t", key=header_line.count)
            header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
            _check_header(header, path)
            # Strict: else a quote that is never closed swallows the rows after it, and nobody hears of it.
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            while True:
                line = reader.line_num + skipped + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, RecordRefused("bad CSV", str(error))
                    continue
                if cells:
                    yield line, _csv_record(header, cells)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"catalogue {path} is damaged after line {line}: {error}") from error


def _encoding(path: Path) -> str:
    """What the file's text is written in. Spreadsheets write UTF-8 with a mark, UTF-16, or the Windows code page: where
    more of the bytes beyond ASCII are broken UTF-8 than whole, it is the last."""
    whole = broken = 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with _opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if not whole + broken and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            text = decoder.decode(chunk)
            beyond = 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))
            bad = text.count("\ufffd")
            whole, broken = whole + beyond - bad, broken + bad
    return "cp1252" if broken > whole else "utf-8-sig"


def _check_header(header: list[str], path: Path) -> None:
    if not any(header):
        raise BadInput(f"catalogue {path} is empty")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise BadInput(f"catalogue {path} has two columns called {repeated[0]!r}")


def _csv_record(header: list[str], cells: list[str]) -> dict[str, Any] | RecordRefused:
    if len(cells) != len(header):
        return RecordRefused("bad CSV", f"{len(cells)} cells under {len(header)} columns")
    return {name: None if cell in _NO_VALUE else cell for name, cell in zip(header, cells, strict=True) if name}


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput(f"catalogue {path}: reading Parquet needs the package pyarrow") from error
    try:
        number = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield number, {name: _json_value(value) for name, value in record.items()}
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"catalogue {path} cannot be read as Parquet: {error}") from error


def _json_value(value: Any) -> Any:
    """A Parquet value as JSON would hold it: dates in ISO 8601, decimals as numbers, bytes as text, maps as objects."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): _json_value(item) for key, item in value}
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


_FORMATS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".jsonl.gz": _json_rows,
    ".ndjson": _json_rows,
    ".csv": _csv_rows,
    ".csv.gz": _csv_rows,
    ".parquet": _parquet_rows,
}
