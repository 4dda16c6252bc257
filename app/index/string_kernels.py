"""Compiled kernels of sorted strings that lie end to end as UTF-8, whose byte order is that of code points.

`text` uint8 [bytes]; string t lies from starts[t] to starts[t + 1] − gap, starts int32 or int64 [strings + 1]; `gap`
bytes, 0 or more, stand between two neighbours. The caller has seen to it that no start lies outside of the text.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from app.index.kernels import Array, compiled


@compiled
def precedes(text: Any, start: int, end: int, word: Any, first: int, last: int) -> bool:
    """Whether text[start:end] comes before word[first:last]."""
    while start < end and first < last:
        if text[start] != word[first]:
            return bool(text[start] < word[first])
        start += 1
        first += 1
    return first < last


# Both are called for every word of a query, and end within a microsecond: letting go of the interpreter for that long
# would only hand it to another thread.
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


@partial(compiled, nogil=False)
def find(word: bytes, text: Array, starts: Array, gap: int) -> int:
    """The number of the string that is the word; −1 where there is none."""
    number = place(word, text, starts, gap)
    if number == len(starts) - 1:
        return -1
    found = not precedes(word, 0, len(word), text, starts[number], starts[number + 1] - gap)
    return number if found else -1


@compiled
def first_out_of_order(text: Array, starts: Array, gap: int) -> int:
    """The first string that does not come after the one before it; −1 where all are distinct and ascend."""
    for number in range(1, len(starts) - 1):
        end = starts[number] - gap
        if not precedes(text, starts[number - 1], end, text, starts[number], starts[number + 1] - gap):
            return number
    return -1
