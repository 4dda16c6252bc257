"""Stage 6: what is known of each (query, product) pair. One code computes it online, offline and for rescoring.

Every candidate gets every feature exactly, whichever leg found it: never a rank, a fill-in or a normalisation over
whoever else was retrieved. So a pair has the same features in any company.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from app.index.dense import VectorIndex
from app.index.kernels import compiled
from app.index.lexical import LexicalIndex, LexicalQuery
from app.index.titles import FEATURES
from app.types import Floats, Rows

NAMES = ("dense", "bm25_title", "bm25_all", *FEATURES)
LEGS = 3
"""The first features are what the legs retrieve by."""
Features = npt.NDArray[np.float64]


def of_rows(
    rows: Rows, words: LexicalIndex, query: LexicalQuery | None, vectors: VectorIndex, vector: Floats | None
) -> Features:
    """Features [n, len(NAMES)] of catalogue rows: mean cosine of the query with the product's title and whole text and
    with its neighbours (-1..1); BM25 over the title and over the whole text, each divided by the most any product could
    get for these words (0..1); how the title answers the words (0..1). A leg that was not run counts 0."""
    count = len(rows)
    dense = np.zeros(count, np.float32) if vector is None else vectors.scores(vector, rows)
    if query is None:
        met, titles = np.zeros((count, LEGS - 1), np.float32), np.zeros((count, len(FEATURES)), np.float32)
    else:
        met, titles = words.scores(query, rows), words.title_features(query, rows)
    return _side_by_side(dense, met, titles)


@partial(compiled, nogil=False)
def _side_by_side(dense: Floats, met: Floats, titles: Floats) -> Features:
    count, words, more = len(dense), met.shape[1], titles.shape[1]
    features = np.empty((count, 1 + words + more))
    for row in range(count):
        features[row, 0] = dense[row]
        for at in range(words):
            features[row, 1 + at] = met[row, at]
        for at in range(more):
            features[row, 1 + words + at] = titles[row, at]
    return features


def of_text(
    title: str,
    text: str,
    product_vector: Floats | None,
    words: LexicalIndex,
    query: LexicalQuery,
    vector: Floats | None,
) -> Features:
    """Features [1, len(NAMES)] of a product that is not in the catalogue, under the version's frozen statistics."""
    features = np.zeros((1, len(NAMES)), dtype=np.float64)
    if vector is not None and product_vector is not None:
        features[0, 0] = np.float32(np.dot(product_vector, vector))
    features[0, 1:LEGS] = words.score_text(query, title, text)
    features[0, LEGS:] = words.title_features_of(query, title)
    return features
