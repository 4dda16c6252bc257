"""Catalogue files of every format and of every kind of badness, and the mapping of their columns."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import BadInput
from app.index.catalog import Catalog
from app.types import Product
from scripts.readers import CatalogueReader, open_catalogue, read

DATA = Path(__file__).parents[2] / "data"
ROWS: list[dict[str, Any]] = [
    {"id": "b", "title": "Kettle", "brand": "Acme", "price": 20.5, "current_stock": 3},
    {"id": "a", "title": "Lamp", "brand": "Acme", "price": 9, "current_stock": 0},
]


def jsonl(folder: Path, rows: list[Any], name: str = "shop.jsonl") -> Path:
    path = folder / name
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return path


def mapping(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read_all(path: Path, mapping_path: Path | None = None) -> tuple[list[Product], CatalogueReader]:
    reader = open_catalogue(path, mapping_path)
    return list(reader.products()), reader


def types(reader: CatalogueReader) -> dict[str, str]:
    return {spec.name: spec.type for spec in reader.schema.fields}


def csv_file(folder: Path, text: str, name: str = "shop.csv") -> Path:
    path = folder / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


CSV = "sku,name,brand,price,current_stock\nb,Kettle,Acme,20.5,3\na,Lamp,Acme,9,0\n"


@pytest.mark.parametrize("name", ["shop.jsonl", "shop.jsonl.gz", "shop.ndjson", "shop.csv", "shop.csv.gz", "s.parquet"])
def test_every_format_gives_the_same_products(tmp_path: Path, name: str) -> None:
    """JSON lines, CSV and Parquet of one catalogue, compressed or not, read alike."""
    if name.endswith("parquet"):
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist([{**row, "price": float(row["price"])} for row in ROWS]), path)
    else:
        path = csv_file(tmp_path, CSV, name) if "csv" in name else jsonl(tmp_path, ROWS, name)
    products, reader = read_all(path)
    kettle = {"title": "Kettle", "brand": "Acme", "price": 20.5, "stock": 3, "in_stock": True}
    lamp = {"title": "Lamp", "brand": "Acme", "price": 9, "stock": 0, "in_stock": False}
    assert [(product.id, dict(product.fields)) for product in products] == [("b", kettle), ("a", lamp)]
    assert types(reader) == {
        "title": "text", "brand": "keyword", "price": "number", "stock": "number", "in_stock": "boolean",
    }  # fmt: skip
    assert (reader.report.rows, reader.report.products, reader.report.refused) == (2, 2, {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"title": "t"}, "no id"),
        ({"id": " ", "title": "t"}, "no id"),
        ({"id": ["x"], "title": "t"}, "wrong type"),
        ({"id": "x\u0000y", "title": "t"}, "control characters"),
        ({"id": "x" * 600, "title": "t"}, "oversize text"),
        ({"id": "good", "title": "again"}, "duplicate id"),
        ({"id": "x"}, "no title"),
        ({"id": "x", "title": "  "}, "no title"),
        ({"id": "x", "title": ["t"]}, "wrong type"),
        ({"id": "x", "title": "t" * 70_000}, "oversize text"),
        ({"id": "x", "title": "t", "description": "é" * 40_000}, "oversize text"),
        ({"id": "x", "title": "\u0001\u0002\u0003\u0004\u0005\u0006" * 3}, "control characters"),
        ({"id": "x", "title": "t", "price": "cheap"}, "wrong type"),
        ({"id": "x", "title": "t", "price": True}, "wrong type"),
        ({"id": "x", "title": "t", "brand": {"name": "b"}}, "wrong type"),
        (b"[1, 2]", "not an object"),
        (b'"text"', "not an object"),
        (b'{"id": "x", "title": "t"', "bad JSON"),
        (b'{"id": "x", "title": "t", "price": NaN}', "bad JSON"),
        (b'{"id": "x", "title": "t", "price": 1e999}', "bad JSON"),
        (b"[" * 100_000, "bad JSON"),
    ],
)
def test_a_bad_row_is_refused_by_its_reason_and_line(tmp_path: Path, row: Any, reason: str) -> None:
    """One bad row between good ones is counted under its reason with its line; the good ones are read."""
    good = [{"id": f"g{n}", "title": "Good", "price": 1, "brand": "B", "description": "d"} for n in range(40)]
    path = jsonl(tmp_path, [{"id": "good", "title": "Good"}, row, *good])
    columns = mapping(
        tmp_path,
        '[fields]\nid = "id"\ntitle = "title"\nprice = {type = "number"}\n'
        'brand = {type = "keyword"}\ndescription = "description"\n',
    )
    products, reader = read_all(path, columns)
    assert len(products) == 41
    assert reader.report.refused == {reason: 1}
    assert reader.report.rows == 42
    line, detail = reader.report.examples[0]
    assert line == 2
    assert detail.startswith(f"{reason}: ")


def test_only_the_first_refused_rows_are_examples(tmp_path: Path) -> None:
    """A file of many bad rows is reported by counts and five examples."""
    _, reader = read_all(jsonl(tmp_path, [*ROWS, *[{"title": "no id"}] * 20]))
    assert reader.report.refused == {"no id": 20}
    assert [line for line, _ in reader.report.examples] == [3, 4, 5, 6, 7]
    assert reader.report.to_json()["rows"] == 22


def test_a_line_beyond_all_bounds_is_skipped_whole(tmp_path: Path) -> None:
    """A line of nine megabytes is one refused row, and the next line is read as the next."""
    products, reader = read_all(jsonl(tmp_path, [{"id": "x", "title": "t" * 9_000_000}, *ROWS]))
    assert len(products) == 2
    assert reader.report.refused == {"oversize line": 1}


def test_the_first_of_two_products_with_one_id_is_kept(tmp_path: Path) -> None:
    """A duplicate is counted, and does not replace what came before."""
    products, reader = read_all(jsonl(tmp_path, [{"id": 7, "title": "first"}, {"id": "7", "title": "second"}]))
    assert [(product.id, product.text("title")) for product in products] == [("7", "first")]
    assert reader.report.refused == {"duplicate id": 1}


def test_broken_unicode_is_repaired(tmp_path: Path) -> None:
    """Lone surrogates and bytes that are not UTF-8 are replaced; pairs stay; controls become spaces."""
    lines = [
        b'{"id": "a", "title": "lone \\ud83d here", "\\udc00": 1}',
        b'{"id": "b", "title": "pair \\ud83d\\ude00 here"}',
        b'{"id": "c", "title": "latin \xe9 here"}',
        b'{"id": "d", "title": "a bell\\u0007 rings in the tower"}',
    ]
    products, reader = read_all(jsonl(tmp_path, lines))
    titles = [product.text("title") for product in products]
    assert titles == ["lone \ufffd here", "pair 😀 here", "latin \ufffd here", "a bell  rings in the tower"]
    Catalog.build(products, reader.schema)


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    """What editors add to files does not count."""
    products, reader = read_all(jsonl(tmp_path, [b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode(), b"", b"  ", ROWS[1]]))
    assert len(products) == reader.report.rows == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shop.xlsx", b"x", "unknown extension; known: .jsonl, .jsonl.gz"),
        ("shop.jsonl", b"", "is empty"),
        ("shop.jsonl", b"\n\n", "is empty"),
        ("shop.jsonl", b"oops\nnonsense\n", "none of its 2 rows can be read"),
        ("shop.jsonl", b'{"id": "a"}\n', "no column is the title (columns: id)"),
        ("shop.jsonl", b'{"title": "a", "x": 1}\n', "no column is the id (columns: title, x)"),
        ("shop.jsonl", b'{"id": "a", "title": ""}\n', "no row is a product (1 rows, 0 products, refused: 1 no title)"),
        ("shop.csv", b"", "is empty"),
        ("shop.csv", b"id,title,id\n", "two columns called 'id'"),
        ("shop.csv.gz", gzip.compress(CSV.encode() * 50, mtime=0)[:-20], "is damaged after line"),
        ("shop.jsonl.gz", b"not gzip", "is damaged after line 0"),
        ("shop.jsonl.gz", gzip.compress(b'{"id": "a", "title": "t"}\n' * 5000, mtime=0)[:-20], "is damaged after line"),
        ("shop.parquet", b"PAR1 not really", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_no_catalogue_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Unknown extensions, empty, truncated and foreign files and files without id or title are told apart."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        list(read(path))
    assert message in refusal.value.detail


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    """Each has its own message."""
    with pytest.raises(BadInput, match="does not exist"):
        open_catalogue(tmp_path / "no.jsonl")
    with pytest.raises(BadInput, match="is not a file"):
        open_catalogue(tmp_path)


def test_known_columns_are_recognised_in_any_spelling(tmp_path: Path) -> None:
    """Synonyms in any case and with any separator become our names; the better synonym wins, the other stays itself."""
    row = {
        "ASIN": "a1", "Product Title": "Kettle", "name": "KT-1", "Manufacturer": "Acme", "Colour": "red",
        "Product-Type": "Home > Kitchen > Kettles", "SalePrice": "12.50", "Rating_Count": 4, "bulletPoints": ["x", "y"],
        "Image URL": "http://example.com/a.jpg",
    }  # fmt: skip
    products, reader = read_all(jsonl(tmp_path, [row]))
    assert products[0].id == "a1"
    assert products[0].fields == {
        "title": "Kettle", "name": "KT-1", "brand": "Acme", "color": "red", "category": ["Home", "Kitchen", "Kettles"],
        "price": 12.5, "popularity": 4, "bullets": ["x", "y"], "image": "http://example.com/a.jpg",
    }  # fmt: skip
    assert reader.schema.roles.popularity == "popularity"
    assert reader.schema.roles.brand == "brand"


def test_types_of_other_columns_are_inferred(tmp_path: Path) -> None:
    """All numbers: number; all true or false: boolean; short and repetitive: keyword; anything else: text."""
    rows = [
        {
            "id": n, "title": "t", "weight": n / 2, "vegan": n % 2 == 0, "size": "SML"[n % 3], "note": f"unique {n}",
            "tags": ["a", "b"][: n % 3], "mixed": n if n % 2 else "x", "ean": f"0{n}", "gone": None,
        }
        for n in range(12)
    ]  # fmt: skip
    _, reader = read_all(jsonl(tmp_path, rows))
    assert types(reader) == {
        "title": "text", "weight": "number", "vegan": "boolean", "size": "keyword", "note": "text", "tags": "keyword",
        "mixed": "text", "ean": "text", "gone": "text",
    }  # fmt: skip
    assert {spec.name for spec in reader.schema.fields if spec.facet} == {"vegan", "size", "tags"}


def test_numbers_and_booleans_of_a_csv_are_told_from_text(tmp_path: Path) -> None:
    """CSV writes everything as text; codes with a leading zero stay text, and semicolons divide as well as commas."""
    lines = "id;title;weight;vegan;code\n" + "".join(f"p{n};Thing {n};{n}.5;{n % 2 == 0};00{n}\n" for n in range(8))
    products, reader = read_all(csv_file(tmp_path, lines))
    assert types(reader) == {"title": "text", "weight": "number", "vegan": "boolean", "code": "text"}
    assert products[3].fields == {"title": "Thing 3", "weight": 3.5, "vegan": False, "code": "003"}


def test_a_csv_row_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    """The row is counted with the line it stands on, also after a quoted line break."""
    products, reader = read_all(csv_file(tmp_path, 'id,title\na,"two\nlines"\nb,x,y\nc,Lamp\n'))
    assert [product.text("title") for product in products] == ["two\nlines", "Lamp"]
    assert reader.report.refused == {"bad CSV": 1}
    assert reader.report.examples[0][0] == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_csv_reads_alike_in_every_encoding_that_spreadsheets_write(tmp_path: Path, encoding: str) -> None:
    """Umlauts arrive whole; nothing is replaced."""
    path = tmp_path / "shop.csv"
    path.write_bytes(
        "sku;name;brand\r\n1;Bohrmaschine Größe M;Ärzte\r\n2;Käseglocke – groß;Müller\r\n".encode(encoding)
    )
    products, _ = read_all(path)
    assert [product.text("title") for product in products] == ["Bohrmaschine Größe M", "Käseglocke – groß"]
    assert [product.text("brand") for product in products] == ["Ärzte", "Müller"]


def test_a_few_damaged_bytes_do_not_change_a_files_encoding(tmp_path: Path) -> None:
    """UTF-8 with one broken letter is UTF-8 with one letter replaced."""
    path = tmp_path / "shop.csv"
    path.write_bytes("id,title\na,Größe\nb,l".encode() + b"\xe9" + b"ger\n")
    products, _ = read_all(path)
    assert [product.text("title") for product in products] == ["Größe", "l\ufffdger"]


def test_an_unclosed_quote_refuses_its_row_and_never_swallows_others_unsaid(tmp_path: Path) -> None:
    """What stands between a stray quote and the next one is one refused row, not part of somebody's title."""
    text = 'id,title,price\n1,"17 inch monitor,5\n2,keyboard,6\n3,"27"" monitor",7\n4,17" stand,8\n'
    products, reader = read_all(csv_file(tmp_path, text))
    assert [product.text("title") for product in products] == ['17" stand']
    assert reader.report.refused == {"bad CSV": 1}
    assert reader.report.examples[0][0] == 2


