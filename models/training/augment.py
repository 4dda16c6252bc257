"""Texts made from texts, so that few judged queries become many: title spans, typos, dropped words, shuffled fields.

Everything draws from the generator that it is given, so a seed decides it all. Needs numpy alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SHORTEST_MISSPELT = 4  # the service mends nothing shorter either: a typo in it is another word
_LEAST_SPAN, _MOST_SPAN = 2, 6
_SEGMENT_END = re.compile(r"\s[-|–:]|[,;(\[|:]|\s(?:with|for|by|in|of|from|w/)\s")  # behind it stands detail
_MOST_HEAD = 3


def typo(text: str, random: np.random.Generator) -> str:
    """One edit (swap, drop, double or replace a letter) inside a word of four letters or more; else the text as it is.
    The first letter stays: shoppers seldom miss it (Pollock and Zamora 1984)."""
    words = text.split()
    long = [at for at, word in enumerate(words) if len(word) >= _SHORTEST_MISSPELT and word.isalpha()]
    if not long:
        return text
    at = long[int(random.integers(len(long)))]
    word = words[at]
    place = int(random.integers(1, len(word) - 1))
    kind = int(random.integers(4))
    if kind == 0:
        word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    elif kind == 1:
        word = word[:place] + word[place + 1 :]
    elif kind == 2:
        word = word[: place + 1] + word[place:]
    else:
        word = word[:place] + _LETTERS[int(random.integers(len(_LETTERS)))] + word[place + 1 :]
    return " ".join([*words[:at], word, *words[at + 1 :]])


def drop_words(text: str, rate: float, random: np.random.Generator) -> str:
    """Each word left out with probability `rate`; at least one is kept."""
    words = text.split()
    kept = [word for word, draw in zip(words, random.random(len(words)), strict=True) if draw >= rate]
    return " ".join(kept) if kept else text


def shuffle_fields(title: str, fields: Sequence[str], random: np.random.Generator) -> str:
    """The title, then the other fields in a random order: what a product is does not hang on the order of its feed."""
    return " ".join([title, *(fields[at] for at in random.permutation(len(fields)))])


def title_span(title: str, random: np.random.Generator) -> str:
    """Something that a shopper might type for this title: two to six neighbouring words of its head, where brand, kind
    and main property stand. Words without a letter or digit are left out; a shorter title is given back whole."""
    words = [word for raw in title.split() if any(map(str.isalnum, word := raw.strip("()[]{},;:|-/\"'.!")))]
    length = int(random.integers(_LEAST_SPAN, _MOST_SPAN + 1))
    if len(words) <= length:
        return " ".join(words)
    head = min(len(words), 2 * _MOST_SPAN)
    start = int(random.integers(0, head - length + 1)) if head > length else 0
    return " ".join(words[start : start + length])


def head_phrase(title: str, random: np.random.Generator) -> str:
    """What the product is, without what it is like: one to three of the last words before the title's first detail
    ("acme 20v cordless drill kit, 2-pack" → "drill kit"). Words with a digit end it. Empty where nothing is left."""
    segment = _SEGMENT_END.split(title, maxsplit=1)[0]
    words: list[str] = []
    for word in reversed(segment.split()):
        if not word.replace("-", "").replace("'", "").isalpha():
            if words:
                break
            continue
        words.insert(0, word)
    length = int(random.integers(1, _MOST_HEAD + 1))
    return " ".join(words[-length:]) if words else ""
