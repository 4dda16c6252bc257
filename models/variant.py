"""A version with one part exchanged, to measure what the part brings."""

from __future__ import annotations

from app.index.dense import VectorIndex
from app.index.lexical import LexicalIndex
from app.search.embed import Encoder
from app.search.searcher import Searcher


def variant(
    searcher: Searcher,
    *,
    words: LexicalIndex | None = None,
    vectors: VectorIndex | None = None,
    encoder: Encoder | None = None,
) -> Searcher:
    """The same catalogue and ranking over another index of words or of vectors, or with another encoder."""
    return Searcher(
        collection=searcher.collection,
        version=searcher.version,
        catalog=searcher.catalog,
        words=words or searcher.words,
        vectors=vectors or searcher.vectors,
        encoder=encoder or searcher.encoder,
        ranking=searcher.ranking,
        static=searcher.static,
    )
