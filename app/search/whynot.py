"""Why a product is not among a query's hits: the first stage that dropped it, and what would have kept it there.

The stages in running order are filter, retrieval (either leg suffices), rank (beyond the k hits asked for) and shown.
Each is asked what a search asks it; for the ranks of a product that is not in a list, every product is scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import AisleError, EncoderUnavailable
from app.index.catalog import Catalog
from app.index.columns import NumberColumn
from app.index.dense import EXACT_KINDS
from app.index.filters import fields_of, mask, parse
from app.index.lexical import LexicalHits
from app.search import retrieve
from app.search.explain import Told, evidence
from app.search.features import NAMES
from app.search.fuse import choose
from app.search.normalize import Query
from app.search.rerank import Profile, Ranked
from app.types import TIER_LEXICAL, Floats, Mask, Rows

if TYPE_CHECKING:
    from app.search.searcher import Searcher

FILTER, RETRIEVAL, RANK, SHOWN = STAGES = ("filter", "retrieval", "rank", "shown")
_MOST_VALUES = 50  # of one field, shown


@dataclass(eq=False, slots=True)
class WhyNotJob:
    """One question on its way through the queue: a query, and the row that is asked about."""

    searcher: Searcher
    query: Query
    row: int
    vector: Floats | None = None
    answer: Told = field(default_factory=dict)
    error: AisleError | None = None

    def run(self) -> None:
        """Find the answer, or say why there is none."""
        try:
            self.answer = why_not(self.searcher, self.query, self.row, self.vector)
        except AisleError as error:
            self.error = error


def why_not(searcher: Searcher, query: Query, row: int, vector: Floats | None = None) -> Told:
    """The answer's members. Depends on the version, the query and the product alone. Raises EncoderUnavailable where
    the profile has no words to fall back to."""
    text, profile, degraded = query.text or "", query.profile, []
    if profile.uses_dense and vector is None:
        try:
            vector = searcher.query_vectors([text], profile)[0]
        except EncoderUnavailable:  # as in a search
            if not profile.uses_words:
                raise
            profile, degraded = searcher.ranking.profiles[TIER_LEXICAL], ["encoder_error"]
    pair = _Pair(searcher, text, profile, vector if profile.uses_dense else None, row, query.request.k)
    return {
        "version": searcher.version,
        "tier": profile.tier,
        "degraded": {"is": bool(degraded), "reasons": degraded},
        "corrected": text if query.corrected else None,
        "id": searcher.catalog.id(row),
        **_through_stages(pair, query.request.filter),
    }


def _through_stages(pair: _Pair, condition: Any) -> Told:
    told: Told = {"stage": FILTER, "keep": [], "filter": None, "lexical": None, "dense": None, "rank": None}
    catalog, row = pair.searcher.catalog, pair.row
    wanted = parse(condition, catalog.schema)
    allowed = retrieve.allowed_by(wanted, catalog)
    if allowed is not None and not allowed[row]:
        rest = _less(condition, catalog, row)
        told["filter"] = {
            "failed": list(_failures(condition, "filter", catalog, row)),
            "then": _through_stages(pair, rest)["stage"],
        }
        return told | {"keep": [{"filter": rest}]}
    if allowed is None:
        allowed = catalog.live
    told["lexical"], found = _lexical(pair, allowed)
    told["dense"], near = _dense(pair, allowed)
    rows = choose(found, near).rows
    if row not in rows:
        return told | {"stage": RETRIEVAL, "keep": list(_deeper(told["lexical"], told["dense"]))}
    told["rank"] = _rank(pair, rows)
    place = told["rank"]["rank"]
    return told | ({"stage": SHOWN} if place <= pair.k else {"stage": RANK, "keep": [{"k": place}]})


class _Pair:
    """A query, read, and the product that is asked about."""

    def __init__(self, searcher: Searcher, text: str, profile: Profile, vector: Floats | None, row: int, k: int):
        self.searcher, self.text, self.profile, self.vector, self.row, self.k = searcher, text, profile, vector, row, k
        self.words = searcher.words.parse(text)
        self.rows: Rows = np.arange(len(searcher.catalog), dtype=np.int32)


def _failures(raw: Any, path: str, catalog: Catalog, row: int) -> Iterator[Told]:
    """The conditions of a filter's outer `all`s that the product does not fulfil, with what it has in their fields."""
    condition = parse(raw, catalog.schema)
    if condition is None or mask(condition, catalog)[row]:
        return
    if "all" in raw:
        for at, member in enumerate(raw["all"]):
            yield from _failures(member, f"{path}.all[{at}]", catalog, row)
    else:
        values = {name: _value(catalog, row, name) for name in sorted(fields_of(condition))}
        yield {"path": path, "condition": raw, "values": values}


