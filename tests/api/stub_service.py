"""A stand-in for the search service: canned answers and chosen failures, so that the edge is tested alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from app.errors import BadInput, NotFound
from app.types import (
    ClassifyAnswer,
    ClassifyRequest,
    RescoreAnswer,
    RescoreItem,
    RescoreResult,
    SearchAnswer,
    SearchRequest,
    Timing,
    WhyNotRequest,
)

VERSION = "20261123-ab12cd34"
TAIL = (
    b'"version":"20261123-ab12cd34","tier":"ltr","degraded":{"is":false,"reasons":[]},"corrected":null,"relaxed":null,'
    b'"truncated":false,"word_matches":1,'
    b'"total":{"value":1,"relation":"eq"},'
    b'"hits":[{"id":"B07CXG6C9W","score":0.93,"product":{"title":"Headphones"},"explanation":null}],'
    b'"facets":{"brand":[{"value":"Sony","count":1}]}}'
)
KNOWN = "B07CXG6C9W"
FIELDS = ("title", "brand", "price", "category")


class StubService:
    """`on_search` and `on_rescore` replace what is awaited; the requests seen are kept."""

    def __init__(self) -> None:
        self.ready = self.started = True
        self.draining = False
        self.searched: list[SearchRequest] = []
        self.rescored: list[tuple[RescoreItem, str, str]] = []
        self.asked: list[WhyNotRequest] = []
        self.cancelled = 0
        self.running = self.most_running = 0
        self.fail: Exception | None = None
        self.hold: asyncio.Event | None = None
        self._entered = asyncio.Event()
        self.version_of: Callable[[RescoreItem], str] = lambda item: VERSION

    @property
    def unready(self) -> str | None:
        return None if self.ready else "draining" if self.draining else "starting"

    async def search(
        self, request: SearchRequest, *, alone: bool = False, late_ms: float | None = None
    ) -> SearchAnswer:
        self.searched.append(request)
        await self._work()
        self._known(request.collection)
        check_filter(request.filter)
        return SearchAnswer(TAIL, VERSION, "ltr", False, (), (Timing("lexical", 0.21), Timing("total", 0.5)))

    async def in_turn(self, work: Callable[[], Any]) -> Any:
        return work()

    async def rescore(
        self,
        item: RescoreItem,
        *,
        collection: str = "default",
        profile: str = "default",
        deadline_s: float | None = None,
    ) -> RescoreAnswer:
        self.rescored.append((item, collection, profile))
        await self._work()
        self._known(collection)
        if item.query == "refused":
            raise BadInput("this query is refused")
        if item.query == "broken":
            raise RuntimeError("secret-of-the-house")
        results = tuple(
            RescoreResult(index, error="unknown product")
            if candidate.id not in (None, KNOWN)
            else RescoreResult(index, score_of(candidate.text), missing_fields=("brand",) if candidate.text else ())
            for index, candidate in enumerate(item.candidates)
        )
        return RescoreAnswer(self.version_of(item), "ltr", results)

    async def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        await self._work()
        self._known(request.collection)
        return ClassifyAnswer(VERSION, "category", None, (("Audio", 0.75), ("Cables", 0.25))[: request.k])

    async def why_not(self, request: WhyNotRequest) -> dict[str, Any]:
        await self._work()
        self._known(request.collection)
        check_filter(request.filter)
        self.asked.append(request)
        if request.id != KNOWN:
            raise NotFound("no product has such an id")
        rank = {"rank": 12, "k": request.k, "total": 60, "raw": 1.5, "score": 0.4, "gap": 0.25, "difference": []}
        return {
            "version": VERSION, "tier": "hybrid", "degraded": {"is": False, "reasons": []}, "corrected": None,
            "id": request.id, "stage": "rank", "keep": [{"k": 12}], "filter": None, "lexical": None, "dense": None,
            "rank": rank | {"last": {"id": "a/b", "raw": 1.75, "score": 0.5}},
        }  # fmt: skip

    async def similar(self, product_id: str, k: int, *, collection: str = "default") -> SearchAnswer:
        self.product(product_id, collection=collection)
        return SearchAnswer(TAIL, VERSION, "ltr", False, (), (Timing("total", 0.5),))

    def product(self, product_id: str, *, collection: str = "default") -> bytes:
        self._known(collection)
        if product_id not in (KNOWN, "a/b"):
            raise NotFound("no product has such an id")
        return b'{"id":"B07CXG6C9W","version":"20261123-ab12cd34","product":{"title":"Headphones"}}'

    async def put(self, records: Sequence[Any], *, collection: str = "default") -> dict[str, Any]:
        self._known(collection)
        return {"accepted": len(records), "sequence": 7, "version": VERSION}

    async def patch(self, product_id: str, fields: Any, *, collection: str = "default") -> dict[str, Any]:
        self.product(product_id, collection=collection)
        return {"accepted": 1, "sequence": 8, "version": VERSION}

    async def delete(self, product_id: str, *, collection: str = "default") -> dict[str, Any]:
        self.product(product_id, collection=collection)
        return {"accepted": 1, "sequence": 9, "version": VERSION}

    def versions(self) -> dict[str, Any]:
        return {"collections": [{"collection": "default", "version": VERSION, "products": 1, "previous": []}]}

    async def reload(self, collection: str) -> dict[str, Any]:
        await self._work()
        self._known(collection)
        return {"collection": collection, "version": VERSION, "before": VERSION, "changed": False}

    roll_back = reload

    def collections(self) -> dict[str, Any]:
        one = {"name": "default", "version": VERSION, "products": 1, "title": "Demo", "attribution": "", "examples": []}
        return {"collections": [one | {"show_images": False, "fields": []}]}

    def _known(self, collection: str) -> None:
        if collection != "default":
            raise NotFound("unknown collection")

    async def until_running(self, count: int) -> None:
        """Return once so many calls are under way; fails after five seconds."""
        async with asyncio.timeout(5):
            while self.running < count:
                self._entered.clear()
                await self._entered.wait()

    async def _work(self) -> None:
        self.running += 1
        self._entered.set()
        self.most_running = max(self.most_running, self.running)
        try:
            if self.fail is not None:
                raise self.fail
            await (asyncio.sleep(0) if self.hold is None else self.hold.wait())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def score_of(text: str | None) -> float:
    """The share of the letter e: any pure function of the text will do."""
    return 0.93 if text is None else (text.count("e") + 1) / (len(text) + 2)


def check_filter(given: Any) -> None:
    """As strict about forms as the real one; which fields there are, it does not know."""
    if given is not None and not _is_filter(given):
        raise BadInput("filter: not a filter")


def _is_filter(given: Any) -> bool:
    if not isinstance(given, dict):
        return False
    keys = set(given)
    if len(keys) == 1 and keys <= {"all", "any"}:
        parts = next(iter(given.values()))
        return isinstance(parts, list) and bool(parts) and all(_is_filter(part) for part in parts)
    if keys == {"not"}:
        return _is_filter(given["not"])
    name = given.get("field")
    return isinstance(name, str) and bool(name) and _is_leaf({k: v for k, v in given.items() if k != "field"})


def _is_leaf(tests: dict[str, Any]) -> bool:
    if set(tests) == {"in"}:
        return isinstance(tests["in"], list) and bool(tests["in"]) and all(map(_is_scalar, tests["in"]))
    if set(tests) == {"eq"}:
        return _is_scalar(tests["eq"])
    if set(tests) == {"exists"}:
        return isinstance(tests["exists"], bool)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tests.values())
    return bool(tests) and set(tests) <= {"gte", "gt", "lte", "lt"} and numbers


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
