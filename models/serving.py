"""Processes, worker threads and batch sizes under an offered load.

Searches arrive as many people send them: at random, at a rate, whether or not the ones before have been answered, and a
search's time counts from when it was due. They go the way that a service's go behind its socket and its caches: the
queue, the workers, the stages, in as many processes as would serve, among which they are dealt out. The candidates take
turns; after each round the slower half is measured no further.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from app.index.bundle import BundleStore
from app.processes import fitting, on_gpu
from app.runtime.batcher import Batcher
from app.runtime.cores import usable_cores
from app.runtime.deadline import after_ms
from app.runtime.interpreter import settle
from app.search.job import SearchJob
from app.search.searcher import Job, Searcher, process
from app.search.service import start_workers
from app.search.versions import Encoders, load
from app.settings import Settings
from app.types import SearchRequest
from models.pareto import Setting, at

ROUNDS = 5
_BATCHES = (0, 1, 8)
_LEFT = 2  # are measured in every round
_PATIENCE_MS = 60_000.0
_LOADED_S = 600.0
_WAITING = 100_000


class Serving(NamedTuple):
    """What a process's environment may say: AISLE_PROCESSES, AISLE_WORKERS, AISLE_MAX_BATCH (0: as the service
    chooses)."""

    processes: int
    workers: int
    max_batch: int


@dataclass(frozen=True)
class Loaded:
    """What one way to serve took, in milliseconds, a round an array."""

    serving: Serving
    times: tuple[Any, ...]

    @property
    def p50(self) -> float:
        """Median over the rounds of their p50."""
        return float(np.median([np.percentile(one, 50) for one in self.times]))

    @property
    def p99(self) -> float:
        """Median over the rounds of their p99."""
        return float(np.median(self.p99s))

    @property
    def p99s(self) -> list[float]:
        return [float(np.percentile(one, 99)) for one in self.times]

    def to_json(self) -> dict[str, Any]:
        figures = {
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "p99_least_ms": min(self.p99s),
            "p99_most_ms": max(self.p99s),
        }
        searches = sum(map(len, self.times))
        return {**self.serving._asdict(), **{name: round(ms, 2) for name, ms in figures.items()}, "searches": searches}


def machine() -> dict[str, Any]:
    """What a choice is good for: another machine is not told."""
    return {"cores": usable_cores(), "provider": "cuda" if on_gpu(Settings.from_environment()) else "cpu"}


def default() -> Serving:
    """How a service is run that nobody has told otherwise."""
    processes = fitting(Settings.from_environment())
    return Serving(processes, max(1, usable_cores() // processes), 0)


def candidates() -> tuple[Serving, ...]:
    """The default first. Processes by powers of two up to the cores (one, with a GPU); of threads one, the process's
    share of the cores and twice that; batches of one, of up to eight, and as the service chooses."""
    cores = usable_cores()
    counts = {1, cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)}
    if on_gpu(Settings.from_environment()):
        counts = {1}
    found = {default(): None}
    for processes in sorted(counts):
        share = max(1, cores // processes)
        for workers in sorted({1, share, 2 * share}):
            found |= {Serving(processes, workers, batch): None for batch in _BATCHES}
    return tuple(found)


def under_load(
    store: tuple[Path, str, str],
    setting: Setting,
    servings: Sequence[Serving],
    texts: Sequence[str],
    rate: float,
    seconds: float,
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[Loaded, ...]:
    """Each way to serve the version of `store` (bundles, collection, version) under the setting, at `rate` searches a
    second for `seconds` a round. The first of `servings` stays to the end. `tick` gets 1 for each round of each.

    Raises RuntimeError where a process could not do its part."""
    racing = list(servings)
    times: dict[Serving, list[Any]] = {one: [] for one in servings}
    with _members(max(one.processes for one in servings), (*store, setting)) as members:
        for round_ in range(ROUNDS):
            for serving in np.random.default_rng(round_).permutation(len(racing)):
                one = racing[serving]
                told = [
                    (list(texts), one.workers, one.max_batch, rate / one.processes, seconds, (round_, number))
                    for number in range(one.processes)
                ]
                times[one].append(np.concatenate(_asked(members[: one.processes], told)))
                tick(1)
            if round_ < ROUNDS - 1:
                ranked = sorted(racing[1:], key=lambda one: np.median([np.percentile(t, 99) for t in times[one]]))
                racing = [racing[0], *ranked[: _left(len(racing)) - 1]]
    return tuple(Loaded(one, tuple(times[one])) for one in servings)


def chosen(loaded: Sequence[Loaded]) -> Loaded:
    """The least p99 of those measured to the end; the first, unless another was below it in every single round."""
    first = loaded[0]
    below = [
        one
        for one in loaded[1:]
        if len(one.times) == len(first.times) and all(a < b for a, b in zip(one.p99s, first.p99s, strict=True))
    ]
    return min(below, key=lambda one: one.p99, default=first)


def rounds_of(servings: int) -> int:
    """How often `under_load` ticks."""
    total, left = 0, servings
    for _ in range(ROUNDS):
        total += left
        left = _left(left)
    return total


def _left(racing: int) -> int:
    return min(racing, max(_LEFT, racing // 2))


@contextmanager
def _members(count: int, version: tuple[Any, ...]) -> Iterator[list[Connection]]:
    """Processes that have loaded the version and wait."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads' locks
    ours, processes = [], []
    try:
        for _ in range(count):
            mine, theirs = context.Pipe()
            ours.append(mine)
            processes.append(context.Process(target=_member, args=(theirs, *version), daemon=True))
            processes[-1].start()
            theirs.close()
        for one in ours:
            _received(one)
        yield ours
    finally:
        for one in ours:
            one.close()
        for member in processes:
            member.join(10.0)
            if member.is_alive():
                member.kill()