def _less(raw: Any, catalog: Catalog, row: int) -> Any:
    """The filter less the conditions that fail; None where nothing is left."""
    condition = parse(raw, catalog.schema)
    if condition is None or mask(condition, catalog)[row]:
        return raw
    kept = [one for member in raw.get("all", ()) if (one := _less(member, catalog, row)) is not None]
    return {"all": kept} if kept else None


def _value(catalog: Catalog, row: int, name: str) -> Any:
    """What a filter sees of the product: a value, a list of several, None for none."""
    catalog, row = catalog.at(row)
    column = catalog.column(name)
    if isinstance(column, NumberColumn):
        number = float(column.values[row])
        return None if np.isnan(number) else number
    values = [value for value, _ in column.counts(np.array([row], dtype=np.int32), _MOST_VALUES)]
    return values if len(values) > 1 else next(iter(values), None)


def _lexical(pair: _Pair, allowed: Mask | None) -> tuple[Told | None, LexicalHits]:
    if not pair.profile.uses_words:
        return None, retrieve.NO_LEXICAL_HITS
    index, depth = pair.searcher.words, pair.profile.depth
    found = retrieve.lexical(index, pair.words, depth, allowed)
    fields = index.scores(pair.words, pair.rows)
    scores = (fields[:, 0] + fields[:, 1]) * np.float32(0.5)  # as the list is ordered
    told = _leg(pair, scores, allowed, found.rows, found.scores, depth)
    if scores[pair.row] == 0.0:
        told["rank"] = None  # it is in nobody's list, however deep
    one = np.array([pair.row], dtype=np.int32)
    return told | evidence(one, pair.text, index, pair.words)[0], found


def _dense(pair: _Pair, allowed: Mask | None) -> tuple[Told | None, retrieve.DenseHits]:
    if pair.vector is None:
        return None, retrieve.NO_DENSE_HITS
    vectors, depth, floor = pair.searcher.vectors, pair.profile.depth, pair.profile.floor
    near = retrieve.dense(vectors, pair.vector, depth, floor, allowed)
    told = _leg(pair, vectors.scores(pair.vector, pair.rows), allowed, near.rows, near.scores, depth)
    return told | {"floor": floor, "approximate": vectors.kind not in EXACT_KINDS}, near


def _leg(pair: _Pair, scores: Floats, allowed: Mask | None, listed: Rows, kept: Floats, depth: int) -> Told:
    """A product's place among all that the filter lets through; `last` is the score that a full list ends with."""
    row = pair.row
    earlier = pair.searcher.catalog.earlier(row)
    ahead = scores > scores[row]
    ahead[earlier] |= scores[earlier] == scores[row]
    if allowed is not None:
        ahead &= allowed  # of a changed catalogue, rows that hold no product any more are none
    return {
        "kept": bool(row in listed),
        "rank": 1 + int(np.count_nonzero(ahead)),
        "score": float(scores[row]),
        "depth": depth,
        "last": float(kept[-1]) if len(listed) == depth else None,
    }


def _deeper(lexical: Told | None, dense: Told | None) -> Iterator[Told]:
    """Changes to the profile, each of which alone is enough."""
    if lexical is not None and lexical["rank"] is not None:
        yield {"depth": lexical["rank"]}
    if dense is not None:
        changes: Told = {} if dense["score"] >= dense["floor"] else {"floor": dense["score"]}
        if dense["rank"] > dense["depth"]:
            changes["depth"] = dense["rank"]
        if changes:  # else the approximate search has missed it
            yield changes


def _rank(pair: _Pair, rows: Rows) -> Told:
    """Where the product stands in the result set, and what the last hit shown has that it lacks."""
    searcher, profile = pair.searcher, pair.profile
    ranked = searcher.rank(rows, pair.words, pair.vector, profile)
    at = int(np.flatnonzero(ranked.rows == pair.row)[0])
    last = min(pair.k, len(rows)) - 1
    scores = profile.link.probability(ranked.raw, searcher.clarity(pair.words, pair.vector, profile))
    told: Told = {"rank": at + 1, "k": pair.k, "total": len(rows), "last": None, "gap": None, "difference": []}
    told |= {"raw": float(ranked.raw[at]), "score": float(scores[at])}
    if at > last:
        other = {"id": searcher.catalog.id(int(ranked.rows[last])), "raw": float(ranked.raw[last])}
        told["last"] = other | {"score": float(scores[last])}
        told |= {"gap": float(ranked.raw[last] - ranked.raw[at]), "difference": _difference(ranked, at, last)}
    return told


def _difference(ranked: Ranked, at: int, last: int) -> list[Told]:
    """What each feature adds to the gap, the most first; what speaks for the product is negative."""
    theirs, own = ranked.contributions[last].tolist(), ranked.contributions[at].tolist()
    parts = [
        {"name": name, "last": one, "product": other, "difference": one - other}
        for name, one, other in zip(NAMES, theirs, own, strict=True)
        if one != other
    ]
    return sorted(parts, key=lambda part: -part["difference"])
