"""How the lexical index is put together: tokenised fields → frozen statistics → postings with finished impacts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.index.arrays import Bounds, frozen
from app.index.kernels import Array, compiled, weigh
from app.index.synonyms import NO_SYNONYMS, Synonyms
from app.index.terms import product_terms
from app.index.vocabulary import Vocabulary
from app.types import Floats, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Frozen with the version: idf and peaks (a term's largest impact) float32 [terms, 2]; fields float64 [2, 3], the
    average length, k1 and b of the title and of all text."""

    idf: Floats
    peaks: Floats
    fields: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """Rows int32 [postings], ascending within a term, and impacts float32 [postings, 2] (title, all); those of term t
    lie from starts[t] to starts[t + 1], starts int64 [terms + 1]. Twelve bytes a posting."""

    starts: npt.NDArray[np.int64]
    rows: Rows
    impacts: Floats


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedField:
    """One field of all rows: term numbers end to end, int32 [tokens], negative where unknown; row r has those from
    ends[r] to ends[r + 1], ends int32 or int64 [rows + 1]."""

    terms: npt.NDArray[np.int32]
    ends: Bounds

    @property
    def average_length(self) -> float:
        return max(len(self.terms) / max(len(self.ends) - 1, 1), 1.0)


class _Numbering(dict[str, int]):
    """Gives each new term the next number."""

    def __missing__(self, term: str) -> int:
        self[term] = number = len(self)
        return number


def tokenize(
    texts: Iterable[tuple[str, str]], number: Callable[[str], int], synonyms: Synonyms = NO_SYNONYMS
) -> tuple[TokenizedField, TokenizedField]:
    """The title and all text of every row, as term numbers."""
    title, text = array("i"), array("i")
    title_ends, text_ends = array("q", [0]), array("q", [0])
    for title_words, text_words in texts:
        title.extend(map(number, product_terms(title_words, synonyms)))
        text.extend(map(number, product_terms(text_words, synonyms)))
        title_ends.append(len(title))
        text_ends.append(len(text))
    return (
        TokenizedField(np.frombuffer(title, np.int32), np.frombuffer(title_ends, np.int64)),
        TokenizedField(np.frombuffer(text, np.int32), np.frombuffer(text_ends, np.int64)),
    )


def tokenize_new(
    texts: Iterable[tuple[str, str]], synonyms: Synonyms = NO_SYNONYMS
) -> tuple[Vocabulary, TokenizedField, TokenizedField]:
    """As `tokenize`, with the vocabulary that the texts make up."""
    numbering = _Numbering()
    fields = tokenize(texts, numbering.__getitem__, synonyms)
    terms = sorted(numbering)
    ascending = np.empty(len(terms), np.int32)
    ascending[[numbering[term] for term in terms]] = np.arange(len(terms), dtype=np.int32)
    title, text = (TokenizedField(ascending[field.terms], field.ends) for field in fields)
    return Vocabulary.of(terms), title, text


def inverse_frequency(frequency: npt.NDArray[np.int64], rows: int) -> Floats:
    """idf of Lucene's BM25, never negative: ln(1 + (N − n + ½)/(n + ½))."""
    return np.log1p((rows - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)


def collect(
    title: TokenizedField, text: TokenizedField, terms: int, fields: npt.NDArray[np.float64], idf: Floats | None
) -> tuple[Postings, Statistics]:
    """Postings of all terms. The statistics are the given ones, or where `idf` is None taken from these rows."""
    frequency = _count_rows(title.terms, title.ends, text.terms, text.ends, terms)
    if idf is None:
        idf = inverse_frequency(frequency[:, :2], len(title.ends) - 1)
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(frequency[:, 2])))
    rows, impacts = _fill(title.terms, title.ends, text.terms, text.ends, starts)
    peaks = weigh(starts, rows, impacts, title.ends, text.ends, idf, fields)
    return Postings(frozen(starts), frozen(rows), frozen(impacts)), Statistics(frozen(idf), frozen(peaks), fields)


@compiled
def _count_rows(title: Array, title_ends: Array, text: Array, text_ends: Array, size: int) -> Array:
    """Rows that hold each term: int64 [terms, 3] for the title, all, and either. Negative terms are skipped."""
    frequency = np.zeros((size, 3), np.int64)
    in_title = np.full(size, -1, np.int32)
    in_text = np.full(size, -1, np.int32)
    for row in range(len(title_ends) - 1):
        for at in range(title_ends[row], title_ends[row + 1]):
            term = title[at]
            if term >= 0 and in_title[term] != row:
                in_title[term] = row
                frequency[term, 0] += 1
                frequency[term, 2] += 1
        for at in range(text_ends[row], text_ends[row + 1]):
            term = text[at]
            if term >= 0 and in_text[term] != row:
                in_text[term] = row
                frequency[term, 1] += 1
                if in_title[term] != row:
                    frequency[term, 2] += 1
    return frequency


@compiled
def _fill(title: Array, title_ends: Array, text: Array, text_ends: Array, starts: Array) -> tuple[Array, Array]:
    """Postings with the number of times a term occurs: rows int32 [postings], counts float32 [postings, 2]."""
    size = len(starts) - 1
    rows = np.empty(starts[size], np.int32)
    counts = np.zeros((starts[size], 2), np.float32)
    seen = np.full(size, -1, np.int32)
    cursor = starts[:size].copy()
    for row in range(len(title_ends) - 1):
        for field in range(2):
            terms = title if field == 0 else text
            ends = title_ends if field == 0 else text_ends
            for at in range(ends[row], ends[row + 1]):
                term = terms[at]
                if term < 0:
                    continue
                if seen[term] != row:
                    seen[term] = row
                    rows[cursor[term]] = row
                    cursor[term] += 1
                counts[cursor[term] - 1, field] += np.float32(1.0)
    return rows, counts


@compiled
def sound(starts: Array, rows: Array, impacts: Array, peaks: Array, products: int) -> bool:
    """Whether postings can be walked safely: rows in range and ascending within a term, impacts within their peak."""
    for term in range(len(starts) - 1):
        if starts[term + 1] < starts[term]:
            return False
        previous = -1
        for at in range(starts[term], starts[term + 1]):
            if rows[at] <= previous or rows[at] >= products:
                return False
            previous = rows[at]
            for field in range(2):
                if not 0.0 <= impacts[at, field] <= peaks[term, field] < np.inf:
                    return False
    return True
