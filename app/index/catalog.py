"""The catalogue: what each row is, in columns to filter, sort and count by and in documents to give back.

Files of a catalogue: `catalog.json` (schema, number of rows), `catalog.ids.*`, `catalog.documents.*`, `catalog.<i>.*`
for the column of the i-th field, and `catalog.popularity.*.npy`. All are mapped into memory but the documents, which
are read one by one when an answer needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import orjson

from app.errors import AisleError, BadInput, CorruptPart
from app.index.arrays import CHECKED_AT_ONCE, load_array, release, save_array
from app.index.columns import (
    COLUMN_TYPES,
    Blobs,
    BooleanColumn,
    Codes,
    Column,
    Counts,
    KeywordColumn,
    NumberColumn,
    StringTable,
)
from app.index.schema import FieldSpec, Schema
from app.pace import give_way
from app.types import Mask, Product, Rows, Sort

FORMAT = 1
LEAF_MASK_BYTES = 64 * 2**20


class LeafMasks:
    """Masks of filter leaves, least recently used first out. Thread-safe; a mask may be computed twice at first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._masks: dict[object, Mask] = {}
        self._lock = Lock()

    def get(self, leaf: object, make: Callable[[], Mask]) -> Mask:
        """The leaf's mask, read-only: bool[N]."""
        with self._lock:
            mask = self._masks.pop(leaf, None)
            if mask is not None:
                self._masks[leaf] = mask
                return mask
        mask = make()
        mask.flags.writeable = False
        with self._lock:
            self._masks[leaf] = mask
            while len(self._masks) > self._capacity:
                del self._masks[next(iter(self._masks))]
        return mask

    def __len__(self) -> int:
        return len(self._masks)


