"""What the edge talks to: caches, the queue, deadlines and the served versions, in front of the Searcher.

A search: normalise → first cache level → an identical search in flight? → second cache level → queue → answer.
Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any, TypeVar, cast

from app import metrics
from app.errors import AisleError, BadInput, DeadlineExceeded, NotFound, Overloaded, StoodStill, Unavailable
from app.index.changes import Edit
from app.index.edits import patch, puts
from app.index.schema import Schema
from app.runtime.batcher import Batcher, Priority, Ticket
from app.runtime.cores import usable_cores
from app.runtime.deadline import after_ms, left_s, now
from app.runtime.helper import Helper
from app.runtime.watch import patience_s
from app.search.cache import Cache, answer_key, vector_key
from app.search.classify import ClassifyJob, product_text
from app.search.collections import Collections
from app.search.golden import GoldenJob, GoldenWatch
from app.search.job import Errand, SearchJob
from app.search.normalize import Query
from app.search.plan import WORDS, ladder
from app.search.rerank import Profile
from app.search.rescore import RescoreJob
from app.search.searcher import Job, Searcher
from app.search.whynot import WhyNotJob
from app.types import (
    ClassifyAnswer,
    ClassifyRequest,
    Product,
    RescoreAnswer,
    RescoreCandidate,
    RescoreItem,
    RescoreResult,
    SearchAnswer,
    SearchRequest,
    Timing,
    WhyNotRequest,
)

T = TypeVar("T")

# What a worker takes at once. Where texts are encoded one by one, the other stages gain by finding code and data warm:
# at 950 searches a second takes of 8 kept up where those of 2 to 4 fell behind. The first of it waits for the last.
_MOST_ALONE = 8
_MOST_TOGETHER = 64
_TAKE_MS = 16.0
_CORES = usable_cores()
_AT_ONCE_MS = 2.0
_IN_HAND = 1  # searches that a worker has begun when another joins the queue, counting a take of several as one
# What the loop stands still for takes less than the first; or than the second, where at the start it was less than the
# first: on a busy machine, beside a loop that goes on, a search takes twice as long, and would never go in step again.
_QUICK_MS, _SLOWED_MS = 5.0, 10.0
_QUICK_CHARACTERS = 128  # at 64 tokens a search takes three times as long as at ten
_SURE = 0.9  # of its time may be gone when a search's turn is expected to be over: expectations err
_LOOP_LATE_S = 0.1  # later than that the loop has too much to do already

# A slice of bulk work should take a few milliseconds, so that a search never waits long behind it: a text costs an
# encoder run (4 ms at 64 tokens), an id a look-up. On a device a run takes many texts in the time of one.
_TEXTS_A_SLICE = 2
_TEXTS_TOGETHER = 64
_IDS_A_SLICE = 256
_RESCORE_DEADLINE_S = 60.0
_GOLDEN_DEADLINE_S = 10.0
_SHOWN_EVERY_S = 1.0
_SLICES_AT_ONCE = 4
_FEW_RECORDS = 32
_SLICES_WAITING = 64  # of all items together; the others wait their turn here, in order, and are not refused


@dataclass(slots=True)
class _Flight:
    """A search under way, and the key under which its vector will be kept (None: no vector, or known already)."""

    ticket: Ticket[Job]
    vector: bytes | None
    landed: bool = False


def start_workers(batcher: Batcher[Job], searchers: Callable[[], Sequence[Searcher]]) -> None:
    """Start the queue's workers for what is served, with as large batches as those encoders gain by."""
    patience = patience_s(max(one.costs.ms("default") for one in searchers()))

    if any(one.encoder.batches for one in searchers()):
        batcher.start(max_batch=_MOST_TOGETHER, patience_s=patience)
    else:
        batcher.start(max_batch=_MOST_ALONE, most=lambda: most_in_time(searchers()), patience_s=patience)


def most_in_time(searchers: Sequence[Searcher]) -> int:
    """Searches that a worker takes at once: the first of them waits for the last."""
    dearest = max(one.costs.ms(WORDS) + one.costs.ms("default") for one in searchers)
    return int(_TAKE_MS / dearest) if dearest else _MOST_ALONE


class SearchService:
    """One per process. `open` before use, `close` after."""

    def __init__(
        self, collections: Collections, cache: Cache, batcher: Batcher[Job], *, show_images: bool = False
    ) -> None:
        self._collections = collections
        self._cache = cache
        self._batcher = batcher
        self._helper = Helper()
        self._show_images = show_images
        self._flights: dict[bytes, _Flight] = {}
        self._bulk = asyncio.Semaphore(_SLICES_WAITING)
        self._golden = GoldenWatch(collections.golden, self._ask_golden)
        self._tasks: list[asyncio.Task[None]] = []
        self.started = False
        self.draining = False

    @property
    def ready(self) -> bool:
        """A verified, warm version of every collection is served rightly, and the process is not on its way out."""
        return self.unready is None

    @property
    def unready(self) -> str | None:
        """Why the process is not ready; None where it is."""
        if not self.started:
            return "starting"
        if self.draining:
            return "draining"
        if self._batcher.exhausted:
            return "workers_stuck"
        return "golden_failed" if self._golden.failing else None

    async def open(self) -> None:
        """Load and warm every collection, then open the caches and the queue. Raises BundleError."""
        await asyncio.to_thread(self._collections.open)
        await self._cache.open()
        start_workers(self._batcher, lambda: [served.searcher for served in self._collections.all().values()])
        self._helper.start()
        self._collections.follow()
        self.started = True
        metrics.READY.set(1)
        self._tasks = [asyncio.create_task(self._golden.watch()), asyncio.create_task(self._show_readiness())]

    def golden(self) -> dict[str, list[str]]:
        """Queries that are known to work, by collection."""
        return {name: list(golden) for name, (_, golden) in self._collections.golden().items()}

    async def _ask_golden(self, job: GoldenJob) -> None:
        deadline = after_ms(_GOLDEN_DEADLINE_S * 1e3)
        await self._batcher.run(job, deadline=deadline, priority=Priority.BULK)

    async def _show_readiness(self) -> None:
        while True:
            metrics.READY.set(self.ready)
            await asyncio.sleep(_SHOWN_EVERY_S)

    def drain(self) -> None:
        """Not ready from now on, but still answering."""
        self.draining = True
        metrics.READY.set(0)

    async def close(self) -> None:
        """Reverse of open."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._collections.close()
        await self._batcher.stop()
        self._helper.stop()
        await self._cache.close()

    async def search(self, request: SearchRequest, *, alone: bool = False, late_ms: float = 0.0) -> SearchAnswer:
        """Answer within `request.timeout_ms`: from a cache, in full, or with the best found so far, saying so. `alone`:
        nobody else has asked just now. `late_ms`: how long it has waited for the loop, which counts.

        Raises BadInput, NotFound, Overloaded, Unavailable, or DeadlineExceeded when there is nothing to give yet."""
        started = perf_counter()
        deadline = after_ms(request.timeout_ms - late_ms)
        searcher = self._searcher(request.collection)
        profile = searcher.ranking.profiles.get(request.profile)
        crowded = profile is not None and self._cannot_be_kept(searcher, profile, deadline)
        query = searcher.query(request, as_typed=crowded)  # a search that will be refused is not worth its spelling
        key = answer_key(request.collection, searcher.state, query.parts)
        normalized = perf_counter()
        if (flight := self._flights.get(key)) is not None and flight.landed:
            self._remember(key, flight)
        answer = self._cached(self._cache.local_answer(key), searcher)
        if answer is None:
            if crowded and key not in self._flights:
                raise _refused()
            answer = await self._look_further(searcher, query, key, deadline, alone=alone)
        timings = (
            Timing("normalize", (normalized - started) * 1e3),
            *answer.timings,
            Timing("total", (perf_counter() - started) * 1e3),
        )
        answer = SearchAnswer(answer.tail, answer.version, answer.tier, answer.cached, answer.degraded, timings)
        asyncio.get_running_loop().call_soon(_count, request, answer)  # the caller first
        return answer

    async def rescore(
        self,
        item: RescoreItem,
        *,
        collection: str = "default",
        profile: str = "default",
        deadline_s: float | None = None,
    ) -> RescoreAnswer:
        """Score the item's candidates, behind waiting searches, in slices of a few milliseconds."""
        searcher = self._searcher(collection)
        query = searcher.query(SearchRequest(item.query, k=1, profile=profile, collection=collection))
        deadline = now() + (deadline_s or _RESCORE_DEADLINE_S)
        jobs = _slices(searcher, query, item.candidates)
        vector = _vector_key(searcher, query)
        if jobs:
            jobs[0].vector = None if vector is None else self._cache.local_vector(vector)
            await self._run_slice(jobs[0], deadline)
            for job in jobs[1:]:
                job.reading = jobs[0].reading  # one item, one tier
            await self._run_some(jobs[1:], deadline)
        results: list[RescoreResult] = [result for job in jobs for result in job.results]
        for form, count in (
            ("id", sum(c.id is not None for c in item.candidates)),
            ("text", sum(c.text is not None for c in item.candidates)),
        ):
            metrics.RESCORED.labels(form).inc(count)
        degraded = jobs[0].reading.degraded if jobs and jobs[0].reading is not None else ()
        tier = "lexical" if degraded else query.profile.tier
        return RescoreAnswer(searcher.version, tier, tuple(results), degraded)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """The result of `work`, done behind waiting searches, as a slice of rescoring is. Raises what it raises."""
        if not self.started:
            raise Unavailable("the service is starting")
        errand = Errand(work)
        async with self._bulk:
            await self._batcher.run(errand, deadline=after_ms(_RESCORE_DEADLINE_S * 1e3), priority=Priority.BULK)
        if errand.error is not None:
            raise errand.error
        return cast(T, errand.result)

    async def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        """The likeliest categories of a query, spelt as a search would read it, or of a product's text.

        Raises BadInput where the catalogue has no categories, EncoderUnavailable, DeadlineExceeded."""
        deadline = after_ms(request.timeout_ms)
        searcher = self._searcher(request.collection)
        if searcher.classifier is None:
            raise BadInput(f"collection {request.collection!r} has no categories: no field plays the role category")
        corrected = vector = None
        if request.query is not None:
            query = searcher.query(SearchRequest(request.query, k=1, collection=request.collection))
            text = query.text or ""
            corrected = text if query.corrected else None
            vector = self._cache.local_vector(vector_key(searcher.encoder.digest, text))
        else:
            text = product_text(request.text or "")
        job = ClassifyJob(searcher.classifier, text, request.query is None, vector)
        await self._batcher.run(job, deadline=deadline)
        if job.error is not None:
            raise job.error
        return ClassifyAnswer(
            searcher.version, searcher.classifier.model.field, corrected, tuple(job.ranked[: request.k])
        )

    async def why_not(self, request: WhyNotRequest) -> dict[str, Any]:
        """The stage that dropped a product from a search, behind waiting searches: it scores the whole catalogue.

        Raises BadInput, NotFound, EncoderUnavailable, DeadlineExceeded, Overloaded."""
        deadline = after_ms(request.timeout_ms)
        searcher = self._searcher(request.collection)
        search = SearchRequest(request.query, k=request.k, filter=request.filter, profile=request.profile)
        query = searcher.query(search)
        row = searcher.catalog.row(request.id)
        if row is None:
            raise NotFound(f"no product {request.id[:128]!r}")
        vector = _vector_key(searcher, query)
        known = None if vector is None else self._cache.local_vector(vector)
        job = WhyNotJob(searcher, query, row, known)
        await self._batcher.run(job, deadline=deadline, priority=Priority.BULK)
        if job.error is not None:
            raise job.error
        return job.answer

    async def put(self, records: Sequence[Any], *, collection: str = "default") -> dict[str, Any]:
        """Keep whole products, each new or in place of the one of its id; all or none. Durable when it returns, seen by
        searches within a second. Raises BadInput naming what is wrong with which, Unavailable, Overloaded."""
        schema = self._searcher(collection).catalog.schema
        if len(records) <= _FEW_RECORDS:
            return await self._keep(collection, puts(records, schema))
        return await self._keep(collection, await asyncio.to_thread(puts, records, schema))

    async def patch(self, product_id: str, fields: Any, *, collection: str = "default") -> dict[str, Any]:
        """Keep new values of some of a product's fields; null takes one away. Raises NotFound as well."""
        return await self._keep(collection, [patch(await self._known(collection, product_id), fields)])

    async def delete(self, product_id: str, *, collection: str = "default") -> dict[str, Any]:
        """Keep that a product is gone. Raises NotFound where it is not there."""
        await self._known(collection, product_id)
        return await self._keep(collection, [Edit("delete", product_id, {})])

    async def _keep(self, collection: str, edits: Sequence[Edit]) -> dict[str, Any]:
        sequence = await self._collections.keep(collection, edits)
        return {"accepted": len(edits), "sequence": sequence, "version": self._searcher(collection).version}

    async def _known(self, collection: str, product_id: str) -> tuple[Product, Schema]:
        """A product as the log has it by now."""
        self._searcher(collection)
        catalog = (await self._collections.catch_up(collection)).searcher.catalog
        row = catalog.row(product_id)
        if row is None:
            raise NotFound(f"no product {product_id[:128]!r}")
        return Product(product_id, catalog.fields(row)), catalog.schema

    async def similar(self, product_id: str, k: int, *, collection: str = "default") -> SearchAnswer:
        """Neighbours of a product. Raises NotFound."""
        return self._searcher(collection).similar(product_id, k)

    def product(self, product_id: str, *, collection: str = "default") -> bytes:
        """JSON object of one product. Raises NotFound."""
        return self._searcher(collection).product(product_id)

    def versions(self) -> dict[str, Any]:
        """What is served, and which versions it could be rolled back to."""
        listed = []
        for name, served in self._collections.all().items():
            searcher = served.searcher
            history = self._collections.store(name).history()
            listed.append(
                {
                    "collection": name,
                    "version": searcher.version,
                    "loaded_at": served.loaded_at,
                    "products": searcher.catalog.products,
                    "encoder": searcher.encoder.description.get("name"),
                    "provider": searcher.encoder.provider,
                    "index": searcher.vectors.kind,
                    "changes": dict(zip(("sequence", "products"), self._collections.changes(name), strict=True)),
                    "judged": bool(served.content.get("judgements")),
                    "previous": [version for version in history if version != searcher.version],
                }
            )
        return {"collections": listed}

    async def reload(self, collection: str) -> dict[str, Any]:
        """Serve what is published now. Raises NotFound, Conflict, or VersionRefused: then the old one goes on."""
        return self._changed(collection, await self._collections.reload(collection))

    async def roll_back(self, collection: str) -> dict[str, Any]:
        """Publish and serve the version before the current one. Raises as `reload` does."""
        return self._changed(collection, await self._collections.roll_back(collection))

    def _changed(self, collection: str, before: str | None) -> dict[str, Any]:
        version = self._collections.get(collection).searcher.version
        return {"collection": collection, "version": version, "before": before, "changed": version != before}

    def collections(self) -> dict[str, Any]:
        """What the search page needs to know of each collection."""
        listed = []
        for name, served in self._collections.all().items():
            schema = served.searcher.catalog.schema
            listed.append(
                {
                    "name": name,
                    "version": served.searcher.version,
                    "products": served.searcher.catalog.products,
                    "title": served.info.title or name,
                    "attribution": served.info.attribution,
                    "examples": list(served.info.examples),
                    "show_images": self._show_images,
                    "fields": [{"name": f.name, "type": f.type, "facet": f.facet} for f in schema.fields],
                }
            )
        return {"collections": listed}

    def _searcher(self, collection: str) -> Searcher:
        if not self.started:
            raise Unavailable("the service is starting")
        return self._collections.get(collection).searcher

    async def _look_further(
        self, searcher: Searcher, query: Query, key: bytes, deadline: float, *, alone: bool
    ) -> SearchAnswer:
        flight = self._flights.get(key)
        if flight is None:
            vector = _vector_key(searcher, query)
            known = None if vector is None else self._cache.local_vector(vector)
            stored, fetched = await self._cache.fetch(key, vector if known is None else None)
            answer = self._cached(stored, searcher)
            if answer is not None:
                return answer
            flight = self._flights.get(key)  # somebody may have set out while Redis was asked
            if flight is not None and flight.landed:
                self._remember(key, flight)
                answer, flight = self._cached(self._cache.local_answer(key), searcher), None
                if answer is not None:
                    return answer
            if flight is None:
                known = fetched if known is None else known
                if self._cache.shared and self._cannot_be_kept(searcher, query.profile, deadline):
                    raise _refused()
                job = SearchJob(searcher, query, perf_counter(), vector=known, deadline=deadline)
                job.told_later = True
                if _is_quick(job):
                    here = _is_short(job)
                    if alone and not here and _has_two_legs(job):
                        job.helper = self._helper
                    ticket = self._batcher.run_in_step(job, deadline, alone=alone, here=here)
                else:
                    ticket = self._batcher.submit(job)
                flight = _Flight(ticket, vector if known is None else None)
                self._flights[key] = flight
                return await self._land(key, flight, deadline)
        metrics.SINGLE_FLIGHT_SHARED.inc()
        return await self._land(key, flight, deadline)

    def _cannot_be_kept(self, searcher: Searcher, profile: Profile, deadline: float) -> bool:
        """At the door rather than after the deadline: whether even the cheapest tier of all that waits, of what a
        worker has in hand, and of this search itself takes longer than it has."""
        load = self._batcher.load()
        if load.waiting <= load.workers:
            return False
        least_ms = searcher.costs.least_ms(ladder(profile, searcher.ranking))
        return (load.waiting / load.workers + _IN_HAND + 1) * least_ms > _SURE * left_s(deadline) * 1e3

    async def _land(self, key: bytes, flight: _Flight, deadline: float) -> SearchAnswer:
        ticket = flight.ticket
        job = ticket.job
        assert isinstance(job, SearchJob)
        job.deadline = max(job.deadline, deadline)  # a search that several wait for is for the most patient of them
        why = None
        try:
            await self._batcher.wait(ticket, deadline)
            late = isinstance(job.error, DeadlineExceeded)
        except (DeadlineExceeded, StoodStill) as error:
            late = job.answer is None and (job.error is None or isinstance(job.error, DeadlineExceeded))
            why = error
        finally:
            # Whoever leaves last clears the flight: a caller who gives up must not end it for the others.
            if (ticket.done or ticket.abandoned) and self._flights.get(key) is flight and not flight.landed:
                if ticket.done:  # the caller first
                    flight.landed = True
                    asyncio.get_running_loop().call_soon(self._remember, key, flight)
                else:
                    job.told_later = False
                    del self._flights[key]
        if late:
            answer = job.searcher.answer_so_far(job) or self._words_at_once(job, deadline)
            if answer is None:
                raise self._nothing_yet(why or DeadlineExceeded("no answer within the deadline"))
            return answer
        if job.error is not None:
            raise job.error
        if job.answer is None:
            raise Unavailable("the search was given up")
        return job.answer

    def _remember(self, key: bytes, flight: _Flight) -> None:
        job = flight.ticket.job
        assert isinstance(job, SearchJob)
        if self._flights.get(key) is flight:
            del self._flights[key]
            self._store(key, job, flight.vector)

    def _store(self, key: bytes, job: SearchJob, vector: bytes | None) -> None:
        """Keep the answer, and what it cost."""
        if job.answer is None:
            return
        job.searcher.learn(job)
        if job.error is None and not job.answer.degraded:
            self._cache.put(key, job.answer.tier.encode() + b"\n" + job.answer.tail, vector, job.vector)

    def _words_at_once(self, job: SearchJob, deadline: float) -> SearchAnswer | None:
        """At the deadline of a search that no worker came to because all of them seem to stand still: what the words
        find, unless that takes the loop too long, or it is late already."""
        at_hand = self._batcher.hesitating and _is_cheap(job) and now() - deadline < _LOOP_LATE_S
        return job.searcher.words_alone(job) if at_hand else None

    def _nothing_yet(self, error: AisleError) -> AisleError:
        """What a caller is told who waited in vain: too little time, or no fault of its own."""
        still = isinstance(error, DeadlineExceeded) and self._batcher.hesitating
        return StoodStill("what works at searches stands still; try again shortly") if still else error

    async def _run_some(self, jobs: Sequence[RescoreJob], deadline: float) -> None:
        for start in range(0, len(jobs), _SLICES_AT_ONCE):
            some = jobs[start : start + _SLICES_AT_ONCE]
            await asyncio.gather(*(self._run_slice(job, deadline) for job in some))

    async def _run_slice(self, job: RescoreJob, deadline: float) -> None:
        async with self._bulk:
            await self._batcher.run(job, deadline=deadline, priority=Priority.BULK)
        if job.error is not None:
            raise job.error

    def _cached(self, value: bytes | None, searcher: Searcher) -> SearchAnswer | None:
        if value is None:
            return None
        tier, _, tail = value.partition(b"\n")
        return SearchAnswer(tail, searcher.version, tier.decode(), True, (), ())


