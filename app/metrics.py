"""Every Prometheus metric of the service, in one place, with the reason for its labels and buckets.

Label values come from closed sets only (route templates, stages, tiers, reasons): nothing a caller sends can add a
series.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import repeat
from pathlib import Path
from struct import Struct
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, values
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_PACKED = Struct("d").pack  # a value as prometheus_client's files hold it; its time, which comes after it, stays 0

if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    _Shared: Any = values.MultiProcessValue(repeat(os.getpid()).__next__)  # type: ignore[no-untyped-call]  # its own is not annotated

    class _Counted(_Shared):  # type: ignore[misc]  # a class made at run time
        """Counted some thirty times a search: without prometheus_client's looks for a fork, which a process that serves
        never does."""

        _counting = Lock()
        _value: float

        def inc(self, amount: float) -> None:
            with self._counting:
                value = self._value = self._value + amount
                file = self._file
                at = file._positions[self._key]
                file._m[at : at + 8] = _PACKED(value)  # at once, as others read it: `pack_into` writes zeros first

    values.ValueClass = _Counted

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# A search takes 0.2 ms (cached) to some 50 ms (deadline); finer steps where the promises lie (1 to 2 ms).
_REQUEST_BUCKETS = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
# Stages are tens of microseconds to a few milliseconds.
_STAGE_BUCKETS = (0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0)

REQUESTS = Counter(
    "aisle_http_requests_total",
    "Requests answered, by route template, method and status code.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "aisle_http_request_duration_seconds",
    "Time from a request's head to the last byte of its answer.",
    ["route"],
    buckets=_REQUEST_BUCKETS,
    registry=REGISTRY,
)
IN_FLIGHT = Gauge(
    "aisle_http_requests_in_flight", "Requests being answered now.", multiprocess_mode="livesum", registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "aisle_stage_duration_seconds",
    "Wall time of one stage of a search.",
    ["stage"],
    buckets=_STAGE_BUCKETS,
    registry=REGISTRY,
)
SEARCHES = Counter(
    "aisle_searches_total",
    "Searches answered, by collection and the tier that was reached.",
    ["collection", "tier"],
    registry=REGISTRY,
)
DEGRADED = Counter(
    "aisle_degraded_total",
    "Searches answered below their tier, by reason.",
    ["reason"],
    registry=REGISTRY,
)
NO_RESULTS = Counter(
    "aisle_searches_without_results_total",
    "Searches with a query and an empty result set.",
    ["collection"],
    registry=REGISTRY,
)
CACHE = Counter(
    "aisle_cache_events_total",
    "Cache events (hit, miss, stored, evicted, corrupt, dropped) by kind (answer, vector) and level (local, redis).",
    ["kind", "level", "event"],
    registry=REGISTRY,
)
CACHE_BYTES = Gauge(
    "aisle_cache_local_bytes",
    "Bytes held by the first level.",
    ["kind"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
REDIS_ERRORS = Counter(
    "aisle_redis_errors_total",
    "Calls of Redis that brought nothing, by cause: timeout, connection or reply where a search waited for it, late or "
    "breaker_open where it did not wait; write and probe where no search was concerned.",
    ["cause"],
    registry=REGISTRY,
)
REDIS_BREAKER_OPEN = Gauge(
    "aisle_redis_breaker_open",
    "1 while Redis is skipped after repeated failures.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SINGLE_FLIGHT_SHARED = Counter(
    "aisle_single_flight_shared_total",
    "Searches answered by another caller's identical search in flight.",
    registry=REGISTRY,
)
QUEUE_WAITING = Gauge(
    "aisle_queue_waiting",
    "Tickets waiting for a worker, by priority.",
    ["priority"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "aisle_batch_size",
    "Tickets a worker took at once.",
    ["priority"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=REGISTRY,
)
SKIPPED = Counter(
    "aisle_tickets_skipped_total",
    "Tickets dropped before work began, by reason (abandoned: nobody waited any more; expired: its time was over).",
    ["reason"],
    registry=REGISTRY,
)
WORK_AFTER_EXPIRY = Counter(
    "aisle_work_after_expiry_total",
    "Runs of the encoder begun for a search whose deadline had passed; it stays 0.",
    registry=REGISTRY,
)
WORKERS_REPLACED = Counter(
    "aisle_workers_replaced_total",
    "Worker threads given up because they stood still, and replaced.",
    registry=REGISTRY,
)
STAGE_FAILURES = Counter(
    "aisle_stage_failures_total",
    "Runs of a stage that failed, by stage (lexical, embed, score) and cause (raised, not_finite, shape, stalled: kept "
    "out of it while somebody stood still there, standby: done by the CPU as the device failed).",
    ["stage", "cause"],
    registry=REGISTRY,
)
GPU_INDEX_FAILURES = Counter(
    "aisle_gpu_index_failures_total",
    "Failures of the vector index on a GPU, by cause (build, raised, late: no answer in a second); the CPU's index "
    "took its place.",
    ["cause"],
    registry=REGISTRY,
)
REFUSED = Counter("aisle_refused_total", "Requests refused at the door, by reason.", ["reason"], registry=REGISTRY)
AUTH_REFUSED = Counter(
    "aisle_auth_refused_total",
    "Requests refused for their key (missing, unknown, expired, scope), or as the service knows none (closed).",
    ["reason"],
    registry=REGISTRY,
)
KEY_FILE_READS = Counter(
    "aisle_key_file_reads_total",
    "Changes of the file of keys that were taken up (read) or not (refused: the keys before it go on).",
    ["outcome"],
    registry=REGISTRY,
)
RESCORED = Counter(
    "aisle_rescored_pairs_total", "Pairs rescored, by the candidate's form (id, text).", ["form"], registry=REGISTRY
)
GOLDEN_CHECKS = Counter(
    "aisle_golden_checks_total",
    "Rounds of golden queries asked again while serving, by collection and outcome (passed, failed, skipped: no time).",
    ["collection", "outcome"],
    registry=REGISTRY,
)
READY = Gauge(
    "aisle_ready",
    "1 while the service answers searches (of several processes: all of them).",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
STARTS = Counter(
    "aisle_process_starts_total", "Processes that began to serve; more than there are: one ended.", registry=REGISTRY
)
BUNDLE = Gauge(
    "aisle_bundle_products",
    "Products in the served version, by collection.",
    ["collection"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
BUNDLE_LOADED = Gauge(
    "aisle_bundle_loaded_timestamp_seconds",
    "When the served version was loaded, by collection.",
    ["collection"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
CHANGES = Counter(
    "aisle_changes_total",
    "Changes to products that were kept, by collection and kind (put, patch, delete).",
    ["collection", "op"],
    registry=REGISTRY,
)
CHANGES_LAG = Gauge(
    "aisle_changes_lag_seconds",
    "How long the oldest change that no search sees yet has been kept, by collection; 0 when all are seen.",
    ["collection"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
CHANGED = Gauge(
    "aisle_changed_products",
    "Products that are not as the served version was built, by collection; a new version takes them in.",
    ["collection"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
RELOADS = Counter(
    "aisle_bundle_reloads_total",
    "Attempts to load a published version, by collection and outcome (served, refused).",
    ["collection", "outcome"],
    registry=REGISTRY,
)
BUILD = Gauge(
    "aisle_build_info",
    "1; the labels tell the version of aisle and the execution provider of its encoder.",
    ["version", "provider"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)


def observer(child: Histogram) -> Callable[[float], None]:
    """What `child.observe` does without exemplars, in half of its time: a search is observed a dozen times."""
    bounds, buckets, total = child._upper_bounds, child._buckets, child._sum

    def observe(value: float) -> None:
        total.inc(value)
        buckets[bisect_left(bounds, value)].inc(1)

    return observe


def cell(child: Counter | Gauge) -> Any:
    """Where a child keeps its number: `cell(child).inc(1)` does what `child.inc()` does, without its looks at labels
    and sign, in a third of its time."""
    return child._value


@contextmanager
def uncounted() -> Iterator[None]:
    """Within it no counter, histogram or up and down of a gauge counts, whoever tries."""
    kind = values.ValueClass
    inc = kind.inc
    kind.inc = _ignore
    try:
        yield
    finally:
        kind.inc = inc


def _ignore(value: object, amount: float) -> None:
    pass


def shared_folder() -> Path | None:
    """Where the processes that serve together keep what they count; None where nothing is shared."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def exposed() -> CollectorRegistry:
    """What a scrape reads beside the shared folder; without one, everything."""
    folder = shared_folder()
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(_Processes(folder))
    PlatformCollector(registry=registry)
    return registry


class _Processes(Collector):
    """What the processes take together, under the names that a single one has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        pids = {int(file.stem.rpartition("_")[2]) for file in self._folder.glob("*.db")}
        return _together(metric for pid in sorted(pids) for metric in _process(pid).collect())


@lru_cache(64)
def _process(pid: int) -> ProcessCollector:
    return ProcessCollector(pid=partial(int, pid), registry=None)


def _together(metrics: Iterator[Metric]) -> Iterable[Metric]:
    """Sums, but for what is a point in time or a limit."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name not in found:
            found[metric.name] = metric
            continue
        least = metric.name in ("process_start_time_seconds", "process_max_fds")
        for at, sample in enumerate(metric.samples):
            before = found[metric.name].samples[at].value
            value = min(before, sample.value) if least else before + sample.value
            found[metric.name].samples[at] = sample._replace(value=value)
    return found.values()