class Catalog:
    """Products of one version, by row. Immutable and safe to read from any thread."""

    def __init__(
        self,
        schema: Schema,
        ids: StringTable,
        documents: Blobs,
        columns: Mapping[str, Column],
        order: Codes,
        rank: Codes,
    ) -> None:
        self.schema = schema
        self.columns = columns
        self._ids = ids
        self._documents = documents
        self._order = order  # rows by popularity, and
        self._rank = rank  # each row's place in that order
        self.leaf_masks = LeafMasks(capacity=max(4, min(256, LEAF_MASK_BYTES // max(1, len(ids)))))

    @classmethod
    def build(cls, products: Sequence[Product], schema: Schema) -> Catalog:
        """A catalogue of products in ascending order of id; BadInput for a repeated id or another order."""
        for before, after in pairwise(products):
            if before.id == after.id:
                raise BadInput(f"duplicate product id {after.id!r}")
            if before.id > after.id:
                raise BadInput(f"products are not in ascending order of id: {after.id!r} follows {before.id!r}")
        columns = {spec.name: _build_column(spec, products) for spec in schema.fields if spec.type in COLUMN_TYPES}
        documents = Blobs.build(_document(product, schema) for product in products)
        order = _popularity_order(columns, schema, len(products))
        return cls(schema, StringTable.build(p.id for p in products), documents, columns, order, _inverse(order))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def parts(self) -> Sequence[Catalog]:
        """What rows are numbered through: this catalogue alone, or one with its changes (live.py)."""
        return (self,)

    @property
    def live(self) -> Mask | None:
        """Rows that hold a product; None where all do."""
        return None

    @property
    def products(self) -> int:
        """How many products there are."""
        return len(self)

    def rows(self, allowed: Mask | None) -> Rows:
        """Rows of products, those that are allowed."""
        return np.arange(len(self), dtype=np.int32) if allowed is None else np.flatnonzero(allowed).astype(np.int32)

    def in_id_order(self, rows: Rows) -> Rows:
        """Ascending rows in ascending order of their products' ids."""
        return rows

    def earlier(self, row: int) -> slice | Rows:
        """Rows whose ids come before that row's."""
        return slice(0, row)

    def at(self, row: int) -> tuple[Catalog, int]:
        """The part that holds a row, and its row there."""
        return self, row

    def before(self, id: str) -> int:
        """How many ids come before this one."""
        return self._ids.place(id)

    def id(self, row: int) -> str:
        return self._ids[row]

    def row(self, id: str) -> int | None:
        """The product's row, or None for an unknown id; a binary search."""
        return self._ids.find(id)

    def document(self, row: int) -> bytes:
        """The stored fields as one JSON object in UTF-8, without the id."""
        return self._documents[row]

    def document_with(self, row: int, fields: Sequence[str]) -> bytes:
        """The named stored fields as a JSON object, in the order asked for; those the product lacks are left out."""
        held = orjson.loads(self._documents[row])
        return orjson.dumps({name: held[name] for name in fields if name in held})

    def fields(self, row: int) -> dict[str, Any]:
        """The stored fields as values."""
        held: dict[str, Any] = orjson.loads(self._documents[row])
        return held

    def column(self, name: str) -> Column:
        """The column of a field; BadInput for unknown fields and for text, which has none."""
        column = self.columns.get(name)
        if column is None:
            self.schema.named(name)
            raise BadInput(f"field {name!r} is text: it cannot be filtered, sorted or counted by")
        return column

    def facet_counts(self, rows: Rows, field: str, limit: int) -> Counts:
        """Values of a keyword or boolean field with the number of the rows that have them: count descending, then
        value ascending. Whether a field is offered as a facet (`FieldSpec.facet`) is for the caller to say."""
        column = self.column(field)
        if isinstance(column, NumberColumn):
            raise BadInput(f"field {field!r} is a number: it cannot be counted by value")
        return column.counts(rows, limit)

    def order_by(self, rows: Rows, sorts: Sequence[Sort], depth: int | None = None) -> Rows:
        """The rows sorted by the keys, the first the strongest; products without a value last, ties by row.

        With `depth` only the first that many, without sorting the others.
        """
        keys = [self.column(sort.field).sort_key(rows, sort.descending) for sort in sorts]
        if keys and depth is not None and 0 < depth < len(rows):
            last = np.partition(keys[0], depth - 1)[depth - 1]
            within = np.flatnonzero(keys[0] <= last)  # every tie with the last one stays; a missing (NaN) one keeps all
            if len(within):
                rows, keys = rows[within], [key[within] for key in keys]
        return rows[np.lexsort([rows, *reversed(keys)])[:depth]]

    def by_popularity(self, allowed: Mask | None, depth: int) -> tuple[Rows, int]:
        """The `depth` most popular allowed rows (ties and unknown popularity by row), and how many are allowed."""
        if allowed is None:
            return self._order[:depth], len(self)
        total = int(np.count_nonzero(allowed))
        if total * 8 < len(self):
            rows = np.flatnonzero(allowed).astype(np.int32)
            ranks = self._rank[rows]
            if total > depth:
                ranks = np.partition(ranks, depth - 1)[:depth] if depth > 0 else ranks[:0]
            return self._order[np.sort(ranks)], total
        return self._walk(allowed, min(depth, total)), total

    def _walk(self, allowed: Mask, depth: int) -> Rows:
        """The first `depth` allowed rows in order of popularity; at least one row in eight is allowed."""
        found: list[Rows] = []
        missing, at, step = depth, 0, max(1024, 4 * depth)
        while missing > 0:
            block = self._order[at : at + step]
            found.append(block[allowed[block]][:missing])
            missing -= len(found[-1])
            at, step = at + step, 2 * step
        return np.concatenate(found) if found else self._order[:0]

    def save(self, folder: Path) -> None:
        head = {"format": FORMAT, "rows": len(self), "schema": self.schema.to_json()}
        (folder / "catalog.json").write_bytes(orjson.dumps(head, option=orjson.OPT_INDENT_2))
        self._ids.save(folder / "catalog.ids")
        self._documents.save(folder / "catalog.documents")
        for number, spec in enumerate(self.schema.fields):
            if spec.name in self.columns:
                self.columns[spec.name].save(folder / f"catalog.{number}")
        save_array(folder / "catalog.popularity.order.npy", self._order)
        save_array(folder / "catalog.popularity.rank.npy", self._rank)

    @classmethod
    def load(cls, folder: Path) -> Catalog:
        """Map what `save` wrote; CorruptPart names the file that does not fit the others."""
        schema, rows = _load_head(folder / "catalog.json")
        columns: dict[str, Column] = {}
        for number, spec in enumerate(schema.fields):
            if spec.type in COLUMN_TYPES:
                columns[spec.name] = COLUMN_TYPES[spec.type].load(folder / f"catalog.{number}", rows)
        ids = StringTable.load(folder / "catalog.ids", rows)
        documents = Blobs.load(folder / "catalog.documents", rows, mapped=False)
        order = load_array(folder / "catalog.popularity.order.npy", np.int32, rows)
        rank = load_array(folder / "catalog.popularity.rank.npy", np.int32, rows)
        if rows and not _is_permutation(order, rank):
            raise CorruptPart("catalog.popularity.order.npy: not an order of the rows")
        release(order)
        release(rank)
        return cls(schema, ids, documents, columns, order, rank)


def _load_head(path: Path) -> tuple[Schema, int]:
    try:
        head = orjson.loads(path.read_bytes())
        if head["format"] != FORMAT:
            raise CorruptPart(f"{path.name}: format {head['format']!r}, this release reads {FORMAT}")
        rows = head["rows"]
        if not isinstance(rows, int) or rows < 0:
            raise CorruptPart(f"{path.name}: {rows!r} is not a number of rows")
        return Schema.from_json(head["schema"]), rows
    except CorruptPart:
        raise
    except (OSError, ValueError, KeyError, TypeError, AisleError) as error:
        raise CorruptPart(f"{path.name}: cannot be read ({error})") from error


def _build_column(spec: FieldSpec, products: Sequence[Product]) -> Column:
    values = (spec.value(product.fields) for product in products)
    if spec.type == "keyword":
        return KeywordColumn.build([_keywords(value) for value in values])
    if spec.type == "number":
        return NumberColumn.build(_number(value) for value in values)
    return BooleanColumn.build(value if isinstance(value, bool) else None for value in values)


def _keywords(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, str) and item]
    return []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _document(product: Product, schema: Schema) -> bytes:
    return orjson.dumps({name: product.fields[name] for name in schema.stored_names if name in product.fields})


def _popularity_order(columns: Mapping[str, Column], schema: Schema, rows: int) -> Codes:
    every = np.arange(rows, dtype=np.int32)
    if schema.roles.popularity is None:
        return every
    key = columns[schema.roles.popularity].sort_key(every, descending=True)
    return np.argsort(key, kind="stable").astype(np.int32)


def _is_permutation(order: Codes, rank: Codes) -> bool:
    if order.min() != 0 or order.max() != len(order) - 1:
        return False
    for start in range(0, len(order), CHECKED_AT_ONCE):
        piece = order[start : start + CHECKED_AT_ONCE]
        if not np.array_equal(rank[piece], np.arange(start, start + len(piece))):
            return False
        give_way()
    return True


def _inverse(order: Codes) -> Codes:
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank
