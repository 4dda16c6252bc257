"""A version with one part exchanged, to measure what the part brings."""

from __future__ import annotations

from app.index.dense import VectorIndex
from app.index.lexical import LexicalIndex
from app.search.searcher import Searcher


def variant(searcher: Searcher, *, words: LexicalIndex | None = None, vectors: VectorIndex | None = None) -> Searcher:
    """The same catalogue, encoders and ranking over another index of words or of vectors."""
    return Searcher(
        collection=searcher.collection,
        version=searcher.version,
        catalog=searcher.catalog,
        words=words or searcher.words,
        vectors=vectors or searcher.vectors,
        encoder=searcher.encoder,
        ranking=searcher.ranking,
        static=searcher.static,
    )