def test_a_line_that_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    """Lines are still counted as an editor counts them."""
    products, reader = read_all(csv_file(tmp_path, "sep=;\nid;title\na;Lamp\nb;x;y\n"))
    assert [product.text("title") for product in products] == ["Lamp"]
    assert reader.report.examples[0][0] == 4


@pytest.mark.parametrize("word", ["", "NaN", "nan", "NULL", "N/A", "#N/A", "\\N"])
def test_a_cell_that_says_no_value_costs_no_product(tmp_path: Path, word: str) -> None:
    """Exported tables write a missing price in many ways; the column stays a number and the product stays."""
    lines = "id,title,price\n" + "".join(f"{n},Thing {n},{word if n % 2 else n}\n" for n in range(8))
    products, reader = read_all(csv_file(tmp_path, lines))
    assert types(reader)["price"] == "number"
    assert [product.fields.get("price") for product in products[:4]] == [0, None, 2, None]
    assert reader.report.refused == {}


def test_a_price_column_with_a_few_bad_values_stays_a_number(tmp_path: Path) -> None:
    """One unreadable price in fifty refuses its row, not the column; mostly unreadable prices are no numbers."""
    few = [{"id": n, "title": "t", "price": "ask" if n == 3 else n} for n in range(50)]
    _, reader = read_all(jsonl(tmp_path, few))
    assert types(reader)["price"] == "number"
    assert reader.report.refused == {"wrong type": 1}
    most = [{"id": n, "title": "t", "price": n if n == 3 else "ask"} for n in range(50)]
    _, reader = read_all(jsonl(tmp_path, most))
    assert types(reader)["price"] == "text"
    assert reader.report.refused == {}