def _refused() -> Overloaded:
    metrics.REFUSED.labels("deadline").inc()
    return Overloaded("more searches are waiting than can be answered in time; try again shortly")


# A label look-up takes as long as the observation.
_stage_seconds = cache(lambda stage: metrics.observer(metrics.STAGE_SECONDS.labels(stage)))
_searches = cache(lambda collection, tier: metrics.cell(metrics.SEARCHES.labels(collection, tier)))


def _count(request: SearchRequest, answer: SearchAnswer) -> None:
    _searches(request.collection, answer.tier).inc(1)
    for reason in answer.degraded:
        metrics.DEGRADED.labels(reason).inc()
    for timing in answer.timings:
        _stage_seconds(timing.stage)(timing.ms / 1e3)
    if request.query is not None and b'"total":{"value":0,' in answer.tail[:300]:
        metrics.NO_RESULTS.labels(request.collection).inc()


def _is_short(job: SearchJob) -> bool:
    """Whether a search needs no run of the network, and would hold the loop for a moment only."""
    query, costs = job.query, job.searcher.costs
    computed = query.profile.uses_dense and not query.profile.looked_up and (job.vector is None or query.request.relax)
    more = query.text is None or query.filter is not None or query.request.facets
    return not computed and not more and costs.ms(WORDS) + costs.ms(query.profile.name) < _AT_ONCE_MS