def _asked(members: Sequence[Connection], told: Sequence[tuple[Any, ...]]) -> list[Any]:
    for member, one in zip(members, told, strict=True):
        member.send(one)
    return [_received(member) for member in members]


def _received(member: Connection) -> Any:
    if not member.poll(_LOADED_S):
        raise RuntimeError("a process that was to be measured gave no answer")
    try:
        answer = member.recv()
    except EOFError:
        raise RuntimeError("a process that was to be measured ended") from None
    if isinstance(answer, str):
        raise RuntimeError(f"a process that was to be measured failed: {answer}")
    return answer


def _member(channel: Connection, root: Path, collection: str, version: str, setting: Setting) -> None:
    """One process: loads, says so with an empty list, then answers each order with the milliseconds of its searches."""
    try:
        searcher = at(load(BundleStore(root, collection), version, Encoders("auto")).searcher, setting)
        settle()
        channel.send([])
        while True:
            channel.send(asyncio.run(_round(searcher, *channel.recv())))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001  (whatever it is, who waits must be told)
        channel.send(f"{type(error).__name__}: {error}")


async def _round(
    searcher: Searcher,
    texts: Sequence[str],
    workers: int,
    max_batch: int,
    rate: float,
    seconds: float,
    seed: tuple[int, ...],
) -> Any:
    """Milliseconds of each search, from when it was due."""
    batcher: Batcher[Job] = Batcher(
        lambda jobs: process(jobs, batcher.load()), workers=workers, max_batch=max_batch, max_waiting=_WAITING
    )
    start_workers(batcher, lambda: [searcher])
    random = np.random.default_rng(seed)
    due = np.cumsum(random.exponential(1 / rate, max(1, round(rate * seconds))))
    order = [texts[number] for number in random.integers(len(texts), size=len(due))]
    spent: list[float] = []
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def search(text: str, at: float) -> None:
        job = SearchJob(searcher, searcher.query(SearchRequest(text)), perf_counter())
        await batcher.run(job, deadline=after_ms(_PATIENCE_MS))
        if job.error is not None:
            raise job.error
        spent.append((perf_counter() - at) * 1e3)

    def begin(text: str, at: float) -> None:
        tasks.append(loop.create_task(search(text, at)))

    def arrive() -> None:
        """In a thread of its own, as a network's are: the loop's timers are a millisecond wide."""
        started = perf_counter()
        for text, after in zip(order, due, strict=True):
            time.sleep(max(0.0, started + after - perf_counter()))
            loop.call_soon_threadsafe(partial(begin, text, started + after))
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=arrive, daemon=True)
    thread.start()
    try:
        await done.wait()
        await asyncio.gather(*tasks)
    finally:
        await batcher.stop()
    return np.array(spent)
