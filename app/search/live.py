"""The live side of one served version: changes from its log, coalesced into one new Searcher after the other.

A change is a function of the version and the log alone, so every process that follows the log, whenever it started,
comes to the same products, texts and vectors; vectors may differ in the last bits of an int8 encoder's, no more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import CorruptPart, EncoderUnavailable
from app.index.arrays import load_array
from app.index.bundle import EMBEDDINGS, HASHES
from app.index.catalog import Catalog
from app.index.changes import Change, ChangeLog, Edit
from app.index.dense import FewVectors, Halves, VectorIndex
from app.index.dense_gpu import cpu_index
from app.index.lexical import LexicalIndex
from app.index.live import Layout, LiveCatalog, LiveVectors, LiveWords, Part
from app.index.product_text import dense_texts, lexical_texts, text_hash
from app.search.embed import Encoder
from app.types import Floats, Product

if TYPE_CHECKING:
    from app.search.versions import Served

TEXTS_AT_ONCE = 16
"""New texts in one step: each takes the encoder milliseconds, while prices and stocks of others wait."""
_CHANGES_AT_ONCE = 1000


class LiveVersion:
    """One served version and the changes since it was built. For one thread at a time; `served` may be read by any."""

    def __init__(self, served: Served, folder: Path, log: Path) -> None:
        """`folder`: of the version, `log`: of the changes. Raises CorruptPart."""
        searcher = served.searcher
        self.built = self.served = served
        self._folder = folder
        self._catalog: Catalog = searcher.catalog
        self._words: LexicalIndex = searcher.words
        self._vectors: VectorIndex = searcher.vectors
        self._maker = VectorMaker(folder, served.content, searcher.encoder, self._catalog, cpu_index(self._vectors))
        self._log = ChangeLog(log, built_from(served.content, ChangeLog(log).id))
        self._pending: deque[Change] = deque()
        self._products: dict[str, Product | None] = {}
        self._hashes: dict[str, tuple[str, Halves]] = {}
        self._parts: list[Part] = []
        self._dead = [np.zeros(len(self._catalog), dtype=np.bool_)]
        self.sequence = self._log.sequence

    @property
    def changed(self) -> int:
        """Products that are not as the version has them."""
        return len(self._products)

    @property
    def lag_s(self) -> float:
        """How long the first change that is not visible yet has been waiting."""
        return max(0.0, time.time() - self._pending[0].at) if self._pending else 0.0

    @property
    def behind(self) -> bool:
        """Whether there may be changes to take in; costs a glance at the log's file."""
        return bool(self._pending) or self._log.grown()

    def listen(self) -> bool:
        """Whether there are changes to take in. Raises CorruptPart."""
        self._pending += self._log.news()
        return bool(self._pending)

    def step(self, *, embed: bool = True) -> None:
        """Take in some of what waits, and serve the outcome. Raises EncoderUnavailable; then nothing is taken in.
        Without `embed` only `products` knows of it."""
        if not embed:
            taken = list(self._pending)
            self._products |= self._after(taken)
            self._pending.clear()
            self.sequence = taken[-1].sequence
            return
        taken = self._some()
        after = self._after(taken)
        vectors = {one.id: self._vector(one) for one in after.values() if one is not None}
        for _ in taken:
            self._pending.popleft()
        self.sequence = taken[-1].sequence
        self._put(after, vectors)
        self._serve()

    def product(self, id: str) -> Product | None:
        """As the log has it so far; None where there is none."""
        if id in self._products:
            return self._products[id]
        row = self._catalog.row(id)
        return None if row is None else Product(id, self._catalog.fields(row))

    def products(self) -> Iterable[Product]:
        """All of them, in ascending order of id."""
        ids = {self._catalog.id(row) for row in range(len(self._catalog))} | self._products.keys()
        return (product for product in map(self.product, sorted(ids)) if product is not None)

    def _some(self) -> list[Change]:
        """The next changes, as many as bring few enough new texts."""
        taken: list[Change] = []
        texts = 0
        for change in self._pending:
            texts += change.edit.op != "delete" and self._is_new_text(change.edit)
            if taken and (texts > TEXTS_AT_ONCE or len(taken) == _CHANGES_AT_ONCE):
                break
            taken.append(change)
        return taken

    def _is_new_text(self, edit: Edit) -> bool:
        before = self.product(edit.id)
        after = edited(before, edit)
        schema = self._catalog.schema
        return after is not None and (before is None or dense_texts(before, schema) != dense_texts(after, schema))

    def _after(self, changes: Sequence[Change]) -> dict[str, Product | None]:
        after: dict[str, Product | None] = {}
        for change in changes:
            edit = change.edit
            after[edit.id] = edited(after[edit.id] if edit.id in after else self.product(edit.id), edit)
        return {id: product for id, product in after.items() if product != self.product(id)}

    def _vector(self, product: Product) -> Halves:
        texts = dense_texts(product, self._catalog.schema)
        digest = text_hash(texts)
        known = self._hashes.get(product.id)
        if known is not None and known[0] == digest:
            return known[1]
        vector = self._maker.vector(product.id, texts, digest)
        self._hashes[product.id] = digest, vector
        return vector

    def _put(self, after: Mapping[str, Product | None], vectors: Mapping[str, Halves]) -> None:
        """Rows of what was stop counting; what is comes into a new part, and parts of one size become one."""
        for id in after:
            self._bury(id)
        self._products |= after
        self._add([product for product in after.values() if product is not None], vectors)
        while len(self._parts) > 1 and 2 * self._held(-1) >= self._held(-2):
            self._add([*self._taken_back(), *self._taken_back()], None)

    def _bury(self, id: str) -> None:
        for dead, catalog in zip(self._dead, self._catalogs(), strict=True):
            row = catalog.row(id)
            if row is not None:
                dead[row] = True

    def _held(self, at: int) -> int:
        return int(np.count_nonzero(~self._dead[at]))

    def _taken_back(self) -> list[Product]:
        part, dead = self._parts.pop(), self._dead.pop()
        held = (self._products[id] for id, gone in zip(part.ids, dead.tolist(), strict=True) if not gone)
        return [product for product in held if product is not None]

    def _add(self, products: list[Product], vectors: Mapping[str, Halves] | None) -> None:
        if not products:
            return
        products.sort(key=lambda product: product.id)
        schema = self._catalog.schema
        catalog = Catalog.build(products, schema)
        words = self._words.extend(lexical_texts(product, schema) for product in products)
        codes = [vectors[one.id] if vectors else self._hashes[one.id][1] for one in products]
        self._parts.append(Part(catalog, words, FewVectors(np.stack(codes)), self._catalog))
        self._dead.append(np.zeros(len(products), dtype=np.bool_))

    def _catalogs(self) -> list[Catalog]:
        return [self._catalog, *(part.catalog for part in self._parts)]

    def _serve(self) -> None:
        layout = Layout(len(self._catalog), self._parts, ~np.concatenate(self._dead))
        searcher = self.served.searcher.changed(
            LiveCatalog(self._catalogs(), layout),
            LiveWords([self._words, *(part.words for part in self._parts)], layout),
            LiveVectors([self._vectors, *(part.vectors for part in self._parts)], layout),
            f"{self.served.searcher.version}+{self._log.id}.{self.sequence}",
        )
        self.served = replace(self.served, searcher=searcher)


