"""Compiled kernels of spelling: the terms of a vocabulary within a few edits of a word.

Terms are UTF-16 code units end to end, `letters` uint16; those of term t lie from ends[t] to ends[t + 1], int64, and
shorter terms come first. `masks` uint32 tells which letters (their code modulo 32) a term has: an edit changes at most
one of them each way, so all but a few terms fall to two bit counts and a scan costs some two nanoseconds a term.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from app.index.kernels import Array, compiled

_S = np.uint32(1 << (ord("s") & 31))


@compiled
def bits(mask: Any) -> Any:
    """How many bits of a uint32 are set."""
    mask = np.uint32(mask)
    mask -= (mask >> np.uint32(1)) & np.uint32(0x55555555)
    mask = (mask & np.uint32(0x33333333)) + ((mask >> np.uint32(2)) & np.uint32(0x33333333))
    mask = (mask + (mask >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return (np.int64(mask) * 0x01010101 & 0xFFFFFFFF) >> 24


@compiled
def signature(letters: Array, start: int, end: int) -> Any:
    """Which letters, modulo 32, occur."""
    mask = np.uint32(0)
    for at in range(start, end):
        mask |= np.uint32(1) << np.uint32(letters[at] & 31)
    return mask


@compiled
def signatures(letters: Array, ends: Array) -> Array:
    """The mask of every term, uint32 [terms]."""
    masks = np.empty(len(ends) - 1, np.uint32)
    for term in range(len(masks)):
        masks[term] = signature(letters, ends[term], ends[term + 1])
    return masks


@compiled
def edits(word: Array, letters: Array, start: int, end: int, plural: bool, most: int, rows: Array) -> Any:
    """Letters inserted, deleted, substituted, or swapped with their neighbour, between a word and a term, none edited
    twice (optimal string alignment); some number above `most` once it is known to be more. With `plural` the term is
    read with an s behind it. `rows` int64 [3, longer than either] is scratch."""
    length = end - start + plural
    for column in range(length + 1):
        rows[0, column] = column
    least = 0
    for row in range(1, len(word) + 1):
        above, this, before = rows[(row - 1) % 3], rows[row % 3], rows[(row - 2) % 3]
        this[0] = row
        least_above = least
        least = row
        for column in range(1, length + 1):
            letter = letters[start + column - 1] if start + column - 1 < end else ord("s")
            cost = above[column - 1] + (word[row - 1] != letter)
            cost = min(cost, above[column] + 1, this[column - 1] + 1)
            if row > 1 and column > 1 and word[row - 2] == letter and word[row - 1] == letters[start + column - 2]:
                cost = min(cost, before[column - 2] + 1)
            this[column] = cost
            least = min(least, cost)
        if least > most and least_above > most:
            return least
    return rows[len(word) % 3, length]


@compiled
def near(
    word: Array, letters: Array, ends: Array, masks: Array, first: int, last: int, most: int
) -> tuple[Array, Array]:
    """Which terms from `first` to `last` are within `most` edits of the word, as they are or as plurals, and how many
    edits: int64 [found] each. Beyond one edit the first letter must be right, as it nearly always is: that keeps the
    many near-matches that two edits let through the masks from being compared in full."""
    own = signature(word, 0, len(word))
    bare = own & ~_S  # a plural brings an s along
    found = np.empty(last - first, np.int64)
    distances = np.empty(last - first, np.int64)
    rows = np.empty((3, len(word) + most + 3), np.int64)
    count = 0
    for term in range(first, last):
        if most > 1 and letters[ends[term]] != word[0]:
            continue
        if bits(bare & ~masks[term]) > most or bits(masks[term] & ~own) > most:
            continue
        distance = edits(word, letters, ends[term], ends[term + 1], False, most, rows)
        if distance > 1:
            distance = min(distance, edits(word, letters, ends[term], ends[term + 1], True, most, rows))
        if distance <= most:
            found[count] = term
            distances[count] = distance
            count += 1
    return found[:count], distances[:count]
