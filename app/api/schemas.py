"""The shapes of requests, and their limits. Our own shapes are strict; foreign shapes take what their clients send."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, model_validator
from pydantic_core import PydanticCustomError, ValidationError

from app.errors import BadInput, MalformedInput
from app.types import ClassifyRequest, RescoreCandidate, RescoreItem, SearchRequest, Sort, WhyNotRequest

RESCORE_PATH = "/v1/rescore"
NDJSON = b"application/x-ndjson"

MAX_QUERY_CHARACTERS = 1000
MAX_K = 200  # hits on a page
MAX_OFFSET = 10_000  # hits before a page
MAX_FACETS = 16
MAX_SORTS = 4
MAX_FIELDS = 64
MAX_NAME_CHARACTERS = 128  # of a field
MAX_ID_CHARACTERS = 512  # of a product
MAX_RECENT_PRODUCTS = 100
MIN_TIMEOUT_MS = 1
MAX_TIMEOUT_MS = 60_000
MAX_PAIRS = 1000  # (query, candidate) pairs of one JSON rescoring, or of one line of a stream
MAX_TEXT_CHARACTERS = 100_000  # of a candidate's text
MAX_CATEGORIES = 100  # of one classification
MAX_DOCUMENTS = 1000  # of one reranking
MAX_RECORDS = 1000  # products of one change
MAX_LINE_BYTES = 1024 * 1024  # of a stream's line
_MAX_LISTED_ERRORS = 20
_MAX_PATH_CHARACTERS = 200

# At least one character that is neither white space nor a control: anything else is an empty query.
NOT_BLANK = r"[^\s\x00-\x1f\x7f-\x9f]"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

QueryText = Annotated[str, StringConstraints(max_length=MAX_QUERY_CHARACTERS, pattern=NOT_BLANK)]
Name = Annotated[str, StringConstraints(pattern=NAME)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS)]
SortText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS + 1, pattern=r"^-?[^-]")]
ProductId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARACTERS)]
CandidateText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS)]

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Unknown fields, converted types, NaN and infinities are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class SortKey(Strict):
    """`{"field": "price", "order": "desc"}`"""

    field: FieldName
    order: Annotated[str, StringConstraints(pattern="^(asc|desc)$")] = "asc"


class Context(Strict):
    """What is known of the shopper. Its shape is checked; it does not influence the ranking yet."""

    recent_product_ids: Annotated[tuple[ProductId, ...], Field(max_length=MAX_RECENT_PRODUCTS)] = ()


class SearchBody(Strict):
    """A search, or without `query` a browse of what `filter` lets through."""

    query: QueryText | None = Field(None, description="what is looked for; may be left out where there is a filter")
    k: int = Field(10, ge=1, le=MAX_K, description="hits to return")
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="hits to skip; `offset + k` must lie within the result set")
    filter: dict[str, Any] | None = Field(None, description="what a product must fulfil; see Filter")
    facets: Annotated[tuple[FieldName, ...], Field(max_length=MAX_FACETS)] = Field(
        (), description="fields whose values to count over the whole result set"
    )
    sort: SortText | SortKey | Annotated[list[SortText | SortKey], Field(max_length=MAX_SORTS)] | None = Field(
        None, description='null: by relevance; "price", "-price" (descending), {"field", "order"}, or a list of these'
    )
    profile: Name = Field("default", description="ranking profile of the version")
    timeout_ms: float | None = Field(
        None, ge=MIN_TIMEOUT_MS, le=MAX_TIMEOUT_MS, description="deadline; then the best found so far is the answer"
    )
    explain: bool = Field(False, description="what each feature and each word brought to each hit's raw score")
    fields: Annotated[tuple[FieldName, ...], Field(max_length=MAX_FIELDS)] | None = Field(
        None, description="stored fields to return with each hit; all when null"
    )
    collection: Name = "default"
    prefix: bool = Field(False, description="the last word may be unfinished, for search as you type")
    relax: bool = Field(False, description="where nothing is found, search for fewer words and say so in `relaxed`")
    context: Context | None = Field(None, description=Context.__doc__)

    @model_validator(mode="after")
    def _asks_for_something(self) -> SearchBody:
        if self.query is None and self.filter is None:
            raise PydanticCustomError("nothing_asked", "give a query, a filter, or both")
        return self

    def request(self, timeout_ms: float) -> SearchRequest:
        """The search that is meant; `timeout_ms` where it names no deadline of its own."""
        return SearchRequest(
            query=self.query,
            k=self.k,
            offset=self.offset,
            filter=self.filter,
            facets=self.facets,
            sort=_sorts(self.sort),
            profile=self.profile,
            timeout_ms=timeout_ms if self.timeout_ms is None else self.timeout_ms,
            explain=self.explain,
            fields=self.fields,
            collection=self.collection,
            prefix=self.prefix,
            relax=self.relax,
        )


def _sorts(given: str | SortKey | list[str | SortKey] | None) -> tuple[Sort, ...]:
    if given is None:
        return ()
    return tuple(_sort(key) for key in (given if isinstance(given, list) else [given]))


def _sort(key: str | SortKey) -> Sort:
    if isinstance(key, SortKey):
        return Sort(key.field, descending=key.order == "desc")
    return Sort(key.removeprefix("-"), descending=key.startswith("-"))


class Candidate(Strict):
    """Exactly one of `id` (a product of the catalogue) and `text` (any product text)."""

    id: ProductId | None = None
    text: CandidateText | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Candidate:
        if (self.id is None) == (self.text is None):
            raise PydanticCustomError("candidate", "give either an id or a text")
        return self


class RescoreLine(Strict):
    """One query and the candidates to score for it: an item of a JSON rescoring, or a line of a stream."""

    query: QueryText
    candidates: list[Candidate]

    @property
    def pairs(self) -> int:
        """What the line counts towards a limit; a line without candidates is work too."""
        return max(1, len(self.candidates))

    def item(self) -> RescoreItem:
        return RescoreItem(self.query, tuple(RescoreCandidate(one.id, one.text) for one in self.candidates))


class RescoreBody(Strict):
    """Up to 1,000 pairs in all; a stream of lines takes any number."""

    items: Annotated[list[RescoreLine], Field(min_length=1)]
    collection: Name = "default"
    profile: Name = "default"


class RescoreParams(Strict):
    """The query string of a streamed rescoring."""

    collection: Name = "default"
    profile: Name = "default"


class ClassifyBody(Strict):
    """Exactly one of `query` (what a shopper types) and `text` (any product text)."""

    query: QueryText | None = None
    text: CandidateText | None = None
    k: int = Field(10, ge=1, le=MAX_CATEGORIES, description="categories to return")
    timeout_ms: float | None = Field(None, ge=MIN_TIMEOUT_MS, le=MAX_TIMEOUT_MS)
    collection: Name = "default"

    @model_validator(mode="after")
    def _one_form(self) -> ClassifyBody:
        if (self.query is None) == (self.text is None):
            raise PydanticCustomError("classify", "give either a query or a text")
        return self

    def request(self, timeout_ms: float) -> ClassifyRequest:
        """What is asked; `timeout_ms` where it names no deadline of its own."""
        timeout = timeout_ms if self.timeout_ms is None else self.timeout_ms
        return ClassifyRequest(self.query, self.text, self.k, timeout, self.collection)


class WhyNotBody(Strict):
    """A search, and a product that is missed among its hits."""

    query: QueryText
    id: ProductId
    k: int = Field(10, ge=1, le=MAX_K, description="hits that are looked at")
    filter: dict[str, Any] | None = Field(None, description="what a product must fulfil; see Filter")
    profile: Name = "default"
    timeout_ms: float | None = Field(None, ge=MIN_TIMEOUT_MS, le=MAX_TIMEOUT_MS)
    collection: Name = "default"

    def request(self, timeout_ms: float) -> WhyNotRequest:
        """What is asked; `timeout_ms` where it names no deadline of its own."""
        timeout = timeout_ms if self.timeout_ms is None else self.timeout_ms
        return WhyNotRequest(self.query, self.id, self.k, self.filter, self.profile, timeout, self.collection)


class SimilarParams(Strict):
    """The query string of a product's neighbours."""

    k: int = Field(10, ge=1, le=MAX_K)
    collection: Name = "default"