def test_attributes_become_typed_columns(tmp_path: Path) -> None:
    """Members of the attribute map are filterable under dotted names; the most frequent 64 at most."""
    rows = [
        {"id": f"{n:02}", "title": "t", "attrs": {"width": n, "kind": "ab"[n % 2], "note": f"n{n}", f"rare{n}": 1}}
        for n in range(70)
    ]
    products, reader = read_all(jsonl(tmp_path, rows))
    names = types(reader)
    assert (names["attrs"], names["attrs.width"], names["attrs.kind"]) == ("text", "number", "keyword")
    assert "attrs.note" not in names
    assert sum(name.startswith("attrs.") for name in names) == 64
    assert reader.schema.by_name["attrs"].searched
    catalog = Catalog.build(products, reader.schema)
    assert catalog.column("attrs.width").exists().all()
    assert json.loads(catalog.document(1)) == {"title": "t", "attrs": rows[1]["attrs"]}


def test_a_mapping_file_decides_fields_types_and_roles(tmp_path: Path) -> None:
    """Exactly the stated fields are read, under the stated names, types, roles and flags."""
    rows = [
        {"code": n, "label": f"Lamp {n}", "maker": "Acme", "sold": n, "path": "Home / Light", "made": {"year": n}}
        for n in range(4)
    ]
    text = """
        [catalogue]
        title = "Lamps"
        attribution = "Lamps Ltd"
        examples = ["desk lamp"]
        [fields]
        id = "code"
        name = {from = "label", type = "text", role = "title"}
        maker = {role = "brand", facet = false, searched = true}
        sold = {type = "number", role = "popularity", stored = false}
        category = {from = "path", split = "/"}
        made = {type = "text"}
        "made.year" = {type = "number"}
        """
    products, reader = read_all(jsonl(tmp_path, rows), mapping(tmp_path, text))
    assert products[2].id == "2"
    assert products[2].fields == {
        "name": "Lamp 2", "maker": "Acme", "sold": 2, "category": ["Home", "Light"], "made": {"year": 2},
    }  # fmt: skip
    roles = reader.schema.roles
    assert (roles.title, roles.brand, roles.popularity) == ("name", "maker", "sold")
    assert not reader.schema.by_name["maker"].facet
    assert (reader.info.title, reader.info.attribution, reader.info.examples) == ("Lamps", "Lamps Ltd", ("desk lamp",))
    catalog = Catalog.build(products, reader.schema)
    assert catalog.by_popularity(None, 2)[0].tolist() == [3, 2]
    assert json.loads(catalog.document(0)) == {
        "name": "Lamp 0", "maker": "Acme", "category": ["Home", "Light"], "made": {"year": 0},
    }  # fmt: skip


