"""A version with its changes: the large parts as they were built, small ones beside them, and which rows still count.

Nothing of the version is copied or written to. A product that changes is put into a new part under the version's frozen
statistics, and its row before that no longer counts. Rows are numbered through the parts; ties, which in a version are
broken by row, are broken by `places`, which ascend as ids do. So every answer is the one that a version built of the
same products under the same statistics would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from app.errors import BadInput
from app.index.catalog import Catalog
from app.index.columns import MISSING, Counts, KeywordColumn, NumberColumn
from app.index.dense import FewVectors, VectorIndex
from app.index.lexical import LexicalHits, LexicalIndex, LexicalQuery
from app.index.titles import FEATURES
from app.types import Floats, Mask, Rows, Sort

Places = npt.NDArray[np.int64]

_STEP = 2**20  # places between two neighbouring products of the version, for what is put between them
_EVERY = 2**31 - 1
_SPARE = 64  # found beyond the depth, so that rows which no longer count need no mask


class Part:
    """Products that changed, as a small version: rows in ascending order of id. `before`: for each, how many products
    of the large one come before it."""

    def __init__(self, catalog: Catalog, words: LexicalIndex, vectors: FewVectors, version: Catalog) -> None:
        self.catalog = catalog
        self.words = words
        self.vectors = vectors
        self.ids = [catalog.id(row) for row in range(len(catalog))]
        self.before = np.array([version.before(one) for one in self.ids], dtype=np.int64)


class Layout:
    """Where the parts' rows lie, which of them hold a product, and in which order."""

    def __init__(self, rows: int, parts: Sequence[Part], live: Mask) -> None:
        """`rows` of the version, then those of the parts; `live`: bool, of all."""
        self.starts = np.cumsum([0, rows, *(len(part.catalog) for part in parts)])
        self.live = live
        self.live.flags.writeable = False
        self.products = int(np.count_nonzero(live))
        self.places = _places(rows, parts)
        self._whole = [bool(live[start:end].all()) for start, end in self._spans()]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def masks(self, allowed: Mask | None) -> list[Mask | None]:
        """For each part, which of its rows are allowed and hold a product; None for all of them."""
        given = self.live if allowed is None else allowed & self.live
        return [
            None if allowed is None and whole else given[start:end]
            for (start, end), whole in zip(self._spans(), self._whole, strict=True)
        ]

    def split(self, rows: Rows) -> Iterator[tuple[int, npt.NDArray[np.intp] | slice, Rows]]:
        """(part, positions among `rows`, rows of that part) of each part that has any."""
        if not len(rows):
            return
        if int(rows.max()) < self.starts[1]:
            yield 0, slice(None), rows
            return
        parts = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(parts).tolist():
            positions = np.flatnonzero(parts == part)
            yield part, positions, (rows[positions] - self.starts[part]).astype(np.int32)

    def at(self, row: int) -> tuple[int, int]:
        """The part of a row, and its row there."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return part, row - int(self.starts[part])

    def ordered(self, rows: Rows) -> Rows:
        """By place."""
        return rows if len(rows) < 2 or int(rows.max()) < self.starts[1] else rows[np.argsort(self.places[rows])]

    def best(self, found: Sequence[tuple[Rows, Floats]], depth: int) -> tuple[Rows, Floats]:
        """The `depth` best of what the parts found: score descending, then by place."""
        held = [(rows + np.int32(start), scores) for (rows, scores), start in zip(found, self.starts, strict=False)]
        rows = np.concatenate([rows for rows, _ in held]).astype(np.int32)
        scores = np.concatenate([scores for _, scores in held])
        order = np.lexsort((self.places[rows], -scores))[:depth]
        return rows[order], scores[order]

    def _spans(self) -> list[tuple[int, int]]:
        ends = self.starts.tolist()
        return list(pairwise(ends))


def _places(rows: int, parts: Sequence[Part]) -> Places:
    """The version's rows a step apart; what changed between them, or before the product of the same id, which then no
    longer counts."""
    changed = [(one, before) for part in parts for one, before in zip(part.ids, part.before.tolist(), strict=True)]
    order = sorted(range(len(changed)), key=lambda at: changed[at][0])
    between = np.empty(len(changed), dtype=np.int64)
    for rank, at in enumerate(order):
        between[at] = changed[at][1] * _STEP - (len(changed) - rank)
    return np.concatenate((np.arange(rows, dtype=np.int64) * _STEP, between))


class LiveCatalog(Catalog):
    """The catalogues of a version and its parts as one."""

    def __init__(self, catalogs: Sequence[Catalog], layout: Layout) -> None:
        self.schema = catalogs[0].schema
        self.columns = catalogs[0].columns  # for their types; values are the parts'
        self._parts = tuple(catalogs)
        self._layout = layout

    def __len__(self) -> int:
        return len(self._layout)

    @property
    def parts(self) -> Sequence[Catalog]:
        return self._parts

    @property
    def live(self) -> Mask | None:
        return self._layout.live

    @property
    def products(self) -> int:
        return self._layout.products

    def rows(self, allowed: Mask | None) -> Rows:
        return super().rows(self._layout.live if allowed is None else allowed & self._layout.live)

    def in_id_order(self, rows: Rows) -> Rows:
        return self._layout.ordered(rows)

    def earlier(self, row: int) -> slice | Rows:
        return np.flatnonzero(self._layout.places < self._layout.places[row]).astype(np.int32)

    def at(self, row: int) -> tuple[Catalog, int]:
        part, own = self._layout.at(row)
        return self._parts[part], own

    def before(self, id: str) -> int:
        raise NotImplementedError("parts stand between the products of a version as it was built")

    def id(self, row: int) -> str:
        part, own = self.at(row)
        return part.id(own)

    def row(self, id: str) -> int | None:
        for number in reversed(range(len(self._parts))):
            own = self._parts[number].row(id)
            if own is not None and self._layout.live[own + self._layout.starts[number]]:
                return own + int(self._layout.starts[number])
        return None

    def document(self, row: int) -> bytes:
        part, own = self.at(row)
        return part.document(own)

    def document_with(self, row: int, fields: Sequence[str]) -> bytes:
        part, own = self.at(row)
        return part.document_with(own, fields)

    def fields(self, row: int) -> dict[str, Any]:
        held: dict[str, Any] = orjson.loads(self.document(row))
        return held

    def facet_counts(self, rows: Rows, field: str, limit: int) -> Counts:
        if isinstance(self.column(field), NumberColumn):
            raise BadInput(f"field {field!r} is a number: it cannot be counted by value")
        split = list(self._layout.split(rows))
        if len(split) == 1:
            return self._parts[split[0][0]].facet_counts(split[0][2], field, limit)
        counts: dict[str | bool, int] = {}
        for part, _, own in split:
            for value, count in self._parts[part].facet_counts(own, field, _EVERY):
                counts[value] = counts.get(value, 0) + count
        return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:limit]

    def order_by(self, rows: Rows, sorts: Sequence[Sort], depth: int | None = None) -> Rows:
        keys = [self._sort_key(rows, sort) for sort in sorts]
        return rows[np.lexsort([self._layout.places[rows], *reversed(keys)])[:depth]]

    def by_popularity(self, allowed: Mask | None, depth: int) -> tuple[Rows, int]:
        found, total = [], 0
        for start, part, own in zip(self._layout.starts, self._parts, self._layout.masks(allowed), strict=False):
            rows, count = part.by_popularity(own, depth)
            found.append(rows + np.int32(start))
            total += count
        rows = np.concatenate(found).astype(np.int32)
        role = self.schema.roles.popularity
        keys = [] if role is None else [self._sort_key(rows, Sort(role, descending=True))]
        return rows[np.lexsort([self._layout.places[rows], *keys])[:depth]], total

    def save(self, folder: object) -> None:
        raise NotImplementedError("changes are kept in their log; a version is built from products")

    def _sort_key(self, rows: Rows, sort: Sort) -> npt.NDArray[Any]:
        """As the columns' own, comparable between parts."""
        if isinstance(self.column(sort.field), KeywordColumn):
            return self._keyword_key(rows, sort)
        kind = np.float64 if isinstance(self.column(sort.field), NumberColumn) else np.int64
        key = np.empty(len(rows), dtype=kind)
        for part, positions, own in self._layout.split(rows):
            key[positions] = self._parts[part].column(sort.field).sort_key(own, sort.descending)
        return key

    def _keyword_key(self, rows: Rows, sort: Sort) -> npt.NDArray[np.int64]:
        """Codes of the version's dictionary a step apart, for the values that only a part has."""
        ordered = self._parts[0].column(sort.field)
        assert isinstance(ordered, KeywordColumn)
        key = np.empty(len(rows), dtype=np.int64)
        others: dict[str, list[int]] = {}
        for part, positions, own in self._layout.split(rows):
            column = self._parts[part].column(sort.field)
            assert isinstance(column, KeywordColumn)
            codes = column.first[own].astype(np.int64)
            if part == 0:
                key[positions] = np.where(codes == MISSING, MISSING, (codes + 1) * _STEP)
                continue
            for position, code in zip(np.arange(len(rows))[positions].tolist(), codes.tolist(), strict=True):
                if code == MISSING:
                    key[position] = MISSING
                else:
                    others.setdefault(column.values[code], []).append(position)
        for rank, value in enumerate(sorted(others)):
            place = ordered.values.place(value)
            same = place < len(ordered.values) and ordered.values[place] == value
            key[others[value]] = (place + 1) * _STEP - (0 if same else len(others) - rank)
        missing = key == MISSING
        key = -key if sort.descending else key
        key[missing] = np.iinfo(np.int64).max
        return key


