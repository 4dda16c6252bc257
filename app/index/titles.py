"""How a product's title answers a query, word by word: which words it holds, side by side, and what it is mainly about.

BM25 counts words and forgets their places. Here every title is kept as its terms in order, so that a pair can be asked
for phrases and for the head noun: `case for iphone` is a case. Nothing is learned here; a feature is a share, 0 to 1.

Files, written and read here alone: `lexical.titles.npy` (term numbers of all titles end to end, int32; -1 where a
version does not know the word) and `lexical.title_ends.npy` (int32 or, where they need it, int64 [rows + 1]).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.index import title_kernels
from app.index.arrays import frozen, load_array, load_bounds, made, narrowed, release, save_array
from app.index.negation import NOT
from app.index.postings import TokenizedField
from app.index.vocabulary import Vocabulary
from app.types import Floats, Rows, record

FEATURES = ("coverage", "complete", "phrase", "head", "numbers", "excluded")
"""Of the query's words, weighed by idf, the share that the title holds; whether it holds them all; of the pairs of
neighbouring words, the share that stand side by side in the title; whether the title's main part holds the query's head
noun; the share of the query's numbers; of the words that must be absent, the share that the title has all the same."""

TERMS = "lexical.titles.npy"
ENDS = "lexical.title_ends.npy"
# What follows one of these says what a thing is for or comes with, in a title as in a query.
_SEPARATORS = ("for", "with", "compatible", "fit")
_ENDS_OF_HEAD = frozenset((*_SEPARATORS, "without", "no", "not", "in", "from", "of", "on", "by"))
_LITTLE = frozenset(
    ("a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "my", "no", "not", "of", "on", "or", "the", "to",
     "with", "without", "your")
)  # fmt: skip


_NO_PAIRS = frozen(np.empty((0, 2), np.int32))


@record(eq=False)
class TitleQuery:
    """What a parsed query asks of a title. Places count the query's words, in order, those that must be absent left
    out.

    terms, places: int32 [n], each term that satisfies a place; idf: float32 [places], 0 for little words; head: a
    place, or -1; numbers: bool [places]; denied: int32 [m, 2], a word that must be absent and the mark that it is, -1
    where the version has none.
    """

    terms: npt.NDArray[np.int32]
    places: npt.NDArray[np.int32]
    idf: Floats
    head: int
    numbers: npt.NDArray[np.bool_]
    denied: npt.NDArray[np.int32]


class Titles:
    """The titles of an index's rows. Immutable; any number of threads may ask at once."""

    def __init__(self, field: TokenizedField, separators: npt.NDArray[np.int32]) -> None:
        self._terms = frozen(field.terms)
        self._ends = frozen(narrowed(field.ends))
        self._separators = frozen(separators)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def save(self, folder: Path) -> None:
        """Write both files into an existing folder."""
        save_array(folder / TERMS, self._terms)
        save_array(folder / ENDS, self._ends)

    @classmethod
    def load(cls, folder: Path, rows: int, vocabulary: Vocabulary) -> Titles:
        """Map saved titles of so many rows. Raises CorruptPart or ValueError when they cannot be those."""
        ends = load_bounds(folder / ENDS, rows + 1)
        terms = load_array(folder / TERMS, np.int32, None)
        if ends[-1] != len(terms):
            raise ValueError("the titles' ends do not fit their terms")
        if len(terms) and not -1 <= int(terms.min()) <= int(terms.max()) < len(vocabulary):
            raise ValueError("a title holds a term that is not in the vocabulary")
        release(terms)
        release(ends)
        return cls(TokenizedField(terms, ends), separators_in(vocabulary))

    def features(self, query: TitleQuery, rows: Rows) -> Floats:
        """FEATURES of rows, in their order: float32 [rows, 6]."""
        return title_kernels.features(
            self._terms,
            self._ends,
            frozen(rows),
            self._separators,
            query.terms,
            query.places,
            query.idf,
            query.head,
            query.numbers,
            query.denied,
        )


def separators_in(vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    """The numbers of the words that end a title's main part."""
    return np.array([number for number in map(vocabulary.number, _SEPARATORS) if number >= 0], np.int32)


def title_query(
    words: Sequence[str], found: Sequence[Sequence[int]], idf: Sequence[float], vocabulary: Vocabulary
) -> TitleQuery:
    """`words`: the query's terms in order, marked where they must be absent; `found`: the terms of the vocabulary that
    satisfy each; `idf` of each."""
    wanted = [at for at, word in enumerate(words) if not word.startswith(NOT)]
    denied = [word.removeprefix(NOT) for word in words if word.startswith(NOT)]
    terms = [(term, place) for place, at in enumerate(wanted) for term in found[at]]
    content = [words[at] not in _LITTLE for at in wanted]
    weights = [idf[at] if kept or not any(content) else 0.0 for at, kept in zip(wanted, content, strict=True)]
    pairs = [(vocabulary.number(word), vocabulary.number(NOT + word)) for word in denied]
    return TitleQuery(
        made([term for term, _ in terms], np.int32),
        made([place for _, place in terms], np.int32),
        made(weights, np.float32),
        _head([words[at] for at in wanted]),
        made([words[at][0].isdigit() for at in wanted], np.bool_),
        made(pairs, np.int32) if pairs else _NO_PAIRS,
    )


def _head(words: Sequence[str]) -> int:
    """The place of the head noun: in English the last word before what the thing is for, with or without."""
    head = -1
    for place, word in enumerate(words):
        if word in _ENDS_OF_HEAD and head >= 0:
            break
        if word not in _LITTLE:
            head = place
    return head
