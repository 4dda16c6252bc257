"""The other half of stage 1: a query's text as the shopper meant it, by what this version's catalogue says.

The corrected text takes the typed one's place before anything else looks at it: the words, the encoder, the caches.
It depends on text and version alone, so everything that is promised of a score still holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from app.index.analysis import UNSPACED
from app.index.negation import negated_terms
from app.index.spelling import LONGEST, SHORTEST, TWO_EDITS_FROM, Spelling

__all__ = ["corrected", "negated_terms"]
MOST_LOOKUPS = 4  # a text with more strange words than this is not a misspelt query; bounds what one query can cost
_FREQUENT = 5  # products that must hold a term before a space is moved for it
_LEAST_PART = 3  # letters of either part of a word that lacks its space
_LEAST_JOINED = 2  # letters of either part of a word with a space too much
_WORD = re.compile(rf"(?<!\w)[^\W\d_{UNSPACED}]+(?!\w)")


def corrected(text: str, spelling: Spelling, is_word: Callable[[str], bool], *, prefix: bool = False) -> str:
    """A normalised query with misspelt words mended: `wirelss head phones` becomes `wireless headphone`.

    Left alone are words that the catalogue holds, words that the encoder or the shop's synonyms know (`is_word`: a sofa
    is no soda, though the catalogue has only the one; two words with a space between them may be an entry, too), words
    with digits, short words, unspaced scripts and, with `prefix`, a last word that terms begin with.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    words = [text[start:end] for start, end in spans]
    frequencies = [spelling.frequency(word) for word in words]
    mended: list[str] = []
    done = at = lookups = 0
    while at < len(words):
        (start, end), replacement, taken = spans[at], None, 1
        begun = prefix and end == len(text) and spelling.begins(words[at])
        beside = text[end : end + 1] == " " and at + 1 < len(words) and spans[at + 1][0] == end + 1
        if beside:
            replacement = _joined(words[at], words[at + 1], min(frequencies[at : at + 2]), spelling)
            if replacement is not None and is_word(f"{words[at]} {words[at + 1]}"):
                replacement = None
        if replacement is not None:
            taken, end = 2, spans[at + 1][1]
        elif not frequencies[at] and not begun and lookups < MOST_LOOKUPS and _doubtful(words[at], is_word):
            lookups += 1
            replacement = _mended(words[at], spelling)
        if replacement is not None:
            mended += (text[done:start], replacement)
            done = end
        at += taken
    return "".join((*mended, text[done:])) if mended else text


def _doubtful(word: str, is_word: Callable[[str], bool]) -> bool:
    return SHORTEST <= len(word) <= LONGEST and not is_word(word)


def _joined(left: str, right: str, frequency: int, spelling: Spelling) -> str | None:
    """Both words as one, where the catalogue has that at least as often as the rarer of the two."""
    if min(len(left), len(right)) < _LEAST_JOINED:
        return None
    whole = left + right
    return whole if spelling.frequency_of_new(whole) >= max(frequency, _FREQUENT) else None


def _mended(word: str, spelling: Spelling) -> str | None:
    """The term one edit away, else the two words that lack their space, else the term two edits away."""
    near = spelling.nearest(word, 1) or _parted(word, spelling)
    if near is None and len(word) >= TWO_EDITS_FROM:
        near = spelling.nearest(word, 2)
    return near


def _parted(word: str, spelling: Spelling) -> str | None:
    """The two words whose rarer one is in the most products."""
    cuts = range(_LEAST_PART, len(word) - _LEAST_PART + 1)
    pairs = [(word[:cut], word[cut:]) for cut in cuts]
    counted = [(min(map(spelling.frequency_of_new, pair)), pair) for pair in pairs]
    frequency, pair = max(counted, default=(0, ("", "")))
    return " ".join(pair) if frequency >= _FREQUENT else None
