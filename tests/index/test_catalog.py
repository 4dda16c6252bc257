"""The catalogue against slow and obvious versions of itself, and its files against damage."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import BadInput, CorruptPart
from app.index import columns
from app.index.catalog import Catalog
from app.index.schema import FieldSpec, Roles, Schema
from app.types import Product, Rows, Sort
from tests.index.random_catalog import SCHEMA, products, values

MADE = products(500, seed=1)


@pytest.fixture(scope="module", params=["built", "loaded"])
def catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    built = Catalog.build(MADE, SCHEMA)
    if request.param == "built":
        return built
    folder = tmp_path_factory.mktemp("catalog")
    built.save(folder)
    return Catalog.load(folder)


def some_rows(seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    return rng.permutation(len(MADE))[: int(rng.integers(0, len(MADE)))].astype(np.int32)


def sort_key(product: Product, sort: Sort) -> tuple[bool, Any]:
    held = values(product, sort.field)
    if not held:
        return (True, 0)
    return (False, _Descending(held[0]) if sort.descending else held[0])


class _Descending:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.value == other.value)


def test_a_row_and_its_id_find_each_other(catalog: Catalog) -> None:
    """Every id leads to its row and back; ids between, before and after the known ones lead nowhere."""
    assert len(catalog) == len(MADE)
    assert [catalog.row(product.id) for product in MADE] == list(range(len(MADE)))
    assert [catalog.id(row) for row in range(len(MADE))] == [product.id for product in MADE]
    assert [catalog.row(id) for id in ("", "a", "p00000x", "zzz", "\ud800")] == [None] * 5


def test_a_document_holds_the_stored_fields_alone(catalog: Catalog) -> None:
    """A document is the product without unstored and absent fields, and without its id."""
    for row, product in enumerate(MADE[:50]):
        expected = {name: value for name, value in product.fields.items() if name != "hidden"}
        assert json.loads(catalog.document(row)) == expected
        assert catalog.fields(row) == expected


def test_a_document_can_be_narrowed_to_named_fields(catalog: Catalog) -> None:
    """Named fields come in the order asked for; those the product lacks are left out."""
    row = next(row for row, product in enumerate(MADE) if "price" in product.fields and "brand" not in product.fields)
    wanted = {"price": MADE[row].fields["price"], "title": MADE[row].fields["title"]}
    assert catalog.document_with(row, ("price", "brand", "title")) == json.dumps(wanted, separators=(",", ":")).encode()


def test_products_can_be_read_back(catalog: Catalog) -> None:
    """What the catalogue gives back as products carries every stored field under every id."""
    back = [Product(catalog.id(row), catalog.fields(row)) for row in range(len(catalog))]
    assert [product.id for product in back] == [product.id for product in MADE]
    assert [product.text("title") for product in back] == [product.text("title") for product in MADE]


@pytest.mark.parametrize("field", ["brand", "category", "fresh", "hidden"])
@pytest.mark.parametrize("seed", range(5))
def test_facets_count_as_a_plain_count_does(catalog: Catalog, field: str, seed: int) -> None:
    """Counts over any rows equal counting the products one by one; ties are in ascending order of value."""
    rows = some_rows(seed)
    counts = Counter(value for row in rows for value in values(MADE[row], field))
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert catalog.facet_counts(rows, field, 100) == expected
    assert catalog.facet_counts(rows, field, 2) == expected[:2]


def test_facets_over_every_row_count_every_product(catalog: Catalog) -> None:
    """All rows at once, the short cut of a search without a filter, count as the products do."""
    counts = Counter(value for product in MADE for value in values(product, "category"))
    every = np.arange(len(MADE), dtype=np.int32)
    assert dict(catalog.facet_counts(every, "category", 100)) == counts


def test_few_rows_of_a_large_dictionary_are_counted_alike() -> None:
    """The path that does not touch every slot of a large dictionary gives the same order."""
    made = [Product(f"p{n:04}", {"title": "t", "brand": f"b{n // 2:04}"}) for n in range(600)]
    catalog = Catalog.build(made, SCHEMA)
    rows = np.array([5, 4, 9, 100], dtype=np.int32)
    assert catalog.facet_counts(rows, "brand", 10) == [("b0002", 2), ("b0004", 1), ("b0050", 1)]


@pytest.mark.parametrize("seed", range(8))
def test_sorting_agrees_with_a_plain_sort(catalog: Catalog, seed: int) -> None:
    """One to three keys, either way: missing values last, ties by row; a depth only cuts the same order."""
    rng = random.Random(seed)
    rows = some_rows(seed)
    fields = rng.sample(("brand", "category", "price", "popularity", "fresh", "attrs.size"), rng.randint(1, 3))
    sorts = tuple(Sort(field, rng.random() < 0.5) for field in fields)
    expected = sorted(rows.tolist(), key=lambda row: (*(sort_key(MADE[row], sort) for sort in sorts), row))
    assert catalog.order_by(rows, sorts).tolist() == expected
    for depth in (1, 7, len(rows), len(rows) + 5):
        assert catalog.order_by(rows, sorts, depth).tolist() == expected[:depth]


def test_browsing_is_by_popularity_then_row(catalog: Catalog) -> None:
    """Popular first, unknown popularity last, ties by row; with and without a mask, wide or narrow, at any depth."""
    order = sorted(range(len(MADE)), key=lambda row: (-MADE[row].fields.get("popularity", -1), row))
    assert catalog.by_popularity(None, 10**6)[0].tolist() == order
    rng = np.random.default_rng(3)
    for share in (0.0, 0.02, 0.1, 0.2, 0.9, 1.0):
        mask = rng.random(len(MADE)) < share
        allowed = [row for row in order if mask[row]]
        for depth in (0, 1, 20, 1000):
            rows, total = catalog.by_popularity(mask, depth)
            assert (rows.tolist(), total) == (allowed[:depth], len(allowed))


def test_without_a_popularity_role_browsing_is_by_row() -> None:
    """A catalogue that knows no popularity is browsed in the order of ids."""
    schema = Schema(SCHEMA.fields, Roles(title="title"))
    assert Catalog.build(MADE, schema).by_popularity(None, 4)[0].tolist() == [0, 1, 2, 3]


def test_a_repeated_id_is_refused() -> None:
    """Two products of one id do not make a catalogue; neither do products out of order."""
    with pytest.raises(BadInput, match="duplicate product id 'a'"):
        Catalog.build([Product("a", {"title": "x"}), Product("a", {"title": "y"})], SCHEMA)
    with pytest.raises(BadInput, match="ascending"):
        Catalog.build([Product("b", {"title": "x"}), Product("a", {"title": "y"})], SCHEMA)


def test_text_and_unknown_fields_have_no_column(catalog: Catalog) -> None:
    """Sorting or counting by them is a mistake of the caller, told with the nearest name."""
    rows = np.arange(3, dtype=np.int32)
    with pytest.raises(BadInput, match="'title' is text"):
        catalog.order_by(rows, (Sort("title"),))
    with pytest.raises(BadInput, match="did you mean 'brand'"):
        catalog.facet_counts(rows, "brnad", 5)
    with pytest.raises(BadInput, match="'price' is a number"):
        catalog.facet_counts(rows, "price", 5)


def test_an_empty_catalogue_survives_the_disk(tmp_path: Path) -> None:
    """No products is a catalogue too: saved, loaded, browsed."""
    Catalog.build([], SCHEMA).save(tmp_path)
    catalog = Catalog.load(tmp_path)
    assert len(catalog) == 0
    assert catalog.row("x") is None
    assert catalog.by_popularity(None, 10)[0].tolist() == []
    assert catalog.facet_counts(np.array([], dtype=np.int32), "brand", 5) == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _shift(path: Path) -> None:
    array = np.load(path)
    np.save(path, array + 10_000)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("catalog.json", _cut),
        ("catalog.json", Path.unlink),
        ("catalog.ids.bin", _cut),
        ("catalog.ids.offsets.npy", _shift),
        ("catalog.documents.bin", Path.unlink),
        ("catalog.documents.offsets.npy", _cut),
        ("catalog.1.codes.npy", _shift),
        ("catalog.1.first.npy", _shift),
        ("catalog.2.offsets.npy", _shift),
        ("catalog.2.values.bin", _cut),
        ("catalog.3.number.npy", _cut),
        ("catalog.5.boolean.npy", Path.unlink),
        ("catalog.popularity.order.npy", _shift),
        ("catalog.popularity.rank.npy", _shift),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path, name: str, damage: Any) -> None:
    """Each damaged or missing file is named in the refusal; undamaged (the control), the same folder loads."""
    Catalog.build(MADE, SCHEMA).save(tmp_path)
    assert len(Catalog.load(tmp_path)) == len(MADE)
    damage(tmp_path / name)
    part = re.sub(r"(\.offsets|\.order|\.rank)?\.(npy|bin)$", "", name)  # a blob and its offsets accuse each other
    with pytest.raises(CorruptPart, match=re.escape(part)):
        Catalog.load(tmp_path)


def test_documents_are_mapped_where_they_are_few(tmp_path: Path) -> None:
    """Then they cost less memory than a read costs time."""
    Catalog.build(MADE, SCHEMA).save(tmp_path)
    loaded = Catalog.load(tmp_path)
    assert loaded.document(7) == Catalog.build(MADE, SCHEMA).document(7)
    assert f"{tmp_path}/catalog.documents.bin" in Path("/proc/self/maps").read_text()


def test_many_documents_are_read_not_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would count as memory of every process that answers; the ids, which every search needs, are mapped."""
    monkeypatch.setattr(columns, "SMALL_BYTES", 0)
    Catalog.build(MADE, SCHEMA).save(tmp_path)
    loaded = Catalog.load(tmp_path)
    assert loaded.document(7) == Catalog.build(MADE, SCHEMA).document(7)
    maps = Path("/proc/self/maps").read_text()
    assert f"{tmp_path}/catalog.ids.bin" in maps
    assert f"{tmp_path}/catalog.documents.bin" not in maps


