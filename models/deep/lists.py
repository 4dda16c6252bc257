"""What the deeper rerankers learn from and are measured on: the default profile's lists and their judgements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.index.bundle import BundleStore
from app.index.product_text import dense_texts
from app.search.versions import Encoders, load
from app.types import Product, SearchRequest
from models.relevance import Qrels, Queries

LISTS = "lists.json"
STORED = "stored.npy"
DEPTH = 100
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class List:
    """A query, the products that the default profile ranks first for it, with its raw scores, and what is judged (row
    and grade). `part` is `dev` (folded), `train`, or the name of another shop, of which nothing is learnt."""

    query_id: str
    text: str
    part: str
    rows: list[int]
    raw: list[float]
    judged: list[tuple[int, float]]


@dataclass(frozen=True)
class Work:
    """Texts by row, the lists over them, and how many rows are of the catalogue that is learnt from."""

    texts: list[str]
    titles: list[str]
    lists: list[List]
    own: int

    @classmethod
    def load(cls, folder: Path) -> Work:
        value = json.loads((folder / LISTS).read_bytes())
        return cls(value["texts"], value["titles"], [List(**one) for one in value["lists"]], value["own"])

    @property
    def measured(self) -> list[List]:
        return [one for one in self.lists if one.part != "train"]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LISTS).write_text(json.dumps(asdict(self)), "utf-8")


def collect(folder: Path, bundles: Path, parts: Sequence[tuple[str, str, Path, Path]]) -> Work:
    """The lists of each (part, collection, queries, judgements), written into the folder with the texts and the stored
    vectors that they need. The first part's collection is the one that is learnt from."""
    texts: list[str] = []
    titles: list[str] = []
    lists: list[List] = []
    first: dict[str, int] = {}
    for part, collection, queries, qrels in parts:
        store = BundleStore(bundles, collection)
        searcher = load(store, store.current() or "", Encoders("cpu")).searcher
        catalog = searcher.catalog
        if collection not in first:
            first[collection] = len(texts)
            for row in range(len(catalog)):
                title, whole = dense_texts(Product(catalog.id(row), catalog.fields(row)), catalog.schema)
                titles.append(title)
                texts.append(whole)
        base, grades = first[collection], Qrels.load(qrels, "max")
        for query_id, text in Queries.load(queries).items():
            known = [(catalog.row(product), grade) for product, grade in sorted(grades.get(query_id, {}).items())]
            judged = [(base + row, grade) for row, grade in known if row is not None]
            if judged:
                query = searcher.query(SearchRequest(text))
                words = searcher.words.parse(query.text or "")
                vector = searcher.query_vectors([query.text or ""], query.profile)[0]
                found = searcher.result_set(query, words, vector)
                ranked = searcher.rank(found.rows, words, vector, query.profile)
                rows = [base + int(row) for row in ranked.rows[:DEPTH]]
                lists.append(List(query_id, query.text or "", part, rows, ranked.raw[:DEPTH].tolist(), judged))
        if not first[collection]:
            own = len(catalog)
            stored = np.stack([searcher.vectors.vector(row) for row in range(own)]).astype(np.float16)
    work = Work(texts, titles, lists, own)
    work.save(folder)
    np.save(folder / STORED, stored, allow_pickle=False)
    return work
