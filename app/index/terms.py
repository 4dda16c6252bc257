"""What the lexical index holds of a product's text, and what a query asks of it: tokens, what is said to be absent, in
Chinese what a thing is for, and the phrases of the synonyms.

A word that a text negates is another term than the word itself (negation tagging: Das and Chen 2001), so `fan without
light` finds the products that say so rather than those that have a light. Products keep the plain word as well: who
asks for `sugar candy` may still see the sugar-free one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from app.index.analysis import is_unspaced, tokens, without_accents
from app.index.chinese import MODIFIER, modifier_spans, without_asking
from app.index.negation import NOT, denied_terms, negated_terms
from app.index.synonyms import NO_SYNONYMS, Expansion, Synonyms, term_of
from app.types import record


@record()
class Wanted:
    """One thing that a query asks for: a term, or as good as it (`equals`), or nearly (`synonyms`), or at least in
    connection with something else (`modifiers`)."""

    term: str
    equals: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()


def product_terms(text: str, synonyms: Synonyms = NO_SYNONYMS) -> list[str]:
    """The lexical terms of a normalised product text, repeats kept."""
    own, modifiers = _parted(text)
    return [*tokens(own), *(MODIFIER + term for term in modifiers), *denied_terms(text), *synonyms.phrases(text)]


def query_terms(text: str, synonyms: Synonyms = NO_SYNONYMS) -> list[Wanted]:
    """What a normalised query asks for, in order, each term once; terms that it wants absent are marked."""
    text = without_asking(text)
    absent = frozenset(negated_terms(text))
    plain = without_accents(text)
    similar: dict[str, dict[str, None]] = {}
    pieces: list[str | Expansion] = []
    denied: set[int] = set()
    done = 0
    for start, end, found in synonyms.matches(plain):
        own = tokens(plain[start:end])
        if found.kept:
            for term in own:
                similar.setdefault(term, {}).update(dict.fromkeys(map(term_of, found.alternatives)))
        else:
            if not absent.isdisjoint(own):
                denied.add(len(pieces) + 1)
            pieces += (plain[done:start], found)
            done = end
    wanted: dict[str, Wanted] = {}
    for at, piece in enumerate((*pieces, plain[done:])):
        asked = _asked(piece, similar) if isinstance(piece, str) else _replacements(piece)
        for one in asked:
            marked = _marked(one) if one.term in absent or at in denied else one
            wanted.setdefault(marked.term, marked)
    return list(wanted.values())


def _asked(text: str, similar: Mapping[str, Iterable[str]]) -> Iterator[Wanted]:
    """The terms of a part of a query, with their synonyms."""
    own, modifiers = _parted(text)
    for term in tokens(own):
        yield Wanted(term, (), tuple(similar.get(term, ())), (MODIFIER + term,) if is_unspaced(term) else ())
    for term in modifiers:
        yield Wanted(MODIFIER + term, (term,), tuple(similar.get(term, ())))


def _parted(text: str) -> tuple[str, list[str]]:
    """The text without what only tells what a thing is for, and the terms of that."""
    spans = modifier_spans(text)
    if not spans:
        return text, []
    own, done = [], 0
    for start, end in spans:
        own.append(text[done:start])
        done = end
    return " ".join((*own, text[done:])), [term for start, end in spans for term in tokens(text[start:end])]


def _replacements(found: Expansion) -> list[Wanted]:
    """The right side as if it had been typed; of several, any one will do."""
    if len(found.alternatives) == 1:
        return [Wanted(term) for term in tokens(found.alternatives[0])]
    first, *others = map(term_of, found.alternatives)
    return [Wanted(first, tuple(others))]


def _marked(one: Wanted) -> Wanted:
    """The same, to be absent. A phrase has no mark in the index."""
    equals, synonyms = (tuple(NOT + term for term in terms if "_" not in term) for terms in (one.equals, one.synonyms))
    return Wanted(NOT + one.term, equals, synonyms)