class LiveWords(LexicalIndex):
    """The lexical indexes of a version and its parts as one. Queries are read, and texts from outside scored, by the
    version's."""

    def __init__(self, indexes: Sequence[LexicalIndex], layout: Layout) -> None:
        self._version = indexes[0]
        self._indexes = tuple(indexes)
        self._layout = layout
        self.spelling = indexes[0].spelling
        self.synonyms = indexes[0].synonyms

    def __len__(self) -> int:
        return len(self._layout)

    def parse(self, text: str, prefix: bool = False) -> LexicalQuery:
        return self._version.parse(text, prefix)

    def information(self, text: str) -> float:
        return self._version.information(text)

    def term(self, number: int) -> str:
        return self._version.term(number)

    def title_features_of(self, query: LexicalQuery, title: str) -> Floats:
        return self._version.title_features_of(query, title)

    def score_text(self, query: LexicalQuery, title: str, text: str) -> tuple[float, float]:
        return self._version.score_text(query, title, text)

    def search(self, query: LexicalQuery, depth: int, allowed: Mask | None = None) -> LexicalHits:
        masks = self._layout.masks(allowed)
        found = [index.search(query, depth, own) for index, own in zip(self._indexes, masks, strict=True)]
        rows, scores = self._layout.best([(one.rows, one.scores) for one in found], depth)
        return LexicalHits(rows, scores, sum(one.matched for one in found))

    def scores(self, query: LexicalQuery, rows: Rows) -> Floats:
        scores = np.empty((len(rows), 2), dtype=np.float32)
        for part, positions, own in self._layout.split(rows):
            scores[positions] = self._indexes[part].scores(query, own)
        return scores

    def holds(self, query: LexicalQuery, rows: Rows) -> npt.NDArray[np.int8]:
        held = np.empty((len(rows), len(query.terms)), dtype=np.int8)
        for part, positions, own in self._layout.split(rows):
            held[positions] = self._indexes[part].holds(query, own)
        return held

    def title_features(self, query: LexicalQuery, rows: Rows) -> Floats:
        features = np.empty((len(rows), len(FEATURES)), dtype=np.float32)
        for part, positions, own in self._layout.split(rows):
            features[positions] = self._indexes[part].title_features(query, own)
        return features

    def save(self, folder: object) -> None:
        raise NotImplementedError("changes are kept in their log; a version is built from products")


