"""Two shops: sixty products under a tiny random encoder, and three hundred real ones under the shipped encoder."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.search.embed import Encoder
from app.search.probes import Probes
from models.parity import PROBE_TEXTS as TEXTS
from models.relevance import Qrels, Queries
from scripts.build import DEFAULT_ENCODER
from tests import tiny
from tests.conftest import DATA
from tests.models.gate.shop import Shop

_QUERIES, _JUDGED = 30, 10


@pytest.fixture(scope="session")
def probed_encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder with its probe embeddings, as an export writes them."""
    folder = tmp_path_factory.mktemp("probed") / "encoder"
    shutil.copytree(tiny_encoder, folder)
    probes = Probes("the tiny network's digest", TEXTS, Encoder(folder).queries(TEXTS))
    description = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**description, "probes": probes.to_json()}))
    return folder


@pytest.fixture(scope="session")
def tiny_shop(probed_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Judged by rule: a product of the kind and quality asked for is right, of the kind alone half right."""
    folder = tmp_path_factory.mktemp("shop")
    rows = tiny.products()
    kinds = sorted({row["title"].split()[-1] for row in rows})
    qualities = sorted({word for row in rows for word in row["title"].split()[1:3]})
    asked = [(quality, kind) for kind in kinds for quality in qualities[:5]]
    grades = {
        f"{quality} {kind}": {
            row["id"]: 3.0 if quality in row["title"] else 1.0 for row in rows if row["title"].endswith(kind)
        }
        for quality, kind in asked
    }
    return Shop(folder, rows, probed_encoder, _judged(folder, {text: text for text in grades}, grades)).open()


@pytest.fixture(scope="session")
def real_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Ten judged products of each of thirty ESCI queries."""
    folder = tmp_path_factory.mktemp("real")
    queries, qrels = Queries.load(DATA / "esci" / "dev.queries.tsv"), Qrels.load(DATA / "esci" / "dev.qrels.tsv")
    random = np.random.default_rng(0)
    chosen = sorted(queries)[:: len(queries) // _QUERIES][:_QUERIES]
    grades = {q: {i: qrels[q][i] for i in random.choice(sorted(qrels[q]), _JUDGED, replace=False)} for q in chosen}
    wanted = {product for row in grades.values() for product in row}
    with gzip.open(DATA / "esci" / "products.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["id"] in wanted]
    judged = _judged(folder, {q: queries[q] for q in chosen}, grades)
    return Shop(folder, rows, DEFAULT_ENCODER, judged, DATA / "esci" / "mapping.toml").open()


def _judged(folder: Path, texts: dict[str, str], grades: dict[str, dict[str, Any]]) -> list[str]:
    Queries(texts).save(folder / "queries.tsv")
    Qrels(grades).save(folder / "qrels.tsv")
    return ["--queries", str(folder / "queries.tsv"), "--qrels", str(folder / "qrels.tsv")]
