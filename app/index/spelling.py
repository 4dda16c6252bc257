"""What a version's vocabulary says of a misspelt word: how often a word occurs, and which term it is nearest to.

Built from the vocabulary and the document frequencies when a version is opened: no file of its own, some 35 bytes a
term. It depends on the version alone, so a correction is as pure as a score.
"""

from __future__ import annotations

import re
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from app.index import spelling_kernels as kernels
from app.index.analysis import UNSPACED, fold
from app.index.postings import Vocabulary, frozen

SHORTEST = 4  # shorter words have too many neighbours
TWO_EDITS_FROM = 9  # letters; a shorter word two edits away is mostly another word
LONGEST = 32
# Only words of letters are corrected or proposed: a digit makes a model, a size or a year.
_WORD = re.compile(rf"[^\W\d_{UNSPACED}\U00010000-\U0010ffff]{{{SHORTEST - 1},{LONGEST}}}").fullmatch


class Spelling:
    """Immutable; any number of threads may ask at once."""

    def __init__(self, vocabulary: Vocabulary, frequency: npt.NDArray[np.int64]) -> None:
        """frequency: int64 [terms], the products that hold each term."""
        self._vocabulary = vocabulary
        self._frequency = frequency
        words = sorted((len(term), number) for number, term in enumerate(vocabulary.terms) if _WORD(term))
        lengths = np.array([length for length, _ in words], np.int64)
        self._numbers = np.array([number for _, number in words], np.int32)
        letters = "".join([vocabulary.terms[number] for _, number in words]).encode("utf-16-le")
        self._letters = np.frombuffer(letters, np.uint16)
        self._ends = frozen(np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths))))
        self._masks = frozen(kernels.signatures(self._letters, self._ends))
        self._first_of_length = np.searchsorted(lengths, np.arange(LONGEST + 4)).tolist()

    def frequency(self, word: str) -> int:
        """How many products hold the term that a word of letters is folded to."""
        number = self._vocabulary.numbers.get(fold(word))
        return 0 if number is None else int(self._frequency[number])

    def begins(self, word: str) -> bool:
        """Whether any term begins like this."""
        terms = self._vocabulary.terms
        at = bisect_left(terms, word)
        return at < len(terms) and terms[at].startswith(word)

    def nearest(self, word: str, most: int) -> str | None:
        """The term at most so many edits away: the least edits, then the most products, then alphabetical order. In the
        plural where the word is. None where there is none, or where the word is too short, too long, or not of letters.
        """
        found, distances = self.near(word, most)
        if not len(found):
            return None
        best = np.lexsort((found, -self._frequency[found], distances))[0]
        term = self._vocabulary.terms[int(found[best])]
        return f"{term}s" if word.endswith("s") and fold(f"{term}s") == term else term

    def near(self, word: str, most: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Numbers of all terms of at least three letters within `most` (1 or 2) edits of the word, as they are or as
        plurals in s, and how many edits they are away. Two edits away only with the first letter right."""
        folded = fold(word) if _WORD(word) and len(word) >= SHORTEST else ""
        if not _WORD(folded):
            return np.empty(0, np.int32), np.empty(0, np.int64)
        first = self._first_of_length[max(len(folded) - most - 1, 0)]
        last = self._first_of_length[len(folded) + most + 1]
        letters = np.frombuffer(folded.encode("utf-16-le"), np.uint16)
        found, distances = kernels.near(letters, self._letters, self._ends, self._masks, first, last, most)
        return self._numbers[found], distances
