"""A version's terms: one text, mapped into memory, in which a compiled binary search finds a term.

A Python list and dict of the terms would be quicker by half a microsecond a look-up, and cost some 150 bytes a term
more. A hash table over the same text is quicker by as much, but has to be built or trusted, and words can be chosen so
that all of them collide; a search by halves costs the same whatever the words are.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.index import string_kernels as kernels
from app.index.arrays import frozen, is_utf8, map_file, release

_GAP = 1  # the line feed between two terms
_MOST_BYTES = np.iinfo(np.int32).max - _GAP


class Vocabulary:
    """Distinct terms in ascending order of code points, numbered by their places. Immutable; any number of threads may
    ask at once.

    text: uint8 [bytes], terms in UTF-8, a line feed between; starts: int32 [terms + 1], where term t begins, and where
    one after the last would.
    """

    def __init__(self, text: bytes | mmap.mmap) -> None:
        """Raises ValueError where the terms are not UTF-8, or not distinct and ascending."""
        if len(text) > _MOST_BYTES:
            raise ValueError(f"a vocabulary of {len(text)} bytes")
        self._bytes = text
        self.text: npt.NDArray[np.uint8] = frozen(np.frombuffer(text, np.uint8))
        self.starts = frozen(_starts(self.text))
        self._starts = self.starts.data  # gives Python's own numbers, several times as fast as the array
        if not is_utf8(self.text):
            raise ValueError("the vocabulary is not UTF-8")
        if kernels.first_out_of_order(self.text, self.starts, _GAP) >= 0:
            raise ValueError("the vocabulary's terms are not distinct and in ascending order")
        release(text)

    @classmethod
    def of(cls, terms: Sequence[str]) -> Vocabulary:
        """Of terms that are distinct, ascending, and without a line feed."""
        vocabulary = cls("\n".join(terms).encode())
        if len(vocabulary) != len(terms):
            raise ValueError("a term is empty or holds a line feed")
        return vocabulary

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Map what `save` wrote. Raises CorruptPart or ValueError where it cannot be that."""
        return cls(map_file(path))

    def save(self, path: Path) -> None:
        path.write_bytes(self._bytes[:])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        return self._bytes[self._starts[number] : self._starts[number + 1] - _GAP].decode()

    def number(self, term: str) -> int:
        """The term's number; −1 where it is not in the vocabulary."""
        found: int = kernels.find(_utf8(term), self.text, self.starts, _GAP)
        return found

    def place(self, text: str) -> int:
        """How many of the terms come before this text."""
        before: int = kernels.place(_utf8(text), self.text, self.starts, _GAP)
        return before


def _starts(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    feeds = np.flatnonzero(text == ord("\n"))
    last = [len(text) + _GAP] if len(text) else []
    return np.concatenate(([0], feeds + _GAP, last)).astype(np.int32)


def _utf8(text: str) -> bytes:
    """Lone surrogates, which no term has, keep their place in the order."""
    return text.encode("utf-8", "surrogatepass")
