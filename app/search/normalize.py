"""Stage 1: a request becomes a Query: text normalised as product texts were and its spelling mended, filter and fields
checked against the catalogue's schema."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from app.errors import BadInput, NotFound
from app.index.analysis import normalize_text
from app.index.filters import Filter, canonical, parse
from app.index.schema import Schema, suggestion
from app.search.rerank import Profile, Ranking
from app.types import SearchRequest, record

MAX_BROWSE_DEPTH = 10_000


@record()
class Query:
    """A request that can be answered: `text` is None when browsing, and `corrected` where it is not what was typed.
    `parts` are the bytes that tell this query from every other on the same collection and version, for the cache's key.
    """

    request: SearchRequest
    text: str | None
    corrected: bool
    filter: Filter | None
    profile: Profile
    parts: bytes


def to_query(request: SearchRequest, schema: Schema, ranking: Ranking, correct: Callable[[str, bool], str]) -> Query:
    """`correct` mends the spelling of a normalised text, told whether its last word is still being typed.

    Raises BadInput for what this catalogue cannot answer, NotFound for an unknown profile."""
    profile = ranking.profiles.get(request.profile)
    if profile is None:
        raise NotFound(f"no profile {request.profile!r}; there are {', '.join(sorted(ranking.profiles))}")
    typed = _text(request)
    text = typed and correct(typed, request.prefix)
    condition = parse(request.filter, schema)
    if text is None and condition is None:
        raise BadInput("give a query, or a filter to browse by")
    if request.facets or request.sort or request.fields:
        _check_fields(request, schema)
    depth = MAX_BROWSE_DEPTH if text is None else profile.reach
    if request.offset + request.k > depth:
        raise BadInput(f"offset + k is {request.offset + request.k}; this profile's result set is {depth} deep")
    corrected = text != typed
    return Query(request, text, corrected, condition, profile, _parts(request, text, corrected, condition))


def _text(request: SearchRequest) -> str | None:
    if request.query is None:
        return None
    text = normalize_text(request.query)
    if not text:
        raise BadInput("the query is empty")
    return text


def _check_fields(request: SearchRequest, schema: Schema) -> None:
    names = {spec.name: spec for spec in schema.fields}
    for name in request.facets:
        if name not in names or names[name].type not in ("keyword", "boolean"):
            facetable = [spec.name for spec in schema.fields if spec.type in ("keyword", "boolean")]
            raise BadInput(f"facets: {_unknown(name, facetable)}")
    for sort in request.sort:
        if sort.field not in names or names[sort.field].type == "text":
            raise BadInput(f"sort: {_unknown(sort.field, [s.name for s in schema.fields if s.type != 'text'])}")
    for name in request.fields or ():
        if name not in names:
            raise BadInput(f"fields: {_unknown(name, list(names))}")


def _unknown(name: str, known: list[str]) -> str:
    return f"{name[:64]!r} cannot be used here{suggestion(name[:64], known)}"


def _parts(request: SearchRequest, text: str | None, corrected: bool, condition: Filter | None) -> bytes:
    return orjson.dumps(
        [
            text,
            corrected,
            request.k,
            request.offset,
            None if condition is None else canonical(condition).decode(),
            request.facets,
            [(sort.field, sort.descending) for sort in request.sort],
            request.profile,
            request.explain,
            request.fields,
            request.prefix,
            request.relax,
        ]
    )
