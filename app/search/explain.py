"""Stage 9, on demand: the score in its parts, and which words met. The parts' float64 sum, in the order given, is `raw`
bit for bit."""

from __future__ import annotations

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


def explanation(ranked: Ranked, position: int, profile: Profile, clarity: Clarity) -> dict[str, Any]:
    """What each feature brought to the hit at `position`; `link` makes the score of `raw`:
    1 / (1 + exp(-(slope · raw + offset)))."""
    parts = zip(
        NAMES,
        ranked.features[position].tolist(),
        profile.weights,
        ranked.contributions[position].tolist(),
        strict=True,
    )
    return {
        "raw": float(ranked.raw[position]),
        "link": {"slope": profile.link.slope, "offset": profile.link.offset(clarity)},
        "contributions": [
            {"name": name, "value": value, "weight": weight, "contribution": contribution}
            for name, value, weight, contribution in parts
        ],
    }


def evidence(rows: Rows, text: str, index: LexicalIndex, query: LexicalQuery | None) -> list[dict[str, Any]]:
    """For each row, which words of the query `text` met which terms of the product, by the postings that BM25 adds up,
    and which met none. `field` is "all" for what is not in the title; `kind` one of lexical.KINDS, or "absent" where
    product and query both say that they are without it. What is to be absent is never `missing`."""
    if query is None:
        return [{"evidence": [], "missing": []} for _ in rows]
    typed = _typed(text)
    asked = [typed.get(plain, plain) for plain in map(_plain, query.words)]
    negated = [word.startswith(NOT) for word in query.words]
    groups = query.groups.tolist()
    kinds = [_ABSENT if negated[group] else kind for group, kind in zip(groups, query.kinds, strict=True)]
    terms = [_plain(index.term(number)) for number in query.terms.tolist()]
    told = []
    for held in index.holds(query, rows).tolist():
        met: dict[tuple[int, str, str | None], list[str]] = {}
        for column, place in enumerate(held):
            if place:
                met.setdefault((groups[column], kinds[column], _PLACES[place]), []).append(terms[column])
        found = {group for group, *_ in met}
        told.append(
            {
                "evidence": [
                    {"query": asked[group], "product": product, "field": place, "kind": kind}
                    for (group, kind, place), product in met.items()
                ],
                "missing": [word for at, word in enumerate(asked) if at not in found and not negated[at]],
            }
        )
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
