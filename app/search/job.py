"""One search on its way through the stages: what was asked, what has been found so far, how long each stage took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

from app import metrics
from app.errors import DeadlineExceeded
from app.index.lexical import LexicalHits, LexicalQuery
from app.runtime.helper import Helper
from app.search import retrieve
from app.search.normalize import Query
from app.search.plan import ENCODER_ERROR
from app.search.relax import Relaxed
from app.search.rerank import Profile
from app.types import Floats, SearchAnswer, Timing

if TYPE_CHECKING:
    from app.search.searcher import Searcher

T = TypeVar("T")

_AFTER_WORDS = ("embed", "dense", "score", "respond")
_EXPIRED = metrics.SKIPPED.labels("expired")


class Share:
    """A stage of one search that a helper may take over while a worker is at another. Who claims it first does it."""

    __slots__ = ("_claimed", "_over")

    def __init__(self) -> None:
        self._claimed, self._over = Lock(), Lock()
        self._over.acquire()

    def claim(self) -> bool:
        """Whether it is the caller's to do; it then says when it is `over`."""
        return self._claimed.acquire(blocking=False)

    def over(self) -> None:
        """Whatever came of it."""
        self._over.release()

    def wait(self) -> None:
        """Until it is over."""
        self._over.acquire()
        self._over.release()


@dataclass(eq=False, slots=True)
class SearchJob:
    """One search on its way through the stages. `deadline` is a point on the monotonic clock; `planned` stands in for
    the profile that was asked for, where that would come too late."""

    searcher: Searcher
    query: Query
    submitted: float
    vector: Floats | None = None
    deadline: float = inf
    planned: Profile | None = None
    words: LexicalQuery | None = None
    found: LexicalHits | None = None
    near: retrieve.DenseHits | None = None
    answer: SearchAnswer | None = None
    error: Exception | None = None
    degraded: list[str] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    relaxed: Relaxed | None = None
    total: int = 0
    scoring: bool = False
    told_later: bool = False  # whoever gives the answer will tell the costs
    learnt: bool = False
    helper: Helper | None = None  # who may look the words up while a worker is at the vector

    @property
    def profile(self) -> Profile:
        return self.planned or self.query.profile


def tier_ms(job: SearchJob) -> float | None:
    """What a job's tier took from the encoder on. None where that tells nothing of the tier: it was helped by a cache,
    or took another way, or was asked for more than hits."""
    request = job.query.request
    if job.query.text is None or job.relaxed or request.explain or request.facets or ENCODER_ERROR in job.degraded:
        return None
    spent = {timing.stage: timing.ms for timing in job.timings}
    if job.profile.uses_dense and "embed" not in spent:
        return None
    return sum(spent.get(stage, 0.0) for stage in _AFTER_WORDS)


def expired(job: SearchJob, at: float) -> bool:
    """Whether a job's time is over: then no more work is done for it, and it ends with the error that says so."""
    if at <= job.deadline:
        return False
    if job.error is None:
        job.error = DeadlineExceeded("no answer within the deadline")
        _EXPIRED.inc()
    return True


@dataclass(eq=False, slots=True)
class Errand(Generic[T]):
    """Reading or writing of much, which takes its turn among bulk work."""

    work: Callable[[], T]
    result: T | None = None
    error: Exception | None = None

    def run(self) -> None:
        """Do it, or say why it could not be done."""
        try:
            self.result = self.work()
        except Exception as error:  # noqa: BLE001  (whoever waits for it is told, and nobody else)
            self.error = error


class Stopwatch:
    """Times a stage into its job."""

    __slots__ = ("_job", "_stage", "_started")

    def __init__(self, job: SearchJob, stage: str) -> None:
        self._job, self._stage = job, stage

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._job.timings.append(Timing(self._stage, (perf_counter() - self._started) * 1e3))
