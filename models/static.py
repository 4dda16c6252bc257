"""The static query encoder: word-piece vectors fitted so that their sum ranks this catalogue as the full encoder does.

    piece vectors of the encoder × idf  →  ridge regression of the titles onto the stored product vectors  →  self-check

The prior is what the encoder makes of each piece alone, weighted by idf: it serves the pieces that no title has. The
fit pulls the others to where the products stand: a title's bag of pieces should give the direction of the product's
stored vector, which costs no further run of the encoder. Starting point, weighting and pooling are those of
model2vec's distillation (Minish Lab 2024) and SIF (Arora, Liang and Ma 2017); the regression is ridge towards a prior,
solved by conjugate gradients (Hestenes and Stiefel 1952). The fit draws no random numbers, the check seeded ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from app.index.kernels import compiled
from app.runtime.cores import usable_cores
from app.search.embed import Encoder
from app.search.static import Halves, StaticEncoder
from app.types import Floats

# Chosen on esci, and held on crowdflower and homedepot; between 0.3 and 3 nothing can be told apart.
_RIDGE = 1.0
_STEPS = 10
_MOST_TITLES = 40_000  # enough to fit 30,000 pieces, and it bounds time and memory for any catalogue
_HELD_OUT = 200
_LEAST_TITLES = 20
_WORDS = (2, 6)  # of a probe: as many as a shopper types
_FULL_DEPTH, _STATIC_DEPTH = 10, 50
_LEAST_SHARE = 20  # of the catalogue, the static depth at most one in so many: in a small one fifty would be all
# On three shops a fitted table found 0.85 to 0.92 of them, and the pieces' own vectors, unfitted, 0.59 to 0.70.
_LEAST_RECALL = 0.75
_CHUNK = 256
_TINY = np.float32(1e-20)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StaticCheck:
    """What a table fitted without some titles makes of words from them, beside the full encoder.

    `recall`: share of the full encoder's ten nearest products among the static one's fifty nearest; `cosine`: mean
    between the two query vectors."""

    texts: int
    recall: float
    cosine: float
    least_recall: float = _LEAST_RECALL

    @property
    def passed(self) -> bool:
        """False for figures that are not numbers, too."""
        return self.recall >= self.least_recall

    def __str__(self) -> str:
        return (
            f"finding {self.recall:.0%} of the full encoder's nearest products for {self.texts} held-out texts "
            f"(the least is {self.least_recall:.0%})"
        )

    def to_json(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Bags:
    """Sparse rows: row i holds `values` at `columns` from `starts[i]` to `starts[i + 1]`."""

    starts: Ints
    columns: Ints
    values: Floats

    def times(self, dense: Floats) -> Floats:
        """Matrix product with [columns, d] → [rows, d]."""
        product = np.zeros((len(self.starts) - 1, dense.shape[1]), dtype=np.float32)
        _add_products(self.starts, self.columns, self.values, dense, product)
        return product

    def transposed(self, columns: int) -> Bags:
        """The same numbers by column, of which there are `columns`."""
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.argsort(self.columns, kind="stable")
        starts = np.concatenate(([0], np.cumsum(np.bincount(self.columns, minlength=columns))))
        return Bags(starts, rows[order], self.values[order])


def fit_static(
    encoder: Encoder, titles: Sequence[str], vectors: Floats, progress: Callable[[int], None] = lambda _: None
) -> tuple[StaticEncoder, StaticCheck]:
    """The static query encoder of a catalogue, and how it stood its check.

    `titles` are normalised, `vectors` [n, dimension] their products' stored vectors; `progress` is told of pieces done.
    The check holds some titles out of a first fit; what is returned is fitted to all. Raises EncoderUnavailable, and
    ValueError for a catalogue of fewer than twenty products with a title."""
    rows, bags = _bags(encoder, titles)
    if len(rows) < _LEAST_TITLES:
        raise ValueError(f"{len(rows)} products with a title, and {_LEAST_TITLES} are the least that can be checked")
    directions = vectors[rows] / np.maximum(np.linalg.norm(vectors[rows], axis=1, keepdims=True), 1e-9)
    idf = _idf(bags, encoder.vocabulary)
    prior = _piece_vectors(encoder, progress)
    fit = partial(_fitted, prior=prior, idf=idf)
    held = np.zeros(len(rows), dtype=np.bool_)
    held[np.random.default_rng(0).choice(len(rows), min(_HELD_OUT, len(rows) // 5), replace=False)] = True
    known = [bag for bag, out in zip(bags, held, strict=True) if not out]
    probes = _probes([titles[row] for row in rows[held]])
    check = _check(StaticEncoder(fit(known, directions[~held]), encoder), encoder, probes, directions)
    return StaticEncoder(fit(bags, directions), encoder), check


def _bags(encoder: Encoder, titles: Sequence[str]) -> tuple[Ints, list[Ints]]:
    """Evenly spaced rows whose titles have pieces, and those pieces."""
    step = max(1, -(-len(titles) // _MOST_TITLES))
    bags = {row: np.array(encoder.pieces(titles[row]), dtype=np.int64) for row in range(0, len(titles), step)}
    rows = [row for row, bag in bags.items() if len(bag)]
    return np.array(rows, dtype=np.int64), [bags[row] for row in rows]


def _idf(bags: Sequence[Ints], vocabulary: int) -> Floats:
    """BM25's idf of each piece over the titles, at most 1, float32 [vocabulary]."""
    held_by = np.bincount(np.concatenate([np.unique(bag) for bag in bags]), minlength=vocabulary)
    idf = np.log1p((len(bags) - held_by + 0.5) / (held_by + 0.5))
    scaled: Floats = (idf / idf.max()).astype(np.float32)
    return scaled


