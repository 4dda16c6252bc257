"""The shapes of answers, for the OpenAPI document. Answers are written as bytes; a test holds them to these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Fault(BaseModel):
    field: str = Field(description="path into the request")
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[Fault]


class Degraded(BaseModel):
    """Whether, and why, the answer is below what was asked for."""

    reasons: list[str]
    is_: bool = Field(alias="is")


class Total(BaseModel):
    """Products in the result set; `gte` where the set was cut off at its depth."""

    value: int
    relation: Literal["eq", "gte"]


class Contribution(BaseModel):
    name: str
    value: float | None
    weight: float | None
    contribution: float


class Link(BaseModel):
    """`score` = 1 / (1 + exp(-(slope · raw + offset)))."""

    slope: float
    offset: float


class Evidence(BaseModel):
    """A word of the query that the product has."""

    query: str = Field(description="as the query spells it")
    product: list[str] = Field(description="the index's terms that it met in the product")
    field: Literal["title", "all"] = Field(description="all: not in the title, but in the rest of the text")
    kind: Literal["exact", "synonym", "modifier", "prefix", "absent"] = Field(
        description="absent: query and product both say that they are without it; modifier: it is for such a thing"
    )


class Explanation(BaseModel):
    """`raw` is the ordered float64 sum of the contributions, bit for bit."""

    raw: float
    link: Link
    contributions: list[Contribution]
    evidence: list[Evidence]
    missing: list[str] = Field(description="words of the query that the product does not have")


class Hit(BaseModel):
    id: str
    score: float | None = Field(description="calibrated probability that the product is relevant; null when browsing")
    product: dict[str, Any]
    explanation: Explanation | None


class FacetValue(BaseModel):
    value: str | bool
    count: int


class RelaxedQuery(BaseModel):
    """Nothing was found for the whole query: these are the hits, and their scores, for `text`. The filter holds."""

    text: str | None = Field(description="what was searched for instead; null: the filter alone, by popularity")
    dropped: list[str] = Field(description="the words left out, in the order of the query")


class SearchResponse(BaseModel):
    request_id: str
    took_ms: float
    cached: bool
    version: str
    tier: str
    degraded: Degraded
    corrected: str | None = Field(description="the text searched for, where the typed one was misspelt; else null")
    relaxed: RelaxedQuery | None = Field(description="what was searched for where nothing had all of it; else null")
    truncated: bool = Field(description="true: longer than the encoder reads; the meaning is that of its beginning")
    word_matches: int | None = Field(
        description="products (of those that the filter lets through) with a word of the query; 0: what was found was "
        "found by its meaning alone; null: no words were looked for"
    )
    total: Total
    hits: list[Hit]
    facets: dict[str, list[FacetValue]]


class RescoreScore(BaseModel):
    """A score, or why there is none."""

    index: int
    score: float | None = None
    error: str | None = None
    missing_fields: list[str] | None = None


class RescoreItemAnswer(BaseModel):
    version: str
    tier: str
    degraded: Degraded
    results: list[RescoreScore]


class RescoreItemError(BaseModel):
    error: Problem


class RescoreResponse(BaseModel):
    version: str
    items: list[RescoreItemAnswer | RescoreItemError]


class CategoryShare(BaseModel):
    value: str = Field(description="a value of `field`, as a filter takes it")
    probability: float = Field(ge=0, le=1, description="that what was asked about is in this category")


class ClassifyResponse(BaseModel):
    version: str
    field: str = Field(description="the catalogue's field with the role category")
    corrected: str | None = Field(description="the query classified, where the typed one was misspelt; else null")
    categories: list[CategoryShare]


class FailedCondition(BaseModel):
    path: str = Field(description="of the condition in the request")
    condition: dict[str, Any]
    values: dict[str, Any] = Field(description="what the product has in the condition's fields; null for nothing")


class DroppedByFilter(BaseModel):
    """`then` is the stage it comes to without the conditions that failed."""

    failed: list[FailedCondition]
    then: Literal["retrieval", "rank", "shown"]


class LegPlace(BaseModel):
    """Where all products that the filter lets through are ordered by one leg's score."""

    kept: bool = Field(description="among those that the leg brought into the result set")
    rank: int | None = Field(description="null where the product has no word of the query")
    score: float
    depth: int = Field(description="products that the leg brings at most")
    last: float | None = Field(description="score of the last one brought; null where the list is not full")


