"""What the columns of a catalogue file hold, counted in one pass, and the narrowest type that holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.index.record import number
from app.index.schema import FieldType

MAX_KEYWORD_CHARACTERS = 80
MAX_ROLE_CHARACTERS = 256
MAX_VALUES_COUNTED = 10_000
MAX_MEMBERS_COUNTED = 20_000
CLEARLY = 0.95
"""Share of numbers from which a price, stock or popularity column is one of numbers, its other values being wrong."""

_LEADING_ZERO = re.compile(r"[+-]?0\d")


class ColumnProfile:
    """What one column of a file holds, counted over all of its rows."""

    __slots__ = (
        "booleans",
        "flags",
        "lists",
        "longest",
        "maps",
        "members",
        "numbers",
        "numerals",
        "seen",
        "texts",
        "values",
    )

    def __init__(self) -> None:
        self.seen = 0  # values that are not missing
        self.numbers = self.booleans = self.texts = self.lists = self.maps = 0
        self.numerals = 0  # texts that write a number
        self.flags = 0  # texts that say true or false
        self.longest = 0
        self.values: set[str] = set()
        self.members: dict[str, ColumnProfile] = {}

    def see(self, value: Any) -> None:
        if value is None or value == "" or value == [] or value == {} or value != value:
            return
        self.seen += 1
        if isinstance(value, str):
            self._see_text(value)
            self.texts += 1
        elif isinstance(value, bool):
            self.booleans += 1
        elif isinstance(value, int | float):
            self.numbers += 1
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            self.lists += 1
            for item in value:
                self._see_text(item)
        elif isinstance(value, dict):
            self.maps += 1
            self._see_members(value)

    def _see_text(self, text: str) -> None:
        if len(text) > self.longest:
            self.longest = len(text)
        if len(self.values) <= MAX_VALUES_COUNTED and len(text) <= MAX_ROLE_CHARACTERS:
            self.values.add(text)
        if text[0:1] in "+-.0123456789":
            self.numerals += number(text) is not None and len(text) < 16 and not _LEADING_ZERO.match(text)
        elif len(text) < 6:
            self.flags += text.lower() in ("true", "false")

    def _see_members(self, value: dict[str, Any]) -> None:
        for name, item in value.items():
            profile = self.members.get(name)
            if profile is None:
                if len(self.members) >= MAX_MEMBERS_COUNTED:
                    continue
                profile = self.members[name] = ColumnProfile()
            profile.see(item)

    def type(self, untyped: bool) -> FieldType:
        """The narrowest type that holds every value. `untyped` files write numbers and booleans as text."""
        if not self.seen:
            return "text"
        if self.numbers + (self.numerals if untyped else 0) == self.seen:
            return "number"
        if self.booleans + (self.flags if untyped else 0) == self.seen:
            return "boolean"
        if self.texts + self.lists == self.seen and self.longest <= MAX_KEYWORD_CHARACTERS:
            repetitive = len(self.values) <= MAX_VALUES_COUNTED and len(self.values) * 2 <= self.seen
            return "keyword" if repetitive else "text"
        return "text"

    def fits_keyword_role(self) -> bool:
        held = self.texts + self.lists + self.numbers
        return held == self.seen and self.longest <= MAX_ROLE_CHARACTERS

    def fits_number_role(self) -> bool:
        return self.seen > 0 and self.numbers + self.numerals >= CLEARLY * self.seen


@dataclass(frozen=True, slots=True)
class Profiles:
    """All columns of a file by name; `untyped` where the format knows only text (CSV)."""

    columns: Mapping[str, ColumnProfile]
    untyped: bool
