"""The nouns that the stages hand to each other: small frozen values. Imports nothing of ours.

Rows: a product's row is its position in the catalogue. Rows are in ascending order of product id, so "ties by id" is
"ties by row" everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TIER_LEXICAL = "lexical"
TIER_FAST = "fast"
TIER_HYBRID = "hybrid"
TIER_BROWSE = "browse"
TIER_WORDS = "words"
"""What the words found, in the order in which they found it: without scores."""


@dataclass_transform(frozen_default=True)
def record(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """A dataclass with slots that the type checker keeps from being changed. For what is made anew in every search:
    where Python itself watches over it (`frozen=True`), making one takes three and a half times as long."""
    return dataclass(slots=True, eq=eq)


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort key: a numeric or keyword field of the catalogue; products without a value come last either way."""

    field: str
    descending: bool = False


@record()
class SearchRequest:
    """What a caller asks for, checked for shape at the edge; `filter` is the raw JSON value, typed against the
    catalogue's schema by the searcher."""

    query: str | None
    k: int = 10
    offset: int = 0
    filter: Any = None
    facets: tuple[str, ...] = ()
    sort: tuple[Sort, ...] = ()
    profile: str = "default"
    timeout_ms: float = 1000.0
    explain: bool = False
    fields: tuple[str, ...] | None = None
    collection: str = "default"
    prefix: bool = False
    relax: bool = False


@dataclass(frozen=True, slots=True)
class RescoreCandidate:
    """A product to score: by catalogue id, or by its text. Exactly one is given."""

    id: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class RescoreItem:
    """One query and the candidates to score for it."""

    query: str
    candidates: tuple[RescoreCandidate, ...]


@record()
class Timing:
    """Wall time of one stage, in milliseconds."""

    stage: str
    ms: float


@record()
class SearchAnswer:
    """A finished search. `tail` is the JSON object's members after `request_id`, `took_ms` and `cached`, up to and
    including the closing brace: it is the same bytes whether computed now or read from a cache."""

    tail: bytes
    version: str
    tier: str
    cached: bool
    degraded: tuple[str, ...]
    timings: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class RescoreResult:
    """Score of one candidate, or why it has none. `missing_fields` names the fields a candidate given as text lacks."""

    index: int
    score: float | None = None
    error: str | None = None
    missing_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RescoreAnswer:
    """Results of one RescoreItem, in the candidates' order."""

    version: str
    tier: str
    results: tuple[RescoreResult, ...]
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """A query or a product's text (exactly one is given) whose `k` likeliest categories are asked for."""

    query: str | None
    text: str | None = None
    k: int = 10
    timeout_ms: float = 1000.0
    collection: str = "default"


@dataclass(frozen=True, slots=True)
class ClassifyAnswer:
    """Categories, values of `field`, with the probability that what was asked about is in each; the likeliest first.
    `corrected` is the query that was classified, where it is not what was typed."""

    version: str
    field: str
    corrected: str | None
    categories: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class WhyNotRequest:
    """A product, by id, that is asked about, and the search whose first `k` hits it is missed among."""

    query: str
    id: str
    k: int = 10
    filter: Any = None
    profile: str = "default"
    timeout_ms: float = 1000.0
    collection: str = "default"


@dataclass(frozen=True, slots=True)
class Product:
    """One catalogue row as the reader gives it: an id and its fields by name (after the mapping)."""

    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The field as plain text; lists and attribute maps are joined; an absent field is the empty string."""
        return _plain(self.fields.get(name))


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return " ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return " ".join(_plain(item) for item in value)
    if isinstance(value, bool):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