class ProductParams(Strict):
    """The query string of a product."""

    collection: Name = "default"


class VersionsBody(Strict):
    """Which collection's version is to change."""

    collection: Name = "default"


class NoParams(Strict):
    """A route without query string."""


class Foreign(BaseModel):
    """A shape that others defined: what it does not name is ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class RerankDocument(Foreign):
    text: str = Field(max_length=MAX_TEXT_CHARACTERS)


DocumentText = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)]


class RerankBody(Foreign):
    """The reranking request of Cohere (v1 and v2) and Jina."""

    query: QueryText
    documents: Annotated[list[DocumentText | RerankDocument], Field(min_length=1)]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = False

    def texts(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents]


class TeiBody(Foreign):
    """The reranking request of text-embeddings-inference."""

    query: QueryText
    texts: Annotated[list[DocumentText], Field(min_length=1)]
    raw_scores: bool = Field(False, description="log-odds instead of probabilities")
    return_text: bool = False
    truncate: bool | None = Field(False, description="accepted; long texts are always cut at the encoder's length")


class Records(RootModel[Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_RECORDS)]]):
    """Whole products, each with an `id`; the catalogue's schema says what else they hold."""


class Fields(RootModel[Annotated[dict[str, Any], Field(min_length=1)]]):
    """Fields of a product by name; null takes a field away."""


