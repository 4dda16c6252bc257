"""The typed filter: parsed from JSON against a schema, evaluated to a mask of rows.

    {"all": [...]}  {"any": [...]}  {"not": {...}}
    {"field": "brand", "in": ["Sony", "JBL"]}      {"field": "brand", "eq": "Sony"}
    {"field": "price", "gte": 20, "lt": 90}        {"field": "price", "exists": true}

A value that a product lacks satisfies no `in`, `eq` or bound; `not` is the plain complement, so it does hold there. A
field with several values satisfies `in` when any of them is listed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from app.errors import BadInput
from app.index.catalog import Catalog
from app.index.columns import BooleanColumn, KeywordColumn, NumberColumn
from app.index.schema import SHOWN_CHARACTERS, FieldSpec, Schema, suggestion
from app.types import Mask

MAX_DEPTH = 16
MAX_VALUES = 1024
MAX_NODES = 1024
_LARGEST_KEPT = 4096  # characters in the values of a leaf whose mask is kept: the leaf is the key, and held with it

Value = str | float | bool


@dataclass(frozen=True, slots=True)
class All:
    of: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    of: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    of: Filter


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of the values, which are distinct and ascending."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number lies within the bounds that are given."""

    field: str
    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    field: str


Leaf = In | Range | Exists
Filter = All | AnyOf | Not | Leaf

_BOUNDS = ("gte", "gt", "lte", "lt")
_LEAF_KEYS = ("field", "in", "eq", "exists", *_BOUNDS)
_KEYS = ("all", "any", "not", *_LEAF_KEYS)


def parse(raw: Any, schema: Schema) -> Filter | None:
    """The filter that a JSON value means; None for None. BadInput says where it is wrong (`filter.all[1].gte: …`)."""
    return None if raw is None else _Parser(schema).node(raw, "filter", 1)


