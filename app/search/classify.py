"""Category intent: in which of the catalogue's categories a query, or a product by its text, belongs.

The nearest products of the text vote for their categories, each with the softmax of its cosine over the version's
temperature (a kernel-weighted nearest-neighbour estimate: Nadaraya 1964, Watson 1964; with temperature as Wu et al.
2018). Nothing is trained: new products vote as soon as they are indexed. A product in several categories votes for
each, so a probability is that of *being in* a category; where every product has one category, they sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.errors import AisleError, BadInput, CorruptPart
from app.index.analysis import normalize_text
from app.index.catalog import Catalog
from app.index.dense import VectorIndex
from app.search.embed import Encoder
from app.types import Floats, Mask

NEIGHBOURS = 50
Ranked = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class CategoryModel:
    """Of one version: the field that holds a product's categories, and the softmax's temperature in units of cosine."""

    field: str
    temperature: float

    @classmethod
    def from_json(cls, value: Any) -> CategoryModel | None:
        """Read the manifest's `categories`; None where there are none. Raises CorruptPart."""
        if value is None:
            return None
        try:
            model = cls(str(value["field"]), float(value["temperature"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptPart(f"manifest.json: categories ({error})") from error
        if not 0.0 < model.temperature < 100.0:
            raise CorruptPart(f"manifest.json: categories (temperature {model.temperature})")
        return model


class Classifier:
    """Answers for one version. Immutable."""

    def __init__(self, catalog: Catalog, vectors: VectorIndex, encoder: Encoder, model: CategoryModel) -> None:
        if model.field not in catalog.schema.by_name:
            raise CorruptPart(f"manifest.json: categories (no field {model.field!r})")
        self.model = model
        self._catalog = catalog
        self._vectors = vectors
        self._encoder = encoder
        self._voters = self._with_category()

    def vector(self, text: str, *, product: bool) -> Floats:
        """The vector of a normalised text. Raises EncoderUnavailable."""
        encode = self._encoder.products if product else self._encoder.queries
        vector: Floats = encode([text])[0]
        return vector

    def ranked(self, vector: Floats) -> Ranked:
        """Categories of the nearest products with their probabilities, the likeliest first, ties by name."""
        rows, scores = self._vectors.search(vector, NEIGHBOURS, self._voters)
        return vote([self.categories(int(row)) for row in rows], scores, self.model.temperature)

    def categories(self, row: int) -> list[str]:
        """A product's categories; empty where it has none."""
        held = self._catalog.fields(row).get(self.model.field)
        values = held if isinstance(held, list) else [held]
        return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))

    def _with_category(self) -> Mask | None:
        column = self._catalog.columns.get(self.model.field)  # a field of type text has none
        if column is not None:
            voters = column.exists()
        else:
            voters = np.array([bool(self.categories(row)) for row in range(len(self._catalog))], dtype=np.bool_)
        return None if voters.all() else voters


def vote(categories: Sequence[Sequence[str]], scores: Floats, temperature: float) -> Ranked:
    """What neighbours with these categories and scores say."""
    if not len(scores):
        return []
    weights = np.exp((scores.astype(np.float64) - float(np.max(scores))) / temperature)
    weights /= weights.sum()
    shares: dict[str, float] = {}
    for names, weight in zip(categories, weights.tolist(), strict=True):
        for name in names:
            shares[name] = shares.get(name, 0.0) + weight
    return sorted(((name, min(share, 1.0)) for name, share in shares.items()), key=lambda one: (-one[1], one[0]))


@dataclass(eq=False, slots=True)
class ClassifyJob:
    """One text on its way through the queue: normalised, a query or a product's text."""

    classifier: Classifier
    text: str
    product: bool
    vector: Floats | None = None
    ranked: Ranked = field(default_factory=list)
    error: AisleError | None = None

    def run(self) -> None:
        """Find the categories, or say why there are none."""
        try:
            if self.vector is None:
                self.vector = self.classifier.vector(self.text, product=self.product)
            self.ranked = self.classifier.ranked(self.vector)
        except AisleError as error:
            self.error = error


def classifier_of(
    catalog: Catalog, vectors: VectorIndex, encoder: Encoder, content: Mapping[str, Any]
) -> Classifier | None:
    """The classifier that a manifest's content describes; None for a catalogue without categories."""
    model = CategoryModel.from_json(content.get("categories"))
    return None if model is None else Classifier(catalog, vectors, encoder, model)


def product_text(given: str) -> str:
    """A product's text, normalised. Raises BadInput where nothing is left of it."""
    text = normalize_text(given)
    if not text:
        raise BadInput("the text is empty")
    return text
