"""What the lexical index holds of a product's text, and what a query asks of it: tokens, and what is said to be absent.

A word that a text negates is another term than the word itself (negation tagging: Das and Chen 2001), so `fan without
light` finds the products that say so rather than those that have a light. Products keep the plain word as well: who
asks for `sugar candy` may still see the sugar-free one.
"""

from __future__ import annotations

from app.index.analysis import tokens
from app.index.negation import NOT, denied_terms, negated_terms


def product_terms(text: str) -> list[str]:
    """The lexical terms of a normalised product text, repeats kept."""
    return [*tokens(text), *denied_terms(text)]


def query_terms(text: str) -> list[str]:
    """The lexical terms of a normalised query, each once, in order; those that it wants absent are marked."""
    absent = frozenset(negated_terms(text))
    return list(dict.fromkeys(NOT + term if term in absent else term for term in tokens(text)))
