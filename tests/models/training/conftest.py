"""A few hundred of the shipped products and the shipped positives, as files that a recipe can name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DATA

ESCI = DATA / "esci"
PRODUCTS = 500


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every product of a training positive, and others up to five hundred; all training judgements."""
    folder = tmp_path_factory.mktemp("shop")
    positives = {line.split("\t")[1] for line in (ESCI / "train_positives.qrels.tsv").read_text("utf-8").splitlines()}
    with gzip.open(ESCI / "products.jsonl.gz", "rt", encoding="utf-8") as file:
        products = [json.loads(line) for line in file]
    products.sort(key=lambda product: (product["id"] not in positives, product["id"]))
    lines = [json.dumps(product) + "\n" for product in products[:PRODUCTS]]
    (folder / "products.jsonl").write_text("".join(lines), "utf-8")
    for name in ("train_positives.queries.tsv", "train_positives.qrels.tsv", "mapping.toml"):
        (folder / name).write_bytes((ESCI / name).read_bytes())
    return folder


@pytest.fixture
def write_recipe(shop: Path) -> Callable[..., Path]:
    """Writes `<name>.toml` beside the shop's files: a kind, and tables of settings."""

    def write(name: str, kind: str, **tables: dict[str, Any]) -> Path:
        data = {"catalogue": "products.jsonl", "mapping": "mapping.toml", "held_out": 0.2}
        data |= {"queries": "train_positives.queries.tsv", "qrels": "train_positives.qrels.tsv"}
        lines = [f'name = "{name}"', f'kind = "{kind}"']
        for table, values in {"data": data, **tables}.items():
            lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        path = shop / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    return write