class _Parser:
    """One pass over the raw value; counts nodes and values so that a filter's cost stays bounded."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._nodes = 0
        self._values = 0

    def node(self, raw: Any, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise _wrong(path, f"nested deeper than {MAX_DEPTH} levels")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _wrong(path, f"more than {MAX_NODES} conditions")
        if not isinstance(raw, dict):
            raise _wrong(path, f"must be an object, not {_kind(raw)}")
        for key in raw:
            if key not in _KEYS:
                raise _wrong(path, f"unknown key {key[:SHOWN_CHARACTERS]!r}{suggestion(key, _KEYS)}")
        group = next((key for key in ("all", "any", "not") if key in raw), None)
        if group is None:
            return self._leaf(raw, path)
        if len(raw) > 1:
            raise _wrong(path, f"{group!r} stands alone, without {_listed(key for key in raw if key != group)}")
        if group == "not":
            return Not(self.node(raw["not"], f"{path}.not", depth + 1))
        members = self._members(raw[group], f"{path}.{group}", depth)
        return All(members) if group == "all" else AnyOf(members)

    def _members(self, raw: Any, path: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(raw, list):
            raise _wrong(path, f"must be a list, not {_kind(raw)}")
        if not raw:
            raise _wrong(path, "must not be empty")
        return tuple(self.node(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(raw))

    def _leaf(self, raw: dict[str, Any], path: str) -> Filter:
        spec = self._spec(raw, path)
        bounds = [key for key in _BOUNDS if key in raw]
        tests = [key for key in ("in", "eq", "exists") if key in raw]
        if len(tests) + bool(bounds) != 1:
            raise _wrong(path, "needs exactly one of 'in', 'eq', 'exists' or bounds (gte, gt, lte, lt)")
        if bounds:
            return self._range(raw, bounds, spec, path)
        if "exists" in raw:
            return self._exists(raw["exists"], spec, path)
        if "eq" in raw:
            return In(spec.name, (self._value(raw["eq"], spec, f"{path}.eq"),))
        return self._in(raw["in"], spec, f"{path}.in")

    def _spec(self, raw: dict[str, Any], path: str) -> FieldSpec:
        if "field" not in raw:
            raise _wrong(path, "needs 'field', 'all', 'any' or 'not'")
        name = raw["field"]
        if not isinstance(name, str):
            raise _wrong(f"{path}.field", f"must be text, not {_kind(name)}")
        try:
            spec = self._schema.named(name)
        except BadInput as error:
            raise _wrong(f"{path}.field", error.detail) from None
        if spec.type == "text":
            raise _wrong(f"{path}.field", f"{name!r} is a text field and cannot be filtered by")
        return spec

    def _in(self, raw: Any, spec: FieldSpec, path: str) -> In:
        if not isinstance(raw, list):
            raise _wrong(path, f"must be a list, not {_kind(raw)}")
        if not raw:
            raise _wrong(path, "must not be empty")
        values = {self._value(value, spec, f"{path}[{index}]") for index, value in enumerate(raw)}
        return In(spec.name, tuple(sorted(values)))

    def _range(self, raw: dict[str, Any], bounds: list[str], spec: FieldSpec, path: str) -> Range:
        if spec.type != "number":
            raise _wrong(f"{path}.{bounds[0]}", f"bounds need a number field, but {spec.name!r} is {spec.type}")
        for pair in (("gte", "gt"), ("lte", "lt")):
            if pair[0] in raw and pair[1] in raw:
                raise _wrong(path, f"{pair[0]!r} and {pair[1]!r} exclude each other")
        return Range(spec.name, **{key: self._number(raw[key], f"{path}.{key}") for key in bounds})

    def _exists(self, raw: Any, spec: FieldSpec, path: str) -> Filter:
        if not isinstance(raw, bool):
            raise _wrong(f"{path}.exists", f"must be true or false, not {_kind(raw)}")
        return Exists(spec.name) if raw else Not(Exists(spec.name))

    def _value(self, raw: Any, spec: FieldSpec, path: str) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _wrong(path, f"more than {MAX_VALUES} values")
        if spec.type == "number":
            return self._number(raw, path)
        if spec.type == "boolean":
            if not isinstance(raw, bool):
                raise _wrong(path, f"{spec.name!r} is boolean: must be true or false, not {_kind(raw)}")
            return raw
        if not isinstance(raw, str):
            raise _wrong(path, f"{spec.name!r} is keyword: must be text, not {_kind(raw)}")
        if not raw.isascii():
            try:
                raw.encode()
            except UnicodeEncodeError:
                raise _wrong(path, "is not valid Unicode") from None
        return raw

    def _number(self, raw: Any, path: str) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise _wrong(path, f"must be a number, not {_kind(raw)}")
        try:
            value = float(raw)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise _wrong(path, "must be a finite number")
        return value + 0.0  # -0.0 becomes 0.0, so that equal filters have equal bytes


def _wrong(path: str, message: str) -> BadInput:
    return BadInput(f"{path}: {message}", errors=[{"field": path, "message": message}])


def _listed(keys: Any) -> str:
    return ", ".join(repr(key) for key in keys)


def _kind(raw: Any) -> str:
    """What JSON calls the value."""
    if raw is None:
        return "null"
    kinds = {bool: "a boolean", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(raw), type(raw).__name__)


def mask(filter: Filter, catalog: Catalog) -> Mask:
    """Rows that satisfy the filter: bool[N]. May be shared with other callers: never write to it."""
    if catalog.live is not None:
        return np.concatenate([mask(filter, part) for part in catalog.parts])
    if isinstance(filter, Not):
        return ~mask(filter.of, catalog)
    if isinstance(filter, All | AnyOf):
        combine = np.logical_and if isinstance(filter, All) else np.logical_or
        result = mask(filter.of[0], catalog)
        if len(filter.of) > 1:
            result = combine(result, mask(filter.of[1], catalog))
            for member in filter.of[2:]:
                combine(result, mask(member, catalog), out=result)
        return result
    if isinstance(filter, In) and _size(filter) > _LARGEST_KEPT:
        return _leaf_mask(filter, catalog)
    return catalog.leaf_masks.get(filter, lambda: _leaf_mask(filter, catalog))


def _size(leaf: In) -> int:
    return sum(len(value) if isinstance(value, str) else 8 for value in leaf.values)


def _leaf_mask(leaf: Leaf, catalog: Catalog) -> Mask:
    column = catalog.column(leaf.field)
    if isinstance(leaf, Exists):
        return column.exists()
    if isinstance(leaf, Range):
        return _range_mask(leaf, column)
    # The values have the column's type: the parser saw to it.
    if isinstance(column, KeywordColumn):
        return column.is_in([value for value in leaf.values if isinstance(value, str)])
    if isinstance(column, BooleanColumn):
        return column.is_in([value for value in leaf.values if isinstance(value, bool)])
    return column.is_in([float(value) for value in leaf.values])


def _range_mask(leaf: Range, column: object) -> Mask:
    if not isinstance(column, NumberColumn):
        raise BadInput(f"bounds need a number field, but {leaf.field!r} is none")
    result = column.exists()
    values = column.values
    if leaf.gte is not None:
        result &= values >= leaf.gte
    if leaf.gt is not None:
        result &= values > leaf.gt
    if leaf.lte is not None:
        result &= values <= leaf.lte
    if leaf.lt is not None:
        result &= values < leaf.lt
    return result


def canonical(filter: Filter) -> bytes:
    """The filter as bytes for a cache key: equal for filters that differ only in the order or repetition of values."""
    return orjson.dumps(_plain(filter))


def _plain(filter: Filter) -> list[Any]:
    if isinstance(filter, All | AnyOf):
        return ["all" if isinstance(filter, All) else "any", *(_plain(member) for member in filter.of)]
    if isinstance(filter, Not):
        return ["not", _plain(filter.of)]
    if isinstance(filter, In):
        return ["in", filter.field, *sorted(set(filter.values))]
    if isinstance(filter, Range):
        return ["range", filter.field, filter.gte, filter.gt, filter.lte, filter.lt]
    return ["exists", filter.field]


def fields_of(filter: Filter) -> frozenset[str]:
    """Names of the fields that the filter constrains."""
    if isinstance(filter, All | AnyOf):
        return frozenset().union(*(fields_of(member) for member in filter.of))
    if isinstance(filter, Not):
        return fields_of(filter.of)
    return frozenset((filter.field,))


def without(filter: Filter, field: str) -> Filter | None:
    """The filter less the conjuncts that constrain `field` alone; None where nothing is left.

    Conjuncts are the members of an outer `all`, or the whole filter. Counting a facet under this filter shows the
    values that could be chosen instead or besides (disjunctive facets).
    """
    members: Sequence[Filter] = filter.of if isinstance(filter, All) else (filter,)
    kept = tuple(member for member in members if fields_of(member) != {field})
    if len(kept) == len(members):
        return filter
    if not kept:
        return None
    return kept[0] if len(kept) == 1 else All(kept)
