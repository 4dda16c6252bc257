"""Start here: the stages in order, for one version of one collection.

A Searcher is immutable. Jobs arrive in batches from the queue; each stage takes the whole batch before the next begins.
A job keeps what it has found so far, so that at its deadline somebody else can answer from it.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from math import inf
from time import perf_counter
from typing import Any

import numpy as np

from app import metrics
from app.errors import AisleError, EncoderUnavailable, NotFound, Unavailable
from app.index.catalog import Catalog
from app.index.dense import VectorIndex
from app.index.filters import Filter, without
from app.index.lexical import LexicalHits, LexicalIndex, LexicalQuery
from app.runtime.batcher import IDLE, Load
from app.runtime.deadline import now
from app.runtime.watch import Watch
from app.search import features, respond, retrieve
from app.search.calibrate import NO_CLARITY, Clarity, clarity_of
from app.search.classify import Classifier, ClassifyJob
from app.search.embed import Encoder
from app.search.explain import evidence, explained
from app.search.fuse import Candidates, choose
from app.search.golden import GoldenJob
from app.search.job import Errand, SearchJob, Share, Stopwatch, expired, tier_ms
from app.search.normalize import MAX_BROWSE_DEPTH, Query, to_query
from app.search.plan import (
    DEADLINE,
    ENCODER_ERROR,
    ENCODER_ON_CPU,
    ENCODER_STALLED,
    RANK_ERROR,
    RANK_STALLED,
    WORDS,
    WORDS_ERROR,
    Costs,
    fitting,
    ladder,
)
from app.search.relax import Relaxed, nothing_left, relaxations
from app.search.rerank import TIER_DENSE, Profile, Ranked, Ranking, rank
from app.search.rescore import RescoreJob
from app.search.static import StaticEncoder, blended
from app.search.understand import corrected
from app.search.whynot import WhyNotJob
from app.types import (
    TIER_BROWSE,
    TIER_LEXICAL,
    TIER_WORDS,
    Floats,
    Mask,
    Rows,
    SearchAnswer,
    SearchRequest,
    Timing,
)

_log = logging.getLogger("aisle.searcher")
FACET_VALUES = 50
_READINGS = 4096
_LOOP_PATIENCE_S = 0.01  # the loop, which answers at the deadline, must not follow anybody into a stall
_ENCODER_STALLED = metrics.STAGE_FAILURES.labels("embed", "stalled")
_RANK_STALLED = metrics.STAGE_FAILURES.labels("score", "stalled")
_RANK_RAISED = metrics.STAGE_FAILURES.labels("score", "raised")
_WORDS_RAISED = metrics.STAGE_FAILURES.labels("lexical", "raised")


Job = SearchJob | RescoreJob | ClassifyJob | WhyNotJob | GoldenJob | Errand[Any]


def process(jobs: Sequence[Job], load: Load = IDLE) -> None:
    """What a worker does with what it took from the queue; `load` is what still stands there."""
    searches: dict[Searcher, list[SearchJob]] = {}
    for job in jobs:
        if isinstance(job, SearchJob):
            searches.setdefault(job.searcher, []).append(job)
        else:
            job.run()
    for searcher, group in searches.items():
        searcher.search(group, load)


class Searcher:
    """Answers searches over one version: lexical, dense, choose, score, order, respond."""

    def __init__(
        self,
        *,
        collection: str,
        version: str,
        catalog: Catalog,
        words: LexicalIndex,
        vectors: VectorIndex,
        encoder: Encoder,
        ranking: Ranking,
        classifier: Classifier | None = None,
        static: StaticEncoder | None = None,
        state: str | None = None,
    ) -> None:
        """`static` is there where a profile of the ranking asks for it; without it queries are encoded in full.
        `state` tells the version with its changes from every other such; without it there are none."""
        self.collection = collection
        self.version = version
        self.state = state or version
        self.catalog = catalog
        self.words = words
        self.vectors = vectors
        self.encoder = encoder
        self.ranking = ranking
        self.classifier = classifier
        self.static = static
        self.correct = _correction(words, encoder)
        self.costs = Costs()
        self.scoring = Watch()

    def changed(self, catalog: Catalog, words: LexicalIndex, vectors: VectorIndex, state: str) -> Searcher:
        """The same version after changes to its products. What it has learnt of its costs, and how it reads texts,
        stays; so do the products that vote for a category."""
        after = copy(self)
        after.catalog, after.words, after.vectors, after.state = catalog, words, vectors, state
        return after

    def query(self, request: SearchRequest, *, as_typed: bool = False) -> Query:
        """Stage 1; `as_typed`: no spelling is mended. Raises BadInput or NotFound."""
        return to_query(request, self.catalog.schema, self.ranking, _as_typed if as_typed else self.correct)

    def query_vectors(self, texts: Sequence[str], profile: Profile) -> Floats:
        """Vectors of normalised texts as the profile wants them, float32 [n, dimension], of unit length or, where two
        readings are blended, shorter. Raises EncoderUnavailable."""
        if self.static is None or not profile.static:
            return self.encoder.queries(texts)
        looked_up = self.static.queries(texts)
        return looked_up if profile.looked_up else blended(self.encoder.queries(texts), looked_up, profile.static)

    def vector_digest(self, profile: Profile) -> str | None:
        """What a query's vector depends on besides its text; None where it is sooner made than remembered."""
        if not profile.uses_dense or profile.looked_up:
            return None
        return f"{self.encoder.digest} {self.version} {profile.static}" if profile.static else self.encoder.digest

    def search(self, jobs: Sequence[SearchJob], load: Load = IDLE) -> None:
        """All stages after the queue, for a batch. Each job ends with an answer or an error."""
        started = perf_counter()
        jobs = [job for job in jobs if not expired(job, now())]
        for job in jobs:
            job.timings.append(Timing("queue", (started - job.submitted) * 1e3))
        share = self._share_words(jobs[0]) if len(jobs) == 1 else None
        for job in jobs if share is None else ():
            self._find_words_or_do_without(job)
        self._embed(jobs, load)
        if share is not None:
            self._meet(jobs[0], share, load)
        self._find_near_together(jobs)
        for job in jobs:
            if job.error is not None or expired(job, now()):
                self.learn(job)  # an encoder that takes too long is what most needs to be known
                continue
            try:
                job.answer = self._whole(job)  # at a deadline, whatever stands here is taken for the whole answer
            except AisleError as error:
                job.error = error
            except Exception as error:  # noqa: BLE001  (whatever one search does, its batch mates are answered)
                job.error = error

    def _share_words(self, job: SearchJob) -> Share | None:
        """Have the words looked up by the job's helper while this thread is at the vector: two cores for one search."""
        if job.helper is None:
            return None
        share = Share()
        return share if job.helper.ask(partial(self._find_words_aside, job, share)) else None

    def _find_words_aside(self, job: SearchJob, share: Share) -> None:
        if now() > job.deadline or not share.claim():
            return
        try:
            self._find_words(job)
        except Exception:  # noqa: BLE001  (the worker meets it again, and knows what to do)
            job.words = job.found = None
        finally:
            share.over()

    def _meet(self, job: SearchJob, share: Share, load: Load) -> None:
        """See to it that the words have been looked up."""
        if not share.claim():
            share.wait()
        if job.found is not None or expired(job, now()):
            return
        profile = job.profile
        self._find_words_or_do_without(job)
        if job.profile is not profile:  # whose vectors may be other ones
            job.vector = None
            self._embed([job], load)

    def answer_so_far(self, job: SearchJob) -> SearchAnswer | None:
        """At the deadline: the lexical tier's answer, if the job got that far."""
        if job.found is None or not job.query.profile.uses_words:
            return None
        late = SearchJob(self, job.query, job.submitted, words=job.words, found=job.found)
        late.degraded = [*(reason for reason in job.degraded if reason != DEADLINE), DEADLINE]
        if job.scoring or self.scoring.still(_LOOP_PATIENCE_S):
            return self._as_found(late, RANK_STALLED)
        return self._scored(late)

    def words_alone(self, job: SearchJob) -> SearchAnswer | None:
        """What the words find, in their order, for a search that nobody has begun; None where they are not asked."""
        if job.query.text is None or not job.query.profile.uses_words:
            return None
        alone = SearchJob(self, job.query, job.submitted)
        self._find_words(alone)
        return self._as_found(alone, DEADLINE)

    def _whole(self, job: SearchJob) -> SearchAnswer:
        answer = self._scored(job)
        relaxes = job.query.request.relax and WORDS_ERROR not in job.degraded  # it asks the words which of them to drop
        relaxed = not job.total and job.query.text is not None and relaxes
        if relaxed or not job.told_later:
            self.learn(job)
        if relaxed:
            answer = self._with_fewer_words(job) or answer
        return answer

    def _scored(self, job: SearchJob) -> SearchAnswer:
        """The answer; in the order of the words where scoring fails, or stands still with somebody else."""
        if self.scoring.rests():
            return self._as_found(job, RANK_STALLED)
        job.scoring = True
        try:
            return self._answer(job)
        except AisleError:
            raise
        except Exception as error:
            if job.query.text is None or not job.query.profile.uses_words:
                raise
            _RANK_RAISED.inc()
            _log_failure("scoring", "the words' order is the answer", error)
            return self._as_found(job, RANK_ERROR)

    def _as_found(self, job: SearchJob, reason: str) -> SearchAnswer:
        """What the words found, in their order, without scores. Raises Unavailable where they are not asked."""
        query = job.query
        if query.text is not None and not query.profile.uses_words:
            raise Unavailable(
                f"scoring stands still, and profile {query.profile.name!r} has no words' order to answer in"
            )
        if query.text is None:
            return self._browse(job)
        found = job.found or retrieve.NO_LEXICAL_HITS
        rows = self.catalog.order_by(np.sort(found.rows), query.request.sort) if query.request.sort else found.rows
        rows = rows[query.request.offset : query.request.offset + query.request.k]
        job.degraded.append(reason)
        if reason == RANK_STALLED:
            _RANK_STALLED.inc()
        page = respond.Page(rows, None, None, len(found.rows), found.matched <= len(found.rows), {})
        return self._respond(job, page, TIER_WORDS, calibrated=False)

    def similar(self, product_id: str, k: int) -> SearchAnswer:
        """The nearest neighbours of a product; score = mean cosine of its vector with the neighbour's title and whole
        text, as in a search, which is also what they are chosen by: a larger `k` only appends. Raises NotFound."""
        row = self._row(product_id)
        vector = self.vectors.vector(row)
        length = float(np.linalg.norm(vector)) or 1.0
        allowed = np.ones(len(self.catalog), dtype=np.bool_)
        allowed[row] = False
        rows, scores = self.vectors.search(vector / np.float32(length), k, allowed)
        page = respond.Page(rows, scores.tolist(), None, len(rows), False, {})
        tail = respond.tail(
            page, self.catalog, version=self.version, tier="similar", degraded=(), calibrated=False, fields=None
        )
        return SearchAnswer(tail, self.version, "similar", False, (), ())

    def product(self, product_id: str) -> bytes:
        """JSON object of one product. Raises NotFound."""
        row = self._row(product_id)
        return respond.product(product_id, self.version, self.catalog.document(row))

    def clarity(
        self, words: LexicalQuery | None, vector: Floats | None, profile: Profile, *, needed: bool = False
    ) -> Clarity:
        """What a link may know of a query, by its lists without any filter; nothing where this profile's link asks for
        nothing, unless it is `needed` (to fit one)."""
        if not (needed or profile.link.uses_clarity):
            return NO_CLARITY
        found, near = self._lexical(words, profile, None), self._dense(vector, profile, None)
        return clarity_of(found.scores, vector, near.scores)

    def result_set(self, query: Query, words: LexicalQuery | None, vector: Floats | None) -> Candidates:
        """filter ∩ (lexical top-D ∪ dense top-D above the floor), for a query with text."""
        allowed = retrieve.allowed_by(query.filter, self.catalog)
        found = self._lexical(words, query.profile, allowed)
        return choose(found, self._dense(vector, query.profile, allowed))

    def rank(
        self,
        rows: Rows,
        words: LexicalQuery | None,
        vector: Floats | None,
        profile: Profile,
        first: int | None = None,
    ) -> Ranked:
        """Every row's exact features, their weighted sum, and the order, or its `first` places."""
        rows = self.catalog.in_id_order(rows)
        return rank(rows, features.of_rows(rows, self.words, words, self.vectors, vector), profile, first)

    def _find_words_or_do_without(self, job: SearchJob) -> None:
        """Where the words fail the meaning alone answers, by the profile that is fitted to that."""
        try:
            self._find_words(job)
        except Exception as error:  # noqa: BLE001  (whatever one search does, its batch mates are answered)
            _WORDS_RAISED.inc()
            _log_failure("the word search", "the meaning alone answers", error)
            job.words = job.found = None
            job.planned = self.ranking.profiles.get(TIER_DENSE) if job.query.profile.uses_dense else None
            if job.planned is None:
                job.error = Unavailable("the word search failed, and there is no profile to answer without it")
            job.degraded.append(WORDS_ERROR)

    def _find_words(self, job: SearchJob) -> None:
        query = job.query
        if query.text is None:
            return
        with Stopwatch(job, "lexical"):
            job.words = self.words.parse(query.text, prefix=query.request.prefix)
            job.found = self._lexical(job.words, query.profile, retrieve.allowed_by(query.filter, self.catalog))

    def _embed(self, jobs: Sequence[SearchJob], load: Load = IDLE) -> None:
        waiting = [job for job in jobs if job.query.text and job.vector is None and job.query.profile.uses_dense]
        if not waiting:
            return
        if not self.encoder.batches:
            for job in waiting:
                self._plan(job, load)
                self._embed_together([job])
            return
        for job in waiting:
            self._plan(job, load)
        for share in {job.profile.static for job in waiting}:
            self._embed_together([job for job in waiting if job.profile.static == share])

    def _plan(self, job: SearchJob, load: Load) -> None:
        """Before the encoder: the tier that fits the time that is left."""
        if job.deadline == inf:
            return
        steps = ladder(job.profile, self.ranking)
        if self.encoder.rests:
            self._plan_without_network(job, steps)
            return
        left_ms = (job.deadline - now()) * 1e3
        profile, reason = fitting(steps, self.costs, left_ms, job.query.request.timeout_ms, load)
        if reason is not None:
            job.planned = profile
            if reason not in job.degraded:
                job.degraded.append(reason)

    def _plan_without_network(self, job: SearchJob, steps: Sequence[Profile]) -> None:
        """Somebody stands still in the network: the best tier that runs none."""
        job.planned = next((one for one in steps if one.looked_up or not one.uses_dense), None)
        if job.planned is None:
            job.error = EncoderUnavailable(f"the encoder stands still, and profile {job.profile.name!r} needs it")
        elif job.planned is not steps[0]:
            _ENCODER_STALLED.inc()
            job.degraded.append(ENCODER_STALLED)

    def learn(self, job: SearchJob) -> None:
        """What a search took, for the plans of others; once."""
        if job.learnt:
            return
        job.learnt = True
        for stage in job.timings:
            if stage.stage == "lexical":
                self.costs.seen(WORDS, stage.ms)
        spent = tier_ms(job)
        if spent is not None:
            self.costs.seen(job.profile.name, spent)

    def _embed_together(self, jobs: list[SearchJob]) -> None:
        begun = now()
        jobs = [job for job in jobs if job.error is None and job.profile.uses_dense and not expired(job, begun)]
        if not jobs:
            return
        if too_late := sum(begun > job.deadline for job in jobs):
            metrics.WORK_AFTER_EXPIRY.inc(too_late)
        started = perf_counter()
        try:
            vectors = self.query_vectors([job.query.text or "" for job in jobs], jobs[0].profile)
            stood_in = self.encoder.stood_in and not jobs[0].profile.looked_up
            for job, vector in zip(jobs, vectors, strict=True):
                job.vector = vector
                if stood_in:
                    job.degraded.append(ENCODER_ON_CPU)
        except EncoderUnavailable:
            for job in jobs:
                job.degraded.append(ENCODER_ERROR)
        spent = (perf_counter() - started) * 1e3
        for job in jobs:
            job.timings.append(Timing("embed", spent))

    def _answer(self, job: SearchJob) -> SearchAnswer:
        query = job.query
        if query.text is None:
            return self._browse(job)
        profile = self._profile(job, dense=job.vector is not None)
        vector = job.vector if profile.uses_dense else None
        allowed = retrieve.allowed_by(query.filter, self.catalog)
        near = job.near
        if near is None:
            with Stopwatch(job, "dense"), self.scoring:
                near = self._dense(vector, profile, allowed)
        with Stopwatch(job, "score"), self.scoring:
            candidates = choose(job.found or retrieve.NO_LEXICAL_HITS, near)
            first = None if query.request.sort else query.request.offset + query.request.k
            ranked = self.rank(candidates.rows, job.words, vector, profile, first)
            facets = self._facets(query, candidates.rows, job.words, vector, profile)
            clarity = self._clarity(job, near, vector, profile)
            page = self._page(query, ranked, candidates, profile, facets, clarity, job.words)
        return self._respond(job, page, profile.tier, profile.link.calibrated)

    def _find_near_together(self, jobs: Sequence[SearchJob]) -> None:
        """What is nearest to queries without a filter, by one call for those that want equally many."""
        waiting: dict[tuple[int, float], list[SearchJob]] = {}
        for job in jobs:
            asks = job.vector is not None and job.query.filter is None and job.profile.uses_dense
            if job.error is None and asks and not expired(job, now()):
                waiting.setdefault((job.profile.depth, job.profile.floor), []).append(job)
        for (depth, floor), group in waiting.items():
            if len(group) == 1 or self.scoring.rests():
                continue
            started = perf_counter()
            with (
                contextlib.suppress(Exception),
                self.scoring,
            ):  # each then asks for itself, and what it meets is its own
                vectors = np.stack([job.vector for job in group if job.vector is not None])
                found = retrieve.dense_many(self.vectors, vectors, depth, floor)
                spent = (perf_counter() - started) * 1e3 / len(group)  # a search's share: what it costs, not waits
                for job, near in zip(group, found, strict=True):
                    job.near = near
                    job.timings.append(Timing("dense", spent))

    def _clarity(self, job: SearchJob, near: retrieve.DenseHits, vector: Floats | None, profile: Profile) -> Clarity:
        """Without a filter, and where the job's lists are the profile's own, those at hand will do."""
        if job.query.filter is not None or profile.depth != job.query.profile.depth:
            return self.clarity(job.words, vector, profile)
        if not profile.link.uses_clarity:
            return NO_CLARITY
        found = job.found or retrieve.NO_LEXICAL_HITS
        return clarity_of(found.scores, vector, near.scores)

    def _with_fewer_words(self, job: SearchJob) -> SearchAnswer | None:
        """The answer to a shorter query, or to the filter alone, that finds something. Words are alternatives, so only
        the dense leg may find more for fewer of them."""
        asked = job.query.text or ""
        tries = [self._as_typed(one, job) for one in relaxations(asked, self.words)] if job.vector is not None else []
        if job.query.filter is not None:
            tries.append(nothing_left(asked))
        for one in tries:
            if expired(job, now()):
                return None
            again = SearchJob(self, replace(job.query, text=one.text), job.submitted, timings=job.timings, relaxed=one)
            again.degraded, again.deadline, again.planned = list(job.degraded), job.deadline, job.planned
            self._find_words(again)
            self._embed([again])
            answer = self._scored(again)
            if again.total:
                return answer
        return None

    def _as_typed(self, one: Relaxed, job: SearchJob) -> Relaxed:
        """A search for the shorter text would read it so: its words have other neighbours."""
        return replace(one, text=one.text and self.correct(one.text, job.query.request.prefix))

    def _browse(self, job: SearchJob) -> SearchAnswer:
        request = job.query.request
        with Stopwatch(job, "browse"):
            allowed = retrieve.allowed_by(job.query.filter, self.catalog)
            if request.sort:
                rows = self.catalog.rows(allowed)
                total = len(rows)
                rows = self.catalog.order_by(rows, request.sort, depth=MAX_BROWSE_DEPTH)
            else:
                rows, total = self.catalog.by_popularity(allowed, MAX_BROWSE_DEPTH)
            facets = {}
            for name in request.facets:
                mask = retrieve.allowed_by(_relaxed(job.query.filter, name), self.catalog)
                facets[name] = self.catalog.facet_counts(self.catalog.rows(mask), name, FACET_VALUES)
            rows = rows[request.offset : request.offset + request.k]
            page = respond.Page(rows, None, None, total, True, facets)
        return self._respond(job, page, TIER_BROWSE, calibrated=False)

    def _page(
        self,
        query: Query,
        ranked: Ranked,
        candidates: Candidates,
        profile: Profile,
        facets: dict[str, Any],
        clarity: Clarity,
        words: LexicalQuery | None,
    ) -> respond.Page:
        request = query.request
        if request.sort:
            ordered = self.catalog.order_by(candidates.rows, request.sort)
            positions = {int(row): position for position, row in enumerate(ranked.rows)}
            page = ordered[request.offset : request.offset + request.k]
            chosen: slice | list[int] = [positions[int(row)] for row in page]
        else:
            chosen = slice(request.offset, request.offset + request.k)
        scores = profile.link.probability(ranked.raw[chosen], clarity).tolist()
        explanations = None
        if request.explain:
            met = evidence(ranked.rows[chosen], query.text or "", self.words, words)
            explanations = explained(ranked, chosen, met, profile, clarity)
        return respond.Page(ranked.rows[chosen], scores, explanations, len(candidates.rows), candidates.exact, facets)

    def _facets(
        self, query: Query, rows: Rows, words: LexicalQuery | None, vector: Floats | None, profile: Profile
    ) -> dict[str, Any]:
        """Disjunctive counts: a facet's own choice does not narrow its own values."""
        counts = {}
        for name in query.request.facets:
            condition = _relaxed(query.filter, name)
            if condition is not query.filter:
                allowed = retrieve.allowed_by(condition, self.catalog)
                near = self._dense(vector, profile, allowed)
                relaxed = choose(self._lexical(words, profile, allowed), near).rows
            else:
                relaxed = rows
            counts[name] = self.catalog.facet_counts(relaxed, name, FACET_VALUES)
        return counts

    def _respond(self, job: SearchJob, page: respond.Page, tier: str, calibrated: bool) -> SearchAnswer:
        job.total = page.total
        with Stopwatch(job, "respond"):
            tail = respond.tail(
                page,
                self.catalog,
                version=self.version,
                tier=tier,
                degraded=job.degraded,
                calibrated=calibrated,
                fields=job.query.request.fields,
                corrected=(job.relaxed.asked if job.relaxed else job.query.text) if job.query.corrected else None,
                relaxed=(job.relaxed.text, job.relaxed.dropped) if job.relaxed else None,
                truncated=job.vector is not None and job.query.text is not None and self.encoder.cuts(job.query.text),
                word_matches=job.found.matched if job.found and job.query.profile.uses_words else None,
            )
        return SearchAnswer(tail, self.version, tier, False, tuple(job.degraded), tuple(job.timings))

    def _lexical(self, words: LexicalQuery | None, profile: Profile, allowed: Mask | None) -> LexicalHits:
        if words is None or not profile.uses_words:
            return retrieve.NO_LEXICAL_HITS
        return retrieve.lexical(self.words, words, profile.depth, allowed)

    def _dense(self, vector: Floats | None, profile: Profile, allowed: Mask | None) -> retrieve.DenseHits:
        if vector is None:
            return retrieve.NO_DENSE_HITS
        return retrieve.dense(self.vectors, vector, profile.depth, profile.floor, allowed)

    def _profile(self, job: SearchJob, *, dense: bool) -> Profile:
        wanted = job.profile
        if dense or not wanted.uses_dense:
            return wanted
        if not wanted.uses_words:
            raise EncoderUnavailable(f"profile {wanted.name!r} has no words to fall back to")
        return self.ranking.profiles[TIER_LEXICAL]

    def _row(self, product_id: str) -> int:
        row = self.catalog.row(product_id)
        if row is None:
            raise NotFound(f"no product {product_id[:128]!r}")
        return row


def _log_failure(what: str, instead: str, error: Exception) -> None:
    """Without the error's own message, which may hold what was asked."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s failed with %s; %s\n%s", what, type(error).__name__, instead, frames)


def _as_typed(text: str, _: bool) -> str:
    return text


def _correction(words: LexicalIndex, encoder: Encoder) -> Callable[[str, bool], str]:
    """A version's reading of a text; remembered, so that an answer from the cache does not wait for it again."""

    def is_word(text: str) -> bool:
        return encoder.knows(text) or words.synonyms.knows(text)

    return lru_cache(_READINGS)(lambda text, prefix: corrected(text, words.spelling, is_word, prefix=prefix))


def _relaxed(condition: Filter | None, name: str) -> Filter | None:
    return None if condition is None else without(condition, name)
