"""When nothing is found, and the request would have something nearby (`relax`): the same search for fewer words under
the same filter. The answer says which were dropped. Without the request's word for it an empty result set stays empty:
who narrows a filter must be able to rely on it.

Words are alternatives in the lexical leg, so a search finds nothing only where no product that the filter lets through
has any of them, and none is near in meaning. Then some words may still stand between the query and a product that is
near to the rest of it: what the catalogue never says is dropped first, then what it says most often. What is negated is
dropped with its "without". In the end, under a filter, all words go: what remains is what the shopper filtered for.
Without a filter nothing is made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.index.analysis import is_unit
from app.index.lexical import LexicalIndex
from app.index.negation import negated_phrases

MOST_STEPS = 4  # texts that are tried; each costs what a search costs
_NUMBER = re.compile(r"[0-9]+(?:[.,/][0-9]+)*")


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What was searched for instead of `asked`: `text`, or None where only the filter is left; `dropped` in the order
    of the query."""

    asked: str
    text: str | None
    dropped: tuple[str, ...]


def relaxations(asked: str, words: LexicalIndex) -> Iterator[Relaxed]:
    """Ever shorter texts of a normalised query, the most informative part last; at most MOST_STEPS of them."""
    parts = _parts(asked)
    order = sorted(range(len(parts)), key=lambda at: (words.information(parts[at]), at))
    steps = order[:-1][:MOST_STEPS]
    for count in range(1, len(steps) + 1):
        gone = frozenset(steps[:count])
        kept = " ".join(part for at, part in enumerate(parts) if at not in gone)
        yield Relaxed(asked, kept, tuple(part for at, part in enumerate(parts) if at in gone))


def nothing_left(asked: str) -> Relaxed:
    """The filter alone."""
    return Relaxed(asked, None, tuple(_parts(asked)))


def _parts(text: str) -> list[str]:
    """The words of a text. A number with its unit is one part, and so is a negation with what it negates."""
    phrases = negated_phrases(text)
    parts: list[str] = []
    end = 0
    last = ""
    for match in re.finditer(r"\S+", text):
        inside = any(start < match.start() < stop for start, stop in phrases)
        if parts and (inside or (_NUMBER.fullmatch(last) and is_unit(match[0]))):
            parts[-1] = f"{parts[-1]}{text[end : match.start()]}{match[0]}"
        else:
            parts.append(match[0])
        end, last = match.end(), match[0]
    return parts