class LiveVectors:
    """The vectors of a version and its parts as one."""

    def __init__(self, indexes: Sequence[VectorIndex], layout: Layout) -> None:
        self._indexes = tuple(indexes)
        self._layout = layout

    def __len__(self) -> int:
        return len(self._layout)

    @property
    def kind(self) -> str:
        return self._indexes[0].kind

    @property
    def dimension(self) -> int:
        return self._indexes[0].dimension

    @property
    def products(self) -> int:
        return self._layout.products

    def search(self, query: Floats, depth: int, allowed: Mask | None) -> tuple[Rows, Floats]:
        first = None if allowed is not None else self._indexes[0].search(query, depth + _SPARE, None)
        return self._found(query, depth, allowed, first)

    def search_many(self, queries: Floats, depth: int) -> list[tuple[Rows, Floats]]:
        firsts = self._indexes[0].search_many(queries, depth + _SPARE)
        return [self._found(query, depth, None, first) for query, first in zip(queries, firsts, strict=True)]

    def _found(
        self, query: Floats, depth: int, allowed: Mask | None, first: tuple[Rows, Floats] | None
    ) -> tuple[Rows, Floats]:
        """`first`: the version's best without a mask, some beyond the depth."""
        masks = self._layout.masks(allowed)
        kept = None if first is None else self._kept(first, depth)
        found = [kept if kept is not None else self._indexes[0].search(query, depth, masks[0])]
        found += [index.search(query, depth, own) for index, own in zip(self._indexes[1:], masks[1:], strict=True)]
        return self._layout.best(found, depth)

    def _kept(self, found: tuple[Rows, Floats], depth: int) -> tuple[Rows, Floats] | None:
        """Of the version's best, those that still count: a mask would cost more than a few found in vain. None where
        those were too many."""
        rows, scores = found
        kept = self._layout.live[rows]
        if int(np.count_nonzero(kept)) < min(depth, len(rows)) and len(rows) == depth + _SPARE:
            return None
        return rows[kept][:depth], scores[kept][:depth]

    def scores(self, query: Floats, rows: Rows) -> Floats:
        scores = np.empty(len(rows), dtype=np.float32)
        for part, positions, own in self._layout.split(rows):
            scores[positions] = self._indexes[part].scores(query, own)
        return scores

    def vector(self, row: int) -> Floats:
        part, own = self._layout.at(row)
        return self._indexes[part].vector(own)
