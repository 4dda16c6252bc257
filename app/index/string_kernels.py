"""Compiled kernels of sorted strings that lie end to end as UTF-8, whose byte order is that of code points.

`text` uint8 [bytes]; string t lies from starts[t] to starts[t + 1] − gap, starts int32 or int64 [strings + 1]; `gap`
bytes, 0 or more, stand between two neighbours. The caller has seen to it that no start lies outside of the text.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from app.index.kernels import Array, compiled


@compiled
def starts_of_lines(text: Array) -> Array:
    """Where each line begins, with a line feed after each but the last, int32 [lines + 1]; the last start is where one
    more line would begin. No text is no line."""
    lines = 1 if len(text) > 0 else 0
    for byte in text:
        if byte == 10:
            lines += 1
    starts = np.zeros(lines + 1, np.int32)
    line = 1
    for at in range(len(text)):
        if text[at] == 10:
            starts[line] = at + 1
            line += 1
    if lines > 0:
        starts[lines] = len(text) + 1
    return starts


@compiled
def precedes(text: Any, start: int, end: int, word: Any, first: int, last: int) -> bool:
    """Whether text[start:end] comes before word[first:last]."""
    while start < end and first < last:
        if text[start] != word[first]:
            return bool(text[start] < word[first])
        start += 1
        first += 1
    return first < last


@partial(compiled, nogil=False)
def place(word: bytes, text: Array, starts: Array, gap: int) -> int:
    """How many of the strings come before the word; a binary search."""
    low = 0
    high = len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if precedes(text, starts[middle], starts[middle + 1] - gap, word, 0, len(word)):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def first_out_of_order(text: Array, starts: Array, gap: int) -> int:
    """The first string that does not come after the one before it; −1 where all are distinct and ascend."""
    for number in range(1, len(starts) - 1):
        end = starts[number] - gap
        if not precedes(text, starts[number - 1], end, text, starts[number], starts[number + 1] - gap):
            return number
    return -1


@compiled
def slots(hashes: Array) -> Array:
    """A hash table with open addressing: int32, a power of two and at least a third of them free (−1). The string of a
    hash lies in the slot of its lower bits, or where that was taken in the next free one, from the last to the first.
    """
    size = 4
    while size * 2 < len(hashes) * 3:
        size *= 2
    table = np.full(size, -1, np.int32)
    for number in range(len(hashes)):
        slot = hashes[number] & (size - 1)
        while table[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        table[slot] = number
    return table
