"""Compiled kernels of spelling: the terms of a vocabulary within a few edits of a word.

Terms lie in the vocabulary's own `text`, uint8, UTF-8, term t from starts[t] to starts[t + 1] − 1. Words
are terms of letters alone, all of the basic plane: their `numbers`, int32, shorter ones first, and `masks`, uint32, of
the letters (their code modulo 32) that each has. An edit changes at most one of those each way, so all but a few words
fall to two bit counts, and a scan costs some two nanoseconds a word. Only what is left is read.
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
def character(text: Array, at: int) -> Any:
    """The code point that begins at a byte of valid UTF-8, and where the next one begins."""
    lead = np.int64(text[at])
    if lead < 0x80:
        return lead, at + 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | text[at + 1] & 0x3F, at + 2
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | (text[at + 1] & 0x3F) << 6 | text[at + 2] & 0x3F, at + 3
    # Beyond the basic plane, in which words of letters are: all of it counts as one.
    return np.int64(0x10000), at + 4


@compiled
def lengths(text: Array, starts: Array, letters: Array) -> Array:
    """How many letters each term has, int32 [terms]; 0 where it has anything else. `letters` bool [65536]."""
    counts = np.zeros(len(starts) - 1, np.int32)
    for term in range(len(counts)):
        at = starts[term]
        end = starts[term + 1] - 1
        count = 0
        while at < end:
            letter, at = character(text, at)
            if letter >= len(letters) or not letters[letter]:
                count = 0
                break
            count += 1
        counts[term] = count
    return counts


@compiled
def signature(letters: Array, count: int) -> Any:
    """Which of the first `count` letters, modulo 32, occur."""
    mask = np.uint32(0)
    for at in range(count):
        mask |= np.uint32(1) << np.uint32(letters[at] & 31)
    return mask


@compiled
def signatures(numbers: Array, text: Array, starts: Array) -> Array:
    """The mask of every word, uint32 [words]."""
    masks = np.zeros(len(numbers), np.uint32)
    for word in range(len(numbers)):
        at = starts[numbers[word]]
        end = starts[numbers[word] + 1] - 1
        while at < end:
            letter, at = character(text, at)
            masks[word] |= np.uint32(1) << np.uint32(letter & 31)
    return masks


@compiled
def edits(word: Array, letters: Array, count: int, plural: bool, most: int, rows: Array) -> Any:
    """Letters inserted, deleted, substituted, or swapped with their neighbour, between a word and a term, none edited
    twice (optimal string alignment); some number above `most` once it is known to be more. With `plural` the term is
    read with an s behind it. The term is the first `count` of `letters`; `rows` int64 [3, longer than either] is
    scratch."""
    length = count + plural
    for column in range(length + 1):
        rows[0, column] = column
    least = 0
    for row in range(1, len(word) + 1):
        above, this, before = rows[(row - 1) % 3], rows[row % 3], rows[(row - 2) % 3]
        this[0] = row
        least_above = least
        least = row
        for column in range(1, length + 1):
            letter = letters[column - 1] if column <= count else ord("s")
            cost = above[column - 1] + (word[row - 1] != letter)
            cost = min(cost, above[column] + 1, this[column - 1] + 1)
            if row > 1 and column > 1 and word[row - 2] == letter and word[row - 1] == letters[column - 2]:
                cost = min(cost, before[column - 2] + 1)
            this[column] = cost
            least = min(least, cost)
        if least > most and least_above > most:
            return least
    return rows[len(word) % 3, length]


@compiled
def near(
    word: Array,
    numbers: Array,
    masks: Array,
    text: Array,
    starts: Array,
    first: int,
    last: int,
    least: int,
    end: int,
    most: int,
) -> tuple[Array, Array]:
    """Which of the words from `first` to `last`, none more than `most` letters longer than the word, are within `most`
    edits of it, as they are or as plurals, their numbers being from `least` to `end`: numbers int32 [found]; and how
    many edits: int64 [found]."""
    own = signature(word, len(word))
    bare = own & ~_S  # a plural brings an s along
    found = np.empty(last - first, np.int32)
    distances = np.empty(last - first, np.int64)
    rows = np.empty((3, len(word) + most + 3), np.int64)
    letters = np.empty(len(word) + most, np.uint16)
    count = 0
    for candidate in range(first, last):
        if numbers[candidate] < least or numbers[candidate] >= end:
            continue
        if bits(bare & ~masks[candidate]) > most or bits(masks[candidate] & ~own) > most:
            continue
        at = starts[numbers[candidate]]
        stop = starts[numbers[candidate] + 1] - 1
        length = 0
        while at < stop and length < len(letters):
            letters[length], at = character(text, at)
            length += 1
        distance = edits(word, letters, length, False, most, rows)
        if distance > 1:
            distance = min(distance, edits(word, letters, length, True, most, rows))
        if distance <= most:
            found[count] = numbers[candidate]
            distances[count] = distance
            count += 1
    return found[:count], distances[:count]