class VectorMaker:
    """Stored vectors of changed products: the version's own where it has the text under that id, else the encoder's,
    drawn towards its nearest in the version as the build drew the version's own."""

    def __init__(
        self, folder: Path, content: Mapping[str, Any], encoder: Encoder, catalog: Catalog, vectors: VectorIndex
    ) -> None:
        dense = content.get("dense") or {}
        self._neighbours, self._share = int(dense.get("neighbours") or 0), float(dense.get("smoothing") or 0.0)
        self._encoder, self._catalog, self._vectors = encoder, catalog, vectors
        self._embeddings = self._hashes = None
        if (folder / EMBEDDINGS).exists() and (folder / HASHES).exists():
            self._embeddings = load_array(folder / EMBEDDINGS, np.float16, len(catalog), encoder.dimension)
            self._hashes = load_array(folder / HASHES, "V16", len(catalog))

    def vector(self, id: str, texts: tuple[str, str], digest: str) -> Halves:
        """float16 bits [dimension]. Raises EncoderUnavailable."""
        row = self._catalog.row(id)
        if row is not None and self._hashes is not None and bytes(self._hashes[row]) == bytes.fromhex(digest):
            stored = self._vectors.vector(row)
        else:
            title, whole = texts
            vectors = self._encoder.products([title] if whole == title else [title, whole])
            stored = self._drawn((vectors[0] + vectors[-1]) / 2, row)
        halves = stored.astype(np.float16)
        if not np.isfinite(halves).all():
            raise EncoderUnavailable("the encoder gave no finite vector for a product")
        return halves.view(np.uint16)

    def _drawn(self, own: Floats, row: int | None) -> Floats:
        """(1 - share) × own + share × mean of the nearest others, by their cosines, as models/smooth.py does."""
        if not self._share or not self._neighbours or self._embeddings is None:
            return own
        direction = np.asarray(own / max(float(np.linalg.norm(own)), 1e-12), dtype=np.float32)
        rows, cosines = self._vectors.search(direction, self._neighbours + 1, None)
        others = rows != (-1 if row is None else row)
        rows, cosines = rows[others][: self._neighbours], np.maximum(cosines[others][: self._neighbours], 1e-6)
        mean = (cosines / cosines.sum()) @ self._embeddings[rows].astype(np.float32)
        drawn: Floats = (1 - self._share) * own + self._share * mean.astype(np.float32)
        return drawn


def edited(product: Product | None, edit: Edit) -> Product | None:
    """A product after an edit: replaced, altered (nothing comes of altering none), or gone."""
    if edit.op == "put":
        return Product(edit.id, edit.fields)
    if edit.op == "delete" or product is None:
        return None
    fields = {**product.fields, **edit.fields}
    return Product(edit.id, {name: value for name, value in fields.items() if value is not None})


def built_from(content: Mapping[str, Any], log: str | None) -> int:
    """The last change of that log which a version holds already. Raises CorruptPart."""
    made = content.get("changes")
    if made is None:
        return 0
    try:
        return int(made["sequence"]) if made["log"] == log else 0
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptPart(f"manifest.json: changes ({error})") from error
