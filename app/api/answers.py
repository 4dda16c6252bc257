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


class Explanation(BaseModel):
    """`raw` is the ordered float64 sum of the contributions, bit for bit."""

    raw: float
    contributions: list[Contribution]


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


class Probe(BaseModel):
    status: Literal["live", "ready", "started", "starting", "draining"]