def read_records(body: bytes, content_type: bytes | None) -> list[dict[str, Any]]:
    """Products as a JSON list, or as NDJSON, one a line. Raises MalformedInput, BadInput."""
    if content_type is None or not content_type.startswith(NDJSON):
        return read_json(Records, body, content_type).root
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not 1 <= len(lines) <= MAX_RECORDS:
        raise BadInput(f"send 1 to {MAX_RECORDS} products at once, not {len(lines)}")
    return [read_json(Fields, line, None).root for line in lines]


def read_json(model: type[M], body: bytes, content_type: bytes | None) -> M:
    """The body as `model`. Raises MalformedInput for what is no JSON or does not say it is, BadInput for wrong shapes.

    Of duplicate keys the last counts. A missing Content-Type is taken for JSON."""
    if content_type is not None and not _is_json(content_type):
        raise MalformedInput("send Content-Type: application/json with a body in UTF-8")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def _is_json(content_type: bytes) -> bool:
    if content_type == b"application/json":
        return True
    media_type, _, params = content_type.lower().partition(b";")
    media_type = media_type.strip()
    known = media_type.startswith(b"application/") and media_type.endswith((b"/json", b"+json"))
    return known and (b"charset" not in params or b"utf-8" in params)


def invalid(error: ValidationError) -> BadInput:
    """pydantic's findings in our words: 400 for text that is no JSON, 422 for the rest, each fault with its path."""
    count = error.error_count()
    if count > _MAX_LISTED_ERRORS:  # a megabyte of unknown fields: listing them would take longer than reading them
        return BadInput(f"the request has {count} faults")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return MalformedInput("the body is no JSON: " + found[0]["msg"].removeprefix("Invalid JSON: "))
    faults = [{"field": _path(fault["loc"]), "message": _said(fault["msg"])} for fault in found]
    return BadInput("the request does not have the shape this route takes", errors=faults)


def _said(message: str) -> str:
    return "must not be blank" if message.endswith(f"'{NOT_BLANK}'") else message


# pydantic puts the branches of a union between the parts of a path.
_BRANCHES = frozenset(("constrained-str", "str", "SortKey", "RerankDocument"))


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in _BRANCHES and not part.startswith(("list[", "constrained-str")):
            path += f".{part}" if path else part
    return path[:_MAX_PATH_CHARACTERS]
