"""What the lexical index holds of a product's text, and what a query asks of it: tokens, what is said to be absent, and
the phrases of the synonyms.

A word that a text negates is another term than the word itself (negation tagging: Das and Chen 2001), so `fan without
light` finds the products that say so rather than those that have a light. Products keep the plain word as well: who
asks for `sugar candy` may still see the sugar-free one.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.index.analysis import tokens, without_accents
from app.index.negation import NOT, denied_terms, negated_terms
from app.index.synonyms import NO_SYNONYMS, Expansion, Synonyms, term_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that a query asks for: a term, or as good as it (`equals`), or nearly (`synonyms`)."""

    term: str
    equals: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()


def product_terms(text: str, synonyms: Synonyms = NO_SYNONYMS) -> list[str]:
    """The lexical terms of a normalised product text, repeats kept."""
    return [*tokens(text), *denied_terms(text), *synonyms.phrases(text)]


def query_terms(text: str, synonyms: Synonyms = NO_SYNONYMS) -> list[Wanted]:
    """What a normalised query asks for, in order, each term once; terms that it wants absent are marked."""
    absent = frozenset(negated_terms(text))
    plain = without_accents(text)
    similar: dict[str, dict[str, None]] = {}
    replaced: list[Wanted] = []
    rest, done = [], 0
    for start, end, found in synonyms.matches(plain):
        if found.kept:
            for term in tokens(plain[start:end]):
                similar.setdefault(term, {}).update(dict.fromkeys(map(term_of, found.alternatives)))
        else:
            denied = not absent.isdisjoint(tokens(plain[start:end]))
            replaced += [_marked(one) if denied else one for one in _replacements(found)]
            rest.append(plain[done:start])
            done = end
    rest.append(plain[done:])
    wanted = {term: Wanted(term, (), tuple(similar.get(term, ()))) for term in tokens(" ".join(rest))}
    wanted = {one.term: one for one in replaced} | wanted
    return [_marked(one) if one.term in absent else one for one in wanted.values()]


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
