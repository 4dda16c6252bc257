"""The one number that category intent needs, and how good it is: learned from the catalogue's own titles.

Titles stand in for queries. Each sampled product's title is classified by the other products (those of the same title
left out, or it would vote for itself); the temperature is the one with the least Brier score over one half of the
sample, and accuracy and calibration error are measured on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.index.analysis import normalize_text
from app.index.catalog import Catalog
from app.index.dense import VectorIndex
from app.search.classify import NEIGHBOURS, CategoryModel, Classifier, vote
from app.search.embed import Encoder
from app.types import Floats

TEMPERATURES = (0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3)
DEFAULT_TEMPERATURE = 0.05  # of MiniLM cosines: the best of the shipped retail catalogue
SAMPLE = 600
_LEAST = 40  # products with a category, below which the default is the better guess
_SPARE = 50  # neighbours that may turn out to have the product's own title
_BINS = 10


@dataclass(frozen=True, slots=True)
class _Case:
    """A title: its product's categories, and the neighbours' categories and scores."""

    truth: frozenset[str]
    categories: list[list[str]]
    scores: Floats


def fit_categories(
    catalog: Catalog, vectors: VectorIndex, encoder: Encoder, *, sample: int = SAMPLE, seed: int = 0
) -> dict[str, Any] | None:
    """The manifest's `categories`: field, temperature, and what was measured (None for a catalogue too small to).
    None where the catalogue has no categories."""
    field = catalog.schema.roles.category
    if field is None:
        return None
    classifier = Classifier(catalog, vectors, encoder, CategoryModel(field, DEFAULT_TEMPERATURE))
    cases = _cases(classifier, catalog, vectors, sample, seed)
    described = {"field": field, "temperature": DEFAULT_TEMPERATURE, "measured": None}
    if len(cases) < _LEAST:
        return described
    fitted, held_out = cases[::2], cases[1::2]
    temperature = min(TEMPERATURES, key=lambda one: float(np.mean([_brier(case, one) for case in fitted])))
    return described | {"temperature": temperature, "measured": measure(held_out, temperature)}


def measure(cases: Sequence[_Case], temperature: float) -> dict[str, float]:
    """Share of titles whose likeliest category is right, and is among the first three; the mean Brier score; and the
    calibration error of the likeliest (ten bins of equal width: Guo et al. 2017)."""
    voted = [vote(case.categories, case.scores, temperature) for case in cases]
    right = np.array([found[0][0] in case.truth for found, case in zip(voted, cases, strict=True)])
    among = [any(name in case.truth for name, _ in found[:3]) for found, case in zip(voted, cases, strict=True)]
    sure = np.array([found[0][1] for found in voted])
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [abs(right[bins == one].mean() - sure[bins == one].mean()) * (bins == one).mean() for one in np.unique(bins)]
    return {
        "titles": len(cases),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_at_3": round(float(np.mean(among)), 4),
        "calibration_error": round(float(np.sum(gaps)), 4),
        "brier": round(float(np.mean([_brier(case, temperature) for case in cases])), 4),
    }


def _cases(classifier: Classifier, catalog: Catalog, vectors: VectorIndex, sample: int, seed: int) -> list[_Case]:
    role = catalog.schema.roles.title
    cases: list[_Case] = []
    for row in np.random.default_rng(seed).permutation(len(catalog)).tolist():
        truth = frozenset(classifier.categories(row))
        title = normalize_text(str(catalog.fields(row).get(role, "")))
        if not truth or not title:
            continue
        rows, scores = vectors.search(classifier.vector(title, product=False), NEIGHBOURS + _SPARE, None)
        others = [
            (place, names)
            for place, other in enumerate(rows.tolist())
            if normalize_text(str(catalog.fields(other).get(role, ""))) != title
            and (names := classifier.categories(other))
        ][:NEIGHBOURS]
        if others:
            cases.append(_Case(truth, [names for _, names in others], scores[[place for place, _ in others]]))
        if len(cases) == sample:
            break
    return cases


def _brier(case: _Case, temperature: float) -> float:
    """Σ (probability − truth)² over all categories (Brier 1950)."""
    shares = dict(vote(case.categories, case.scores, temperature))
    return sum((shares.get(name, 0.0) - (name in case.truth)) ** 2 for name in shares.keys() | case.truth)
