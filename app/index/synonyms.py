"""Synonyms as shops keep them: the file format of Solr and Elasticsearch, and what a query's words are expanded to.

    # a comment
    couch, sofa, settee                 words that mean the same: each finds the others, a little below itself
    tv, television, flat screen         an entry may have several words
    ps5 => playstation 5                is read as if the right side had been typed
    trainer => trainer, sneaker         the left side stays, where it stands on the right, too
    1\\,5 l => 1.5 l                     a comma or an arrow that belongs to a word is escaped

Entries are compared as the index compares words: any case, singular or plural, any spelling of a measure.

An entry of several words is one term of the index (`flat_screen`), put beside the words of every product text in which
they follow each other. So "flat screen" has a frequency of its own, a product with `flat` alone is no television, and
the terms of a query's word are still alternatives of which the best counts. That is why synonyms belong to a version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.errors import BadInput
from app.index.analysis import normalize_text, units

MOST_UNITS = 8  # words, or unspaced characters, of one entry
_WORDNET = re.compile(r"s\(\d+,")
Units = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a left side stands for: normalised texts, in the file's order; `kept`: and itself."""

    alternatives: tuple[str, ...]
    kept: bool


@dataclass(frozen=True)
class Synonyms:
    """The rules of a version, by the left side's units. Immutable."""

    rules: Mapping[Units, Expansion]

    @classmethod
    def parse(cls, text: str, name: str = "synonyms") -> Synonyms:
        """Read a file's text. Raises BadInput naming the line."""
        rules: dict[Units, Expansion] = {}
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            try:
                for left, right, kept in _rules(line):
                    _add(rules, left, right, kept)
            except ValueError as error:
                raise BadInput(f"{name}, line {number}: {error}") from error
        return cls(rules)

    def to_json(self) -> list[Any]:
        return [[" ".join(left), list(one.alternatives), one.kept] for left, one in self.rules.items()]

    @classmethod
    def from_json(cls, value: Any) -> Synonyms:
        """Read what `to_json` gave. Raises ValueError or TypeError where it is not of that form."""
        rules = {}
        for left, alternatives, kept in value:
            if not (isinstance(kept, bool) and all(isinstance(one, str) for one in (left, *alternatives))):
                raise ValueError("synonyms: not a rule")
            rules[tuple(left.split(" "))] = Expansion(tuple(alternatives), kept)
        return cls(rules)

    def knows(self, text: str) -> bool:
        """Whether a normalised text is an entry, or a word of one: then it is meant as typed."""
        found = tuple(unit for unit, _, _ in units(text))
        return found in self.rules or (len(found) == 1 and found[0] in self._words)

    def matches(self, text: str) -> Iterator[tuple[int, int, Expansion]]:
        """Where entries occur in a normalised text without accents: [start, end) and the expansion; from the left, the
        longest first, without overlap."""
        if not self.rules:
            return
        found = list(units(text))
        at = 0
        while at < len(found):
            for length in range(min(self._longest.get(found[at][0], 0), len(found) - at), 0, -1):
                rule = self.rules.get(tuple(unit for unit, _, _ in found[at : at + length]))
                if rule is not None:
                    yield found[at][1], found[at + length - 1][2], rule
                    at += length - 1
                    break
            at += 1

    def phrases(self, text: str) -> list[str]:
        """The terms of those alternatives of several units that a normalised product text holds, repeats kept."""
        if not self._phrases:
            return []
        held = [unit for unit, _, _ in units(text)]
        return [
            "_".join(held[at : at + length])
            for at, unit in enumerate(held)
            for length in self._lengths.get(unit, ())
            if tuple(held[at : at + length]) in self._phrases
        ]

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(unit for left in self.rules for unit in left)

    @cached_property
    def _longest(self) -> dict[str, int]:
        """Units of the longest left side that begins with a unit."""
        longest: dict[str, int] = {}
        for left in self.rules:
            longest[left[0]] = max(longest.get(left[0], 0), len(left))
        return longest

    @cached_property
    def _phrases(self) -> frozenset[Units]:
        sides = (_units(one) for rule in self.rules.values() for one in rule.alternatives)
        return frozenset(side for side in sides if len(side) > 1)

    @cached_property
    def _lengths(self) -> dict[str, list[int]]:
        """Lengths of the phrases that begin with a unit, ascending."""
        lengths: dict[str, set[int]] = {}
        for phrase in self._phrases:
            lengths.setdefault(phrase[0], set()).add(len(phrase))
        return {unit: sorted(known) for unit, known in lengths.items()}


NO_SYNONYMS = Synonyms({})


def term_of(alternative: str) -> str:
    """The index's term for a normalised alternative: its word, or its words as one."""
    return "_".join(_units(alternative))


def _units(text: str) -> Units:
    return tuple(unit for unit, _, _ in units(text))


def _add(rules: dict[Units, Expansion], left: Units, right: Iterable[str], kept: bool) -> None:
    """Rules for the same left side add up; it is kept where any of them keeps it."""
    known = rules.get(left, Expansion((), False))
    rules[left] = Expansion(tuple(dict.fromkeys((*known.alternatives, *right))), known.kept or kept)


def _rules(line: str) -> Iterator[tuple[Units, list[str], bool]]:
    if _WORDNET.match(line):
        raise ValueError("this is WordNet's format; write `word, word` or `word => word`")
    sides = [_entries(side) for side in _split(line, "=>")]
    if len(sides) > 2:
        raise ValueError("more than one =>")
    if len(sides) == 1 and len(sides[0]) < 2:
        raise ValueError(f"{line[:64]!r} stands alone; write `word, word` or `word => word`")
    right = {_units(entry): entry for entry in sides[-1]}
    for entry in sides[0]:
        left = _units(entry)
        others = [one for known, one in right.items() if known != left]
        if others:
            yield left, others, left in right


def _entries(side: str) -> list[str]:
    entries = [normalize_text(re.sub(r"\\(.)", r"\1", entry)) for entry in _split(side, ",")]
    for entry, written in zip(entries, _split(side, ","), strict=True):
        count = len(_units(entry))
        if not count:
            raise ValueError(f"{written.strip()[:64]!r} holds no word" if written.strip() else "an entry is empty")
        if count > MOST_UNITS:
            raise ValueError(f"{written.strip()[:64]!r} has {count} words, at most {MOST_UNITS}")
    return entries


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that no backslash escapes; escapes stay for the parts' own reading."""
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith(separator, at):
            parts.append(text[start:at])
            at = start = at + len(separator)
        else:
            at += 1
    return [*parts, text[start:]]