def test_a_mapping_without_fields_only_presents_the_catalogue(tmp_path: Path) -> None:
    """The fields are then recognised as without a mapping."""
    products, reader = read_all(jsonl(tmp_path, ROWS), mapping(tmp_path, '[catalogue]\ntitle = "Shop"\n'))
    assert reader.info.title == "Shop"
    assert products == list(read(jsonl(tmp_path, ROWS)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fields = [", "cannot be read"),
        ("[feilds]\n", "unknown key 'feilds'; did you mean 'fields'?"),
        ('[catalogue]\ntitel = "x"\n', "unknown key 'titel'; did you mean 'title'?"),
        ("[catalogue]\nexamples = [1]\n", "a list of examples, all text"),
        ("[fields]\n", "must be a table that names at least id and title"),
        ('[fields]\ntitle = "title"\n', "fields.id is missing"),
        ('[fields]\nid = "id"\nbrand = "brand"\n', "no column is the title"),
        ('[fields]\nid = "id"\ntitle = "titel"\n', "column 'titel', which the catalogue lacks; did you mean 'title'?"),
        ('[fields]\nid = "id"\ntitle = {typ = "text"}\n', "unknown key 'typ'; did you mean 'type'?"),
        ('[fields]\nid = "id"\ntitle = {type = "string"}\n', "unknown type 'string'"),
        ('[fields]\nid = "id"\ntitle = {facet = "yes"}\n', "facet cannot be 'yes'"),
        ('[fields]\nid = "id"\ntitle = {role = "brnad"}\n', "unknown role 'brnad'; did you mean 'brand'?"),
        ('[fields]\nid = "id"\ntitle = "title"\nx = {from = "brand", role = "title"}\n', "both play the role 'title'"),
        ('[fields]\nid = "id"\ntitle = "title"\npopularity = {from = "brand"}\n', "needs a number field"),
        ('[fields]\nid = "id"\ntitle = "title"\nprice = {type = "number", facet = true}\n', "cannot be a facet"),
    ],
)
def test_a_mapping_that_does_not_fit_says_where(tmp_path: Path, text: str, message: str) -> None:
    """Mistakes in the file and columns that the catalogue lacks are named, with the nearest word."""
    with pytest.raises(BadInput) as refusal:
        open_catalogue(jsonl(tmp_path, ROWS), mapping(tmp_path, text))
    assert message in refusal.value.detail


def test_a_missing_mapping_file_is_named(tmp_path: Path) -> None:
    """A mapping that was asked for is never silently left out."""
    with pytest.raises(BadInput, match=r"none\.toml does not exist"):
        open_catalogue(jsonl(tmp_path, ROWS), tmp_path / "none.toml")


def test_parquet_values_come_as_json_would_hold_them(tmp_path: Path) -> None:
    """Dates, decimals, bytes, lists, structs and maps all arrive; NaN is a missing value."""
    import datetime
    import decimal

    path = tmp_path / "shop.parquet"
    table = pa.table(
        {
            "id": pa.array([1, 2]),
            "title": pa.array([b"Kettle", b"Lamp"]),
            "price": pa.array([decimal.Decimal("1.50"), None]),
            "weight": pa.array([float("nan"), 2.0]),
            "since": pa.array([datetime.date(2020, 1, 2), None]),
            "category": pa.array([["Home", "Kitchen"], None]),
            "attrs": pa.array([[("volume", "2 l")], []], pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, path)
    products, reader = read_all(path)
    assert [product.fields for product in products] == [
        {"title": "Kettle", "price": 1.5, "since": "2020-01-02", "category": ["Home", "Kitchen"],
         "attrs": {"volume": "2 l"}},
        {"title": "Lamp", "weight": 2.0},
    ]  # fmt: skip
    assert types(reader)["weight"] == "number"


@pytest.mark.parametrize(("name", "count"), [("esci", 6764), ("retail", 2465)])
def test_a_shipped_catalogue_reads_whole_and_is_what_its_readme_says(name: str, count: int) -> None:
    """No row of a shipped catalogue is refused; its digest stands in the README; ids ascend."""
    folder = DATA / name
    products, reader = read_all(folder / "products.jsonl.gz", folder / "mapping.toml")
    ids = [product.id for product in products]
    assert (len(products), reader.report.refused) == (count, {})
    assert ids == sorted(ids)
    assert reader.info.title
    assert reader.info.attribution
    assert len(reader.info.examples) >= 4
    readme = (folder / "README.md").read_text(encoding="utf-8")
    files = [path for path in folder.iterdir() if path.suffix in (".gz", ".tsv")]
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() in readme for path in files)


def test_the_shipped_judgements_are_about_shipped_queries_and_products() -> None:
    """Every judged pair names a query of its split and a product of the catalogue, and splits share no query."""
    folder = DATA / "esci"
    ids = {product.id for product in read(folder / "products.jsonl.gz", folder / "mapping.toml")}
    texts: list[set[str]] = []
    for split, judged in (("dev", 3664), ("train_positives", 661)):
        lines = (folder / f"{split}.queries.tsv").read_text(encoding="utf-8").splitlines()
        queries = dict(line.split("\t") for line in lines)
        qrels = [line.split("\t") for line in (folder / f"{split}.qrels.tsv").read_text().splitlines()]
        assert len(qrels) == judged
        assert {query for query, _, _ in qrels} == set(queries)
        assert {product for _, product, _ in qrels} <= ids
        texts.append({text.casefold() for text in queries.values()})
    assert not texts[0] & texts[1]


def test_the_shipped_sample_holds_nothing_that_its_licence_does_not_cover() -> None:
    """Products of the ESCI sample have no field but those of the dataset itself."""
    with gzip.open(DATA / "esci" / "products.jsonl.gz", "rt", encoding="utf-8") as file:
        fields = {name for line in file for name in json.loads(line)}
    assert fields == {"id", "title", "description", "bullets", "brand", "color"}


@pytest.mark.skipif("AISLE_TEST_DATA" not in os.environ, reason="needs AISLE_TEST_DATA, a folder of larger catalogues")
def test_a_catalogue_with_thousands_of_attributes_reads_with_bounded_columns() -> None:
    """19,406 products with 5,341 different attributes: all read, at most 64 attribute columns, prices as numbers."""
    path = Path(os.environ["AISLE_TEST_DATA"]) / "chorus" / "products.jsonl.gz"
    products, reader = read_all(path)
    assert (len(products), reader.report.refused) == (19_406, {})
    assert sum(name.startswith("attrs.") for name in types(reader)) == 64
    assert types(reader)["price"] == "number"
