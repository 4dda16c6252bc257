"""Filters: the parser's refusals, masks against a product-by-product check, canonical bytes, disjunctive facets."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadInput
from app.index.catalog import Catalog, LeafMasks
from app.index.filters import All, Exists, Filter, In, Not, Range, canonical, mask, parse, without
from tests.index.random_catalog import SCHEMA, products, random_filter, satisfies

MADE = products(400, seed=2)
CATALOG = Catalog.build(MADE, SCHEMA)


def parsed(raw: Any) -> Filter:
    condition = parse(raw, SCHEMA)
    assert condition is not None
    return condition


def rows_of(raw: Any) -> list[int]:
    return np.flatnonzero(mask(parsed(raw), CATALOG)).tolist()


@pytest.mark.parametrize("seed", range(200))
def test_a_mask_is_what_checking_each_product_gives(seed: int) -> None:
    """Random filters over every type of field, nested three deep, against the obvious evaluation."""
    raw = random_filter(random.Random(seed))
    assert rows_of(raw) == [row for row, product in enumerate(MADE) if satisfies(product, raw)]


def test_random_filters_are_neither_all_empty_nor_all_full() -> None:
    """The control of the test above: its filters do separate products."""
    sizes = [len(rows_of(random_filter(random.Random(seed)))) for seed in range(200)]
    assert sum(0 < size < len(MADE) for size in sizes) > 100


@given(st.integers(0, 10**6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_tightening_a_filter_never_adds_a_product(first: int, second: int) -> None:
    """`all` of two filters is their intersection, `any` their union, `not` the complement."""
    one, two = random_filter(random.Random(first)), random_filter(random.Random(second))
    a, b = set(rows_of(one)), set(rows_of(two))
    assert set(rows_of({"all": [one, two]})) == a & b
    assert set(rows_of({"any": [one, two]})) == a | b
    assert set(rows_of({"not": one})) == set(range(len(MADE))) - a


def test_no_filter_is_none() -> None:
    """An absent filter is no filter, not one that nothing satisfies."""
    assert parse(None, SCHEMA) is None


def test_the_forms_parse_to_typed_nodes() -> None:
    """Each JSON form gives the node it names; numbers become floats and values are ordered and distinct."""
    assert parsed({"field": "brand", "in": ["b", "a", "b"]}) == In("brand", ("a", "b"))
    assert parsed({"field": "brand", "eq": "a"}) == In("brand", ("a",))
    assert parsed({"field": "price", "gte": 2, "lt": 9}) == Range("price", gte=2.0, lt=9.0)
    assert parsed({"field": "fresh", "exists": True}) == Exists("fresh")
    assert parsed({"field": "fresh", "exists": False}) == Not(Exists("fresh"))
    assert parsed({"all": [{"field": "brand", "eq": "a"}]}) == All((In("brand", ("a",)),))


def deep(levels: int) -> dict[str, Any]:
    raw: dict[str, Any] = {"field": "brand", "eq": "a"}
    for _ in range(levels - 1):
        raw = {"not": raw}
    return raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "filter: must be an object, not a list"),
        ("brand", "filter: must be an object, not text"),
        ({}, "filter: needs 'field', 'all', 'any' or 'not'"),
        ({"field": "brnad", "in": ["a"]}, "filter.field: unknown field 'brnad'; did you mean 'brand'?"),
        ({"field": "id", "in": ["a"]}, "filter.field: unknown field 'id'"),
        ({"field": "title", "eq": "a"}, "filter.field: 'title' is a text field and cannot be filtered by"),
        ({"field": 7, "eq": "a"}, "filter.field: must be text, not a number"),
        ({"field": "brand"}, "filter: needs exactly one of"),
        ({"field": "brand", "in": ["a"], "eq": "a"}, "filter: needs exactly one of"),
        ({"field": "price", "in": [1], "gte": 1}, "filter: needs exactly one of"),
        ({"field": "price", "gte": 1, "gt": 1}, "filter: 'gte' and 'gt' exclude each other"),
        ({"field": "price", "gtee": 1}, "filter: unknown key 'gtee'; did you mean 'gte'?"),
        ({"all": []}, "filter.all: must not be empty"),
        ({"any": {}}, "filter.any: must be a list, not an object"),
        ({"all": [{"field": "brand", "in": []}]}, "filter.all[0].in: must not be empty"),
        ({"all": [{"field": "brand", "eq": "a"}], "field": "brand"}, "filter: 'all' stands alone, without 'field'"),
        ({"all": [deep(1), {"field": "price", "gte": "2"}]}, "filter.all[1].gte: must be a number, not text"),
        ({"not": {"field": "price", "lt": True}}, "filter.not.lt: must be a number, not a boolean"),
        ({"field": "price", "lt": float("nan")}, "filter.lt: must be a finite number"),
        ({"field": "price", "lt": 10**400}, "filter.lt: must be a finite number"),
        ({"field": "price", "in": [1, None]}, "filter.in[1]: must be a number, not null"),
        ({"field": "brand", "gte": 3}, "filter.gte: bounds need a number field, but 'brand' is keyword"),
        ({"field": "brand", "in": ["a", 3]}, "filter.in[1]: 'brand' is keyword: must be text, not a number"),
        ({"field": "brand", "eq": "\ud800"}, "filter.eq: is not valid Unicode"),
        ({"field": "fresh", "eq": 1}, "filter.eq: 'fresh' is boolean: must be true or false, not a number"),
        ({"field": "fresh", "exists": "yes"}, "filter.exists: must be true or false, not text"),
        (deep(17), "nested deeper than 16 levels"),
        ({"field": "brand", "in": [str(n) for n in range(1025)]}, "filter.in[1024]: more than 1024 values"),
        ({"any": [deep(1) for _ in range(1024)]}, "filter.any[1023]: more than 1024 conditions"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_with_its_place(raw: Any, message: str) -> None:
    """The refusal says where in the filter and what is wrong."""
    with pytest.raises(BadInput) as refusal:
        parse(raw, SCHEMA)
    assert message in refusal.value.detail
    assert refusal.value.errors[0]["field"].startswith("filter")


@pytest.mark.parametrize("raw", [{"field": "b" * 10**6, "eq": 1}, {"b" * 10**6: 1}])
def test_a_giant_name_is_not_said_again(raw: Any) -> None:
    """A refusal is short however long the name is that nobody knows."""
    with pytest.raises(BadInput, match="unknown") as refusal:
        parse(raw, SCHEMA)
    assert len(refusal.value.detail) < 400


def test_the_limits_themselves_are_allowed() -> None:
    """Sixteen levels and 1,024 values pass: the refusals above are of what lies beyond."""
    parsed(deep(16))
    parsed({"field": "brand", "in": [str(n) for n in range(1024)]})


_SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
_KEYS = st.sampled_from(["all", "any", "not", "field", "in", "eq", "gte", "brand"]) | st.text(max_size=3)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3)


@given(st.recursive(_SCALARS, _nested, max_leaves=12))
@settings(max_examples=200, deadline=None)
def test_any_json_value_parses_or_is_bad_input(raw: Any) -> None:
    """No JSON value makes the parser raise anything but BadInput."""
    try:
        condition = parse(raw, SCHEMA)
    except BadInput:
        return
    assert condition is None or mask(condition, CATALOG).dtype == np.bool_


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"field": "brand", "in": ["a", "b"]}, {"field": "brand", "in": ["b", "a", "b"]}),
        ({"field": "brand", "in": ["a"]}, {"field": "brand", "eq": "a"}),
        ({"field": "price", "gte": 20}, {"gte": 20.0, "field": "price"}),
        ({"field": "price", "gte": 0.0}, {"field": "price", "gte": -0.0}),
        ({"field": "fresh", "exists": False}, {"not": {"field": "fresh", "exists": True}}),
    ],
)
def test_filters_of_one_meaning_have_the_same_canonical_bytes(one: Any, other: Any) -> None:
    """Order and repetition of values, spelling of numbers and order of keys do not split the cache."""
    assert canonical(parsed(one)) == canonical(parsed(other))


def test_filters_of_different_meaning_have_different_canonical_bytes() -> None:
    """Two random filters with the same bytes select the same rows; most have bytes of their own."""
    by_bytes: dict[bytes, list[int]] = {}
    for seed in range(400):
        raw = random_filter(random.Random(seed))
        assert by_bytes.setdefault(canonical(parsed(raw)), rows_of(raw)) == rows_of(raw)
    assert len(by_bytes) > 200
    distinct = [{"field": "price", "gte": 1}, {"field": "price", "gt": 1}, {"field": "price", "lte": 1},
                {"field": "price", "eq": 1}, {"field": "brand", "eq": "1"}, {"field": "hidden", "eq": "1"}]  # fmt: skip
    assert len({canonical(parsed(raw)) for raw in distinct}) == len(distinct)


BRAND = {"field": "brand", "in": ["Acme"]}
PRICE = {"field": "price", "gte": 2}


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (BRAND, None),
        (PRICE, PRICE),
        ({"not": BRAND}, None),
        ({"all": [BRAND]}, None),
        ({"all": [BRAND, PRICE]}, PRICE),
        ({"all": [BRAND, PRICE, {"field": "fresh", "eq": True}]}, {"all": [PRICE, {"field": "fresh", "eq": True}]}),
        ({"any": [BRAND, PRICE]}, {"any": [BRAND, PRICE]}),
        ({"all": [{"any": [BRAND, {"not": BRAND}]}, PRICE]}, PRICE),
        ({"all": [{"any": [BRAND, PRICE]}, PRICE]}, {"all": [{"any": [BRAND, PRICE]}, PRICE]}),
    ],
)
def test_a_facet_is_counted_without_its_own_conjuncts(raw: Any, left: Any) -> None:
    """Only top-level conjuncts on the field alone are dropped; what mixes fields stays."""
    assert without(parsed(raw), "brand") == (None if left is None else parsed(left))


def test_a_leaf_is_computed_once_and_cannot_be_written_to() -> None:
    """The second use of a leaf gives the same array, which refuses writes because it is shared."""
    catalog = Catalog.build(MADE, SCHEMA)
    first = mask(parsed(BRAND), catalog)
    assert mask(parsed(BRAND), catalog) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = True


def test_a_leaf_with_giant_values_is_not_remembered() -> None:
    """Its mask is right, and the values do not stay in memory with it."""
    catalog = Catalog.build(MADE, SCHEMA)
    known = next(product for product in MADE if product.fields.get("brand")).fields["brand"]
    giant = parsed({"field": "brand", "in": [known, "x" * 100_000]})
    assert np.array_equal(mask(giant, catalog), mask(parsed({"field": "brand", "in": [known]}), CATALOG))
    assert len(catalog.leaf_masks) == 0


def test_combining_leaves_does_not_change_them() -> None:
    """Cached leaves stay as they are when filters over them are evaluated."""
    before = rows_of(BRAND)
    rows_of({"all": [BRAND, PRICE, {"not": PRICE}]})
    rows_of({"any": [BRAND, PRICE, {"not": PRICE}]})
    assert rows_of(BRAND) == before


def test_the_least_recently_used_mask_goes_first() -> None:
    """The cache of masks keeps to its capacity and drops what was used longest ago."""
    masks = LeafMasks(capacity=2)
    made: list[str] = []

    def get(name: str) -> None:
        def make() -> Any:
            made.append(name)
            return np.zeros(1, dtype=np.bool_)

        masks.get(name, make)

    for name in ("a", "b", "a", "c", "a", "b"):
        get(name)
    assert made == ["a", "b", "c", "b"]
    assert len(masks) == 2


def test_masks_are_the_same_from_many_threads() -> None:
    """Eight threads over more leaves than the cache holds get what one thread gets."""
    catalog = Catalog.build(MADE, SCHEMA)
    catalog.leaf_masks = LeafMasks(capacity=4)
    conditions = [parsed(random_filter(random.Random(seed))) for seed in range(40)]
    expected = [mask(condition, CATALOG).tobytes() for condition in conditions]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda condition: mask(condition, catalog).tobytes(), conditions * 10))
    assert answers == expected * 10
