"""A version's terms: one text, mapped into memory, and a hash table of their numbers.

A list and a dict of them would be Python objects of some 120 bytes a term; these are its UTF-8 and twelve bytes. A term
is found by Python's own hash, whose key is drawn anew by every process, so that nobody can choose words that collide.
A search by halves in a kernel was slower by half a microsecond. marisa-trie is smaller still, but numbers terms in an
order of its own, and trusts the bytes that it maps.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.index import string_kernels as kernels
from app.index.arrays import frozen, map_file, release
from app.pace import give_way

_GAP = 1  # the line feed between two terms
_TERMS_AT_ONCE = 4096
_REMEMBERED = 1024  # words of queries; some 250 bytes each
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
        self.starts: npt.NDArray[np.int32] = frozen(kernels.starts_of_lines(self.text))
        if kernels.first_out_of_order(self.text, self.starts, _GAP) >= 0:
            raise ValueError("the vocabulary's terms are not distinct and in ascending order")
        # These give Python's own numbers, and several times as fast as the arrays.
        self._starts = self.starts.data
        slots = kernels.slots(self._hashes()).data  # of distinct terms: many equal ones would take for ever
        self.found = _numbers(text, self._starts, slots)
        """The term's number; −1 where it is not in the vocabulary."""
        self.number = lru_cache(_REMEMBERED)(self.found)
        """The same, remembered: of terms that are asked for again and again."""
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

    def place(self, text: str) -> int:
        """How many of the terms come before this text. Lone surrogates, which no term has, keep their place in the
        order."""
        before: int = kernels.place(text.encode("utf-8", "surrogatepass"), self.text, self.starts, _GAP)
        return before

    def _hashes(self) -> npt.NDArray[np.int64]:
        """Of every term; its text is read for that. Raises UnicodeDecodeError where it is not UTF-8."""
        hashes = np.empty(len(self), np.int64)
        for first in range(0, len(self), _TERMS_AT_ONCE):
            last = min(first + _TERMS_AT_ONCE, len(self))
            terms = self._bytes[self._starts[first] : self._starts[last] - _GAP].decode().split("\n")
            hashes[first:last] = [*map(hash, terms)]
            give_way()
        return hashes


def _numbers(text: bytes | mmap.mmap, starts: memoryview[int], slots: memoryview[int]) -> Callable[[str], int]:
    """Numbers of terms. Of no vocabulary's own: what nobody uses is let go at once."""
    last = len(slots) - 1

    def number(term: str) -> int:
        written, slot = term.encode("utf-8", "surrogatepass"), hash(term) & last
        while (found := slots[slot]) >= 0:
            if text[starts[found] : starts[found + 1] - _GAP] == written:
                return found
            slot = (slot + 1) & last
        return -1

    return number
