"""What a version's vocabulary says of a misspelt word: how often a word occurs, and which term it is nearest to.

Built from the vocabulary and the document frequencies when a version is opened: no file of its own, 8 bytes a word.
It depends on the version alone, so a correction is as pure as a score.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from app.index import spelling_kernels as kernels
from app.index.analysis import UNSPACED, fold
from app.index.arrays import frozen
from app.index.vocabulary import Vocabulary

SHORTEST = 4  # shorter words have too many neighbours
TWO_EDITS_FROM = 9  # letters; a shorter word two edits away is mostly another word
LONGEST = 32
_REMEMBERED = 1024  # words of queries; some 250 bytes each
# Only words of letters are corrected or proposed: a digit makes a model, a size or a year.
_LETTER = rf"[^\W\d_{UNSPACED}\U00010000-\U0010ffff]"
_WORD = re.compile(rf"{_LETTER}{{{SHORTEST - 1},{LONGEST}}}").fullmatch


class Spelling:
    """Immutable; any number of threads may ask at once."""

    def __init__(self, vocabulary: Vocabulary, starts: npt.NDArray[np.int64]) -> None:
        """starts: int64 [terms + 1], where each term's postings begin: as many products hold it as it has postings."""
        self._vocabulary = vocabulary
        self._starts = starts
        self.frequency = lru_cache(_REMEMBERED)(_frequencies(vocabulary.number, starts))
        """How many products hold the term that a word of letters is folded to."""
        self.frequency_of_new = _frequencies(vocabulary.found, starts)
        """The same of what is made up for the question, two words as one or one as two: remembered, that would drive
        out the words of queries."""
        lengths = kernels.lengths(vocabulary.text, vocabulary.starts, _letters())
        lengths[(lengths < SHORTEST - 1) | (lengths > LONGEST)] = 0
        words = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]  # those of one length ascend
        self._numbers = frozen(words.astype(np.int32))
        self._masks = frozen(kernels.signatures(self._numbers, vocabulary.text, vocabulary.starts))
        self._first_of_length = np.searchsorted(lengths[words], np.arange(LONGEST + 4)).tolist()

    def begins(self, word: str) -> bool:
        """Whether any term begins like this."""
        at = self._vocabulary.place(word)
        return at < len(self._vocabulary) and self._vocabulary[at].startswith(word)

    def nearest(self, word: str, most: int) -> str | None:
        """The term at most so many edits away: the least edits, then the most products, then alphabetical order. In the
        plural where the word is. None where there is none, or where the word is too short, too long, or not of letters.
        """
        found, distances = self.near(word, most)
        if not len(found):
            return None
        best = np.lexsort((found, self._starts[found] - self._starts[found + 1], distances))[0]
        term = self._vocabulary[int(found[best])]
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
        # Two edits away only with the first letter right, as it nearly always is: those terms stand side by side.
        text, starts, least, end = self._vocabulary.text, self._vocabulary.starts, 0, len(self._vocabulary)
        if most > 1:
            least, end = map(self._vocabulary.place, (folded[0], chr(ord(folded[0]) + 1)))
        return kernels.near(letters, self._numbers, self._masks, text, starts, first, last, least, end, most)


def _frequencies(number_of: Callable[[str], int], starts: npt.NDArray[np.int64]) -> Callable[[str], int]:
    def frequency(word: str) -> int:
        number = number_of(fold(word))
        return int(starts[number + 1] - starts[number]) if number >= 0 else 0

    return frequency


@cache
def _letters() -> npt.NDArray[np.bool_]:
    """Which characters words are made of: bool [65536], by code point."""
    letters = np.zeros(1 << 16, np.bool_)
    letters[[ord(letter) for letter in re.findall(_LETTER, "".join(map(chr, range(len(letters)))))]] = True
    return frozen(letters)