def _is_quick(job: SearchJob) -> bool:
    """Whether a search takes so short a time that the hop to a worker is a good part of it; the network is at a long
    text for several times as long, and the loop would stand still for all others."""
    costs, name = job.searcher.costs, job.query.profile.name
    if job.query.text is not None and len(job.query.text) > _QUICK_CHARACTERS:
        return False
    takes_ms = costs.ms(WORDS) + costs.ms(name)
    return takes_ms < _QUICK_MS or (takes_ms < _SLOWED_MS and costs.begun_ms(WORDS) + costs.begun_ms(name) < _QUICK_MS)


def _is_cheap(job: SearchJob) -> bool:
    """Whether the words of a search can be looked up on the loop."""
    return job.query.filter is None and job.searcher.costs.ms(WORDS) < _AT_ONCE_MS


def _has_two_legs(job: SearchJob) -> bool:
    """Whether the words can be looked up on another core while a worker computes the vector."""
    profile = job.query.profile
    computed = job.query.text is not None and job.vector is None and profile.uses_dense and not profile.looked_up
    return computed and profile.uses_words and _CORES > 1


def _vector_key(searcher: Searcher, query: Query) -> bytes | None:
    """None where there is no vector, or none worth remembering."""
    digest = searcher.vector_digest(query.profile)
    return None if digest is None or query.text is None else vector_key(digest, query.text)


def _slices(searcher: Searcher, query: Query, candidates: Sequence[RescoreCandidate]) -> list[RescoreJob]:
    """Consecutive candidates in slices that cost about the same time."""
    jobs: list[RescoreJob] = []
    start = cost = 0
    texts = _TEXTS_TOGETHER if searcher.encoder.batches else _TEXTS_A_SLICE
    for position, candidate in enumerate(candidates):
        cost += 1 if candidate.text is None else _IDS_A_SLICE // texts
        if cost >= _IDS_A_SLICE or position == len(candidates) - 1:
            part = candidates[start : position + 1]
            jobs.append(RescoreJob(searcher, query.text or "", query.profile, part, start))
            start, cost = position + 1, 0
    return jobs