def test_a_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    """An array file that holds Python objects is refused, not unpickled."""
    Catalog.build(MADE, SCHEMA).save(tmp_path)
    np.save(tmp_path / "catalog.3.number.npy", np.array([object()] * len(MADE)), allow_pickle=True)
    with pytest.raises(CorruptPart, match=r"catalog\.3\.number\.npy"):
        Catalog.load(tmp_path)


def test_files_of_another_catalogue_do_not_mix_in(tmp_path: Path) -> None:
    """A column of a catalogue with another number of rows is refused."""
    other = tmp_path / "other"
    other.mkdir()
    Catalog.build(MADE, SCHEMA).save(tmp_path)
    Catalog.build(MADE[:-1], SCHEMA).save(other)
    (other / "catalog.3.number.npy").replace(tmp_path / "catalog.3.number.npy")
    with pytest.raises(CorruptPart, match=r"catalog\.3\.number\.npy: float64 \(499,\), expected float64 \(500\)"):
        Catalog.load(tmp_path)


def test_a_schema_survives_json() -> None:
    """A schema read back from its JSON is the same schema."""
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([FieldSpec("id", "text")], "cannot be called 'id'"),
        ([FieldSpec("title", "text"), FieldSpec("title", "text")], "defined twice"),
        ([FieldSpec("name", "text")], "role 'title' names unknown field"),
        ([FieldSpec("title", "text"), FieldSpec("popularity", "keyword")], "needs a number field"),
        ([FieldSpec("title", "text"), FieldSpec("price", "number", facet=True)], "cannot be a facet"),
        ([FieldSpec("title", "txt")], "did you mean 'text'"),  # type: ignore[arg-type]  # the mistake under test
    ],
)
def test_an_inconsistent_schema_is_refused(specs: list[FieldSpec], message: str) -> None:
    """Repeated and reserved names, unknown types and roles that a field cannot play are refused at once."""
    with pytest.raises(BadInput, match=message):
        Schema.of(*specs)