class WordsPlace(LegPlace):
    evidence: list[Evidence]
    missing: list[str]


class MeaningPlace(LegPlace):
    floor: float = Field(description="least score that is brought")
    approximate: bool = Field(description="the list was searched for in a graph, which may miss what is in its range")


class LastShown(BaseModel):
    id: str
    raw: float
    score: float


class Difference(BaseModel):
    """`last` - `product`: what a feature adds to the gap."""

    name: str
    last: float
    product: float
    difference: float


class ResultRank(BaseModel):
    """Where the product stands in the result set; `last`, `gap` and `difference` are those to the k-th hit."""

    rank: int
    k: int
    total: int
    raw: float
    score: float
    last: LastShown | None
    gap: float | None = Field(description="in raw score; 0: the k-th hit's id comes first")
    difference: list[Difference] = Field(description="the features that make the gap, the largest first")


class Change(BaseModel):
    """What, changed to this all at once, keeps the product at the stage; members left out stay as they are."""

    filter: dict[str, Any] | None = Field(None, description="the filter without what failed; null: none at all")
    depth: int | None = Field(None, description="the profile's depth, or more")
    floor: float | None = Field(None, description="the profile's floor, or less")
    k: int | None = Field(None, description="hits asked for, or more; or `offset` + `k`")


class WhyNotResponse(BaseModel):
    version: str
    tier: str
    degraded: Degraded
    corrected: str | None = Field(description="the text searched for, where the typed one was misspelt; else null")
    id: str
    stage: Literal["filter", "retrieval", "rank", "shown"] = Field(description="the first that dropped it, or shown")
    keep: list[Change] = Field(description="any of which would have kept it at that stage")
    filter: DroppedByFilter | None
    lexical: WordsPlace | None = Field(description="null where it did not come so far, or the profile has no such leg")
    dense: MeaningPlace | None
    rank: ResultRank | None


class RerankText(BaseModel):
    text: str


class RerankResult(BaseModel):
    index: int
    relevance_score: float
    document: RerankText | None = None


class RerankResponse(BaseModel):
    id: str
    results: list[RerankResult]
    meta: dict[str, Any]


class RerankError(BaseModel):
    message: str
    id: str


class TeiResult(BaseModel):
    index: int
    score: float
    text: str | None = None


class TeiError(BaseModel):
    error: str
    error_type: Literal["Validation", "Overloaded", "Unhealthy", "Backend"]


class ProductResponse(BaseModel):
    id: str
    version: str
    product: dict[str, Any]


class ChangeResponse(BaseModel):
    """Changes that are kept: durable now, seen by every search within a second."""

    accepted: int
    sequence: int
    version: str


class FieldAnswer(BaseModel):
    name: str
    type: Literal["text", "keyword", "number", "boolean"]
    facet: bool


class CollectionAnswer(BaseModel):
    name: str
    version: str
    products: int
    title: str
    attribution: str
    fields: list[FieldAnswer]
    examples: list[str]
    show_images: bool


class CollectionsResponse(BaseModel):
    collections: list[CollectionAnswer]


class VersionAnswer(BaseModel):
    collection: str
    version: str
    products: int
    previous: list[str]


class VersionsResponse(BaseModel):
    collections: list[VersionAnswer]


class VersionChange(BaseModel):
    """What the process that answers serves now."""

    collection: str
    version: str
    before: str | None = Field(description="the version served until now; null: this collection was not")
    changed: bool = Field(description="false: it was served already")


class Probe(BaseModel):
    status: Literal["live", "ready", "started", "starting", "draining", "workers_stuck", "golden_failed"]