def _piece_vectors(encoder: Encoder, progress: Callable[[int], None]) -> Floats:
    """What the encoder makes of each piece alone, float32 [vocabulary, dimension]."""

    def encode(start: int) -> Floats:
        return encoder.piece_vectors(range(start, min(start + _CHUNK, encoder.vocabulary)))

    parts = []
    with ThreadPoolExecutor(1 if encoder.batches else usable_cores()) as pool:
        for part in pool.map(encode, range(0, encoder.vocabulary, _CHUNK)):
            parts.append(part)
            progress(len(part))
    return np.concatenate(parts)


def _fitted(bags: Sequence[Ints], directions: Floats, *, prior: Floats, idf: Floats) -> Halves:
    """The table, idf folded in: the titles' bags regressed onto the directions, every other piece at its prior."""
    held, places = np.unique(np.concatenate(bags), return_inverse=True)
    lengths = np.array([len(bag) for bag in bags])
    values = (idf[held][places] / np.repeat(lengths, lengths)).astype(np.float32)
    matrix = Bags(np.concatenate(([0], np.cumsum(lengths))), places, values)
    rows = prior.copy()
    rows[held] = _ridge(matrix, directions, prior[held])
    table: Halves = (rows * idf[:, None]).astype(np.float16)
    return table


def _ridge(matrix: Bags, directions: Floats, prior: Floats) -> Floats:
    """Rows W that minimise Σ |x·W / s - direction|² + ridge · |W - prior|², s = |x·prior|.

    Only the direction of x·W counts in the end, so each title is asked for its direction at the length that the prior
    gives it. One conjugate-gradient run a dimension, all of them side by side; float32 [pieces, dimension]."""
    back = matrix.transposed(len(prior))
    start = matrix.times(prior)
    lengths = np.maximum(np.linalg.norm(start, axis=1, keepdims=True), 1e-6)
    certainty = 1.0 / lengths**2
    change = np.zeros_like(prior)
    residual = back.times(certainty * (directions * lengths - start))
    direction = residual.copy()
    size = _squares(residual)
    for _ in range(_STEPS):
        image = back.times(certainty * matrix.times(direction)) + np.float32(_RIDGE) * direction
        step = size / np.maximum(np.sum(direction * image, axis=0), _TINY)
        change += step * direction
        residual -= step * image
        before, size = size, _squares(residual)
        direction *= size / np.maximum(before, _TINY)
        direction += residual
    return prior + change


def _squares(columns: Floats) -> Floats:
    total: Floats = np.einsum("ij,ij->j", columns, columns)
    return total


def _probes(titles: Sequence[str]) -> list[str]:
    """A few words that stand together in each title, as somebody might type them; the same ones on every run."""
    random = np.random.default_rng(0)
    probes = []
    for title in titles:
        words = title.split()
        count = min(int(random.integers(_WORDS[0], _WORDS[1] + 1)), len(words))
        first = int(random.integers(0, len(words) - count + 1))
        probes.append(" ".join(words[first : first + count]))
    return probes


def _check(static: StaticEncoder, encoder: Encoder, probes: Sequence[str], directions: Floats) -> StaticCheck:
    full, looked_up = encoder.queries(probes), static.queries(probes)
    depth = int(np.clip(len(directions) // _LEAST_SHARE, _FULL_DEPTH, _STATIC_DEPTH))
    found = [
        np.isin(_nearest(directions, one, _FULL_DEPTH), _nearest(directions, other, depth)).mean()
        for one, other in zip(full, looked_up, strict=True)
    ]
    cosines = np.sum(full * looked_up, axis=1)
    return StaticCheck(len(probes), round(float(np.mean(found)), 4), round(float(cosines.mean()), 4))


def _nearest(directions: Floats, query: Floats, depth: int) -> Ints:
    nearest: Ints = np.argsort(-(directions @ query), kind="stable")[:depth]
    return nearest


@compiled
def _add_products(starts: Ints, columns: Ints, values: Floats, dense: Floats, product: Floats) -> None:
    for row in range(starts.shape[0] - 1):
        for place in range(starts[row], starts[row + 1]):
            value = values[place]
            column = columns[place]
            for at in range(dense.shape[1]):
                product[row, at] += value * dense[column, at]
