"""Stage 9, on demand: the score in its parts, and which words met. The parts' float64 sum, in the order given, is `raw`
bit for bit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from app.index.analysis import units, without_accents
from app.index.chinese import MODIFIER
from app.index.lexical import LexicalIndex, LexicalQuery
from app.index.negation import NOT
from app.search.calibrate import Clarity
from app.search.features import NAMES
from app.search.rerank import Profile, Ranked
from app.types import Rows

_PLACES = (None, "all", "title")  # as LexicalIndex.holds counts them
_ABSENT = "absent"
Told = dict[str, Any]


def explained(
    ranked: Ranked, chosen: slice | list[int], met: Sequence[Told], profile: Profile, clarity: Clarity
) -> list[Told]:
    """What each feature brought to the hits at the `chosen` positions, with the evidence of each; `link` makes the
    score of `raw`: 1 / (1 + exp(-(slope · raw + offset)))."""
    link = {"slope": profile.link.slope, "offset": profile.link.offset(clarity)}
    hits = zip(
        ranked.raw[chosen].tolist(),
        ranked.features[chosen].tolist(),
        ranked.contributions[chosen].tolist(),
        met,
        strict=True,
    )
    return [
        {
            "raw": raw,
            "link": link,
            "contributions": [
                {"name": name, "value": value, "weight": weight, "contribution": contribution}
                for name, value, weight, contribution in zip(NAMES, values, profile.weights, parts, strict=True)
            ],
            **words,
        }
        for raw, values, parts, words in hits
    ]


def evidence(rows: Rows, text: str, index: LexicalIndex, query: LexicalQuery | None) -> list[Told]:
    """For each row, which words of the query `text` met which terms of the product, by the postings that BM25 adds up,
    and which met none. `field` is "all" for what is not in the title; `kind` one of lexical.KINDS, or "absent" where
    product and query both say that they are without it. What is to be absent is never `missing`."""
    if query is None:
        return [{"evidence": [], "missing": []} for _ in rows]
    typed = _typed(text)
    asked = [typed.get(plain, plain) for plain in map(_plain, query.words)]
    negated = [word.startswith(NOT) for word in query.words]
    terms = [_plain(index.term(number)) for number in query.terms.tolist()]
    groups = query.groups.tolist()
    ends = [bisect_left(groups, word) for word in range(len(asked) + 1)]

    def meetings(word: int, held: bytes) -> list[Told]:
        met: dict[tuple[str, str | None], list[str]] = {}
        for column, place in enumerate(held, ends[word]):
            if place:
                kind = _ABSENT if negated[word] else query.kinds[column]
                met.setdefault((kind, _PLACES[place]), []).append(terms[column])
        return [
            {"query": asked[word], "product": product, "field": place, "kind": kind}
            for (kind, place), product in met.items()
        ]

    told: list[Told] = [{"evidence": [], "missing": []} for _ in rows]
    places, width = index.holds(query, rows).tobytes(), len(groups)
    for word, (start, end) in enumerate(pairwise(ends)):
        known: dict[bytes, list[Told]] = {}  # most hits have a word in the same places
        for at, one in enumerate(told):
            held = places[at * width + start : at * width + end]
            if held not in known:
                known[held] = meetings(word, held)
            if known[held]:
                one["evidence"] += known[held]
            elif not negated[word]:
                one["missing"].append(asked[word])
    return told


def _typed(text: str) -> dict[str, str]:
    """How a normalised query spells its terms."""
    plain = without_accents(text)
    spelt: dict[str, str] = {}
    for term, start, end in units(text):
        spelt.setdefault(term, plain[start:end])
    return spelt


def _plain(term: str) -> str:
    """A term as it is read: without the mark of what is absent or what a thing is for, a phrase with its spaces."""
    return term.removeprefix(NOT).removeprefix(MODIFIER).replace("_", " ")
