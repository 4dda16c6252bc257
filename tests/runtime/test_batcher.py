"""The queue between the event loop and the workers."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep, thread_time
from typing import Any

import pytest

from app.errors import DeadlineExceeded, Overloaded, StoodStill, Unavailable
from app.metrics import REGISTRY
from app.runtime import batcher as batcher_module
from app.runtime.batcher import Batcher, Priority, Ticket
from app.runtime.deadline import after_ms

Jobs = Sequence[list[int]]


def _double(jobs: Jobs) -> None:
    for job in jobs:
        job.append(job[0] * 2)


class _Gate:
    """A process that stands still until it is opened, and remembers what it was given."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.seen: list[list[int]] = []

    def __call__(self, jobs: Jobs) -> None:
        self.entered.set()
        assert self.opened.wait(10)
        self.seen.append([job[0] for job in jobs])
        _double(jobs)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 10)


def _batcher(process: Callable[[Jobs], None], **limits: int) -> Batcher[list[int]]:
    batcher = Batcher(process, **{"workers": 1, "max_batch": 8, "max_waiting": 16, **limits})
    batcher.start()
    return batcher


async def test_a_job_comes_back_processed() -> None:
    """The plain case."""
    batcher, job = _batcher(_double), [21]
    await batcher.run(job, deadline=after_ms(5000))
    assert job == [21, 42]
    await batcher.stop()


async def _step(batcher: Batcher[list[int]], *jobs: list[int]) -> list[Ticket[list[int]]]:
    """One turn of the loop, in which it stands still for the first batch of these."""
    await _until(lambda: batcher._idle > 0)
    tickets = [batcher.run_in_step(job, after_ms(5000)) for job in jobs]
    await asyncio.sleep(0)
    return tickets


async def test_the_loop_stands_still_for_searches_while_a_worker_rests() -> None:
    """For all that joined in a turn of the loop, as one batch; what it raised reaches all of them."""
    taken: list[int] = []

    def fails(jobs: Jobs) -> None:
        taken.append(len(jobs))
        raise ValueError("no")

    batcher = _batcher(_double)
    tickets = await _step(batcher, [21], [4])
    assert [ticket.job for ticket in tickets] == [[21, 42], [4, 8]] and all(ticket.done for ticket in tickets)
    for ticket in tickets:
        await batcher.wait(ticket, after_ms(5000))
    await batcher.stop()
    batcher = _batcher(fails)
    for ticket in await _step(batcher, [1], [2]):
        with pytest.raises(ValueError, match="no"):
            await batcher.wait(ticket, after_ms(5000))
    assert taken == [2]
    await batcher.stop()


async def test_who_is_alone_waits_for_nobody_to_join() -> None:
    """Done when the call comes back, unless others have joined already."""
    batcher = _batcher(_double)
    await _until(lambda: batcher.resting)
    ticket = batcher.run_in_step([21], after_ms(5000), alone=True)
    assert ticket.done and ticket.job == [21, 42]
    first, second = (batcher.run_in_step([number], after_ms(5000), alone=number == 2) for number in (1, 2))
    assert not first.done and not second.done
    await batcher.wait(second, after_ms(5000))
    assert first.done
    await batcher.stop()


async def test_the_loop_runs_by_itself_what_is_short() -> None:
    """As one batch, where all of it may be run so; else a worker does. What it raised reaches all of them."""
    loop, seen = threading.current_thread(), list[tuple[bool, int]]()

    def noted(jobs: Jobs) -> None:
        seen.append((threading.current_thread() is loop, len(jobs)))
        _double(jobs)
        if jobs[0][0] == 5:
            raise ValueError("no")

    batcher = _batcher(noted)
    for numbers, here in (((1, 2), (True, True)), ((3, 4), (True, False)), ((5, 6), (True, True))):
        await _until(lambda: batcher.resting)
        given = zip(numbers, here, strict=True)
        tickets = [batcher.run_in_step([number], after_ms(5000), here=short) for number, short in given]
        await asyncio.sleep(0)
        assert [(ticket.done, ticket.job) for ticket in tickets] == [(True, [n, 2 * n]) for n in numbers]
    assert seen == [(True, 2), (False, 2), (True, 2)]
    for ticket in tickets:
        with pytest.raises(ValueError, match="no"):
            await batcher.wait(ticket, after_ms(5000))
    await batcher.stop()


async def test_a_worker_that_another_was_quicker_than_is_woken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop has chosen it for a step, and finds the step over before it could wake it."""
    real = Batcher._stand_still

    def after_the_other(self: Any, step: Any, patience_s: float, first: Any) -> None:
        assert first is not None
        with self._lock:
            self._wake(1)
        while step.left:
            sleep(0.001)
        real(self, step, patience_s, first)

    batcher = _batcher(_double, workers=2)
    await _until(lambda: len(batcher._sleepers) == 2)
    monkeypatch.setattr(Batcher, "_stand_still", after_the_other)
    ticket = batcher.run_in_step([1], after_ms(5000), alone=True)
    await batcher.wait(ticket, after_ms(5000))
    assert ticket.job == [1, 2]
    await _until(lambda: len(batcher._sleepers) == 2)
    await batcher.stop()


async def test_the_loop_runs_nothing_beside_a_worker() -> None:
    """Two threads that are busy at once take the interpreter from each other; and the first that is free lets it."""
    gate = _Gate()
    batcher = _batcher(gate)
    await _until(lambda: batcher._idle > 0)
    first = batcher.submit([1])
    await gate.reached()
    second = batcher.run_in_step([2], after_ms(5000), alone=True, here=True)
    await asyncio.sleep(0.05)
    assert not second.done
    gate.opened.set()
    await batcher.wait(second, after_ms(5000))
    assert first.job == [1, 2] and second.job == [2, 4] and gate.seen == [[1], [2]]
    await batcher.stop()


async def test_what_joins_beyond_a_batch_is_answered_after_it() -> None:
    """The loop comes round between two batches, so that the first are answered."""
    batcher = _batcher(_double, max_batch=2)
    tickets = await _step(batcher, [1], [2], [3])
    assert [ticket.done for ticket in tickets] == [True, True, False] and batcher.load().waiting == 1
    await batcher.wait(tickets[2], after_ms(5000))
    assert tickets[2].job == [3, 6] and not batcher.load().waiting
    await batcher.stop()


async def test_a_step_that_nobody_waits_for_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tickets are dropped, and the loop goes on at once; a full step refuses, one that is stopped fails."""
    monkeypatch.setattr(batcher_module, "_STANDS_STILL_S", 5.0)
    batcher, began = _batcher(_double, max_waiting=2), monotonic()
    await _until(lambda: batcher.resting)
    left = [batcher.run_in_step([number], after_ms(5000)) for number in (1, 2)]
    with pytest.raises(Overloaded):
        batcher.run_in_step([3], after_ms(5000))
    for ticket in left:
        ticket.abandoned = True
    await asyncio.sleep(0)
    assert [ticket.job for ticket in left] == [[1], [2]]
    assert monotonic() - began < 2
    waits = batcher.run_in_step([4], after_ms(5000))
    await batcher.stop()
    with pytest.raises(Unavailable):
        await batcher.wait(waits, after_ms(5000))
    with pytest.raises(Unavailable):
        batcher.run_in_step([5], after_ms(5000))


async def test_the_loop_stands_still_beside_a_worker_that_is_at_a_search() -> None:
    """As long as another rests."""
    gate = _Gate()

    def process(jobs: Jobs) -> None:
        (gate if jobs[0][0] < 0 else _double)(jobs)

    batcher = _batcher(process, workers=2, max_batch=1)
    long = batcher.submit([-1])
    await gate.reached()
    (ticket,) = await _step(batcher, [2])
    assert ticket.done and not long.done
    gate.opened.set()
    await batcher.wait(long, after_ms(5000))
    await batcher.stop()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_step_waits_for_a_worker(workers: int) -> None:
    """While all are at something the loop goes on; the first that is free asks for what has joined, as one batch, after
    those in the queue that came before and before those that came after."""
    gates = [_Gate() for _ in range(workers)]
    seen: list[list[int]] = []

    def process(jobs: Jobs) -> None:
        if jobs[0][0] < 0:
            gates[jobs[0][0]](jobs)
        else:
            seen.append([job[0] for job in jobs])
            _double(jobs)

    batcher = _batcher(process, workers=workers, max_batch=4)
    busy = []
    for number in range(workers):
        busy.append(batcher.submit([-1 - number]))
        await gates[-1 - number].reached()
    tickets = [batcher.submit([1])]
    tickets += [batcher.run_in_step([number], after_ms(5000)) for number in (2, 3)]
    tickets.append(batcher.submit([4]))
    await asyncio.sleep(0.02)
    assert not any(ticket.done for ticket in tickets) and batcher.load().waiting == 4 and not seen
    gates[0].opened.set()
    for ticket in tickets:
        await batcher.wait(ticket, after_ms(5000))
    assert seen == [[1], [2, 3], [4]] or seen == [[1, 4], [2, 3]]
    for gate in gates:
        gate.opened.set()
    for ticket in busy:
        await batcher.wait(ticket, after_ms(5000))
    await batcher.stop()


@pytest.mark.parametrize("drops", [False, True])
async def test_who_waited_behind_one_that_left_is_not_forgotten(drops: bool) -> None:
    """A search in step came first, so that the free worker asks for the loop, and then nobody waits for it any more:
    what stands in the queue behind it goes on by itself, and so do those that come."""
    gate = _Gate()
    batcher = _batcher(gate, max_batch=2, max_waiting=3)
    first = batcher.submit([0])
    await gate.reached()
    left = batcher.run_in_step([1], after_ms(5000))
    behind = batcher.submit([2])
    await asyncio.sleep(0.01)
    left.abandoned = True
    gate.opened.set()
    if drops:
        _let_idle(batcher, 1)
        batcher._drop_abandoned(Priority.SEARCH)
    await batcher.wait(behind, after_ms(1000))
    await batcher.wait(first, after_ms(1000))
    after = batcher.run_in_step([3], after_ms(1000))
    await batcher.wait(after, after_ms(1000))
    assert gate.seen == [[0], [2], [3]] and batcher.resting
    await batcher.stop()


def _let_idle(batcher: Batcher[list[int]], workers: int) -> None:
    """Until so many rest, without a turn of the loop."""
    until = monotonic() + 5
    while batcher._idle < workers and monotonic() < until:
        time.sleep(0.001)


async def test_all_workers_that_waited_for_a_step_are_woken() -> None:
    """One takes the step, and hangs at it; the other takes what stands in the queue behind it."""
    gates = _Gate(), _Gate()
    hangs = threading.Event()

    def process(jobs: Jobs) -> None:
        if jobs[0][0] < 0:
            gates[jobs[0][0]](jobs)
        elif jobs[0][0] == 1:
            assert hangs.wait(10)
        else:
            _double(jobs)

    batcher = _batcher(process, workers=2, max_batch=4)
    for number in (1, 2):
        batcher.submit([-number])
        await gates[-number].reached()
    ticket = batcher.run_in_step([1], after_ms(5000))
    behind = [batcher.submit([number]) for number in (2, 3)]
    await asyncio.sleep(0.01)
    for gate in gates:
        gate.opened.set()
    _let_idle(batcher, 2)  # both ask for the loop before it comes
    for one in behind:
        await batcher.wait(one, after_ms(1000))
    assert not ticket.done
    hangs.set()
    await batcher.wait(ticket, after_ms(1000))
    await batcher.stop()


async def test_those_who_left_a_step_are_not_begun() -> None:
    """They take nobody's place in the batch either, and a full step has room again."""
    gate = _Gate()
    batcher = _batcher(gate, max_batch=2, max_waiting=4)
    first = batcher.submit([0])
    await gate.reached()
    tickets = [batcher.run_in_step([number], after_ms(5000)) for number in range(1, 5)]
    for ticket in tickets[:2]:
        ticket.abandoned = True
    tickets += [batcher.run_in_step([number], after_ms(5000)) for number in (5, 6)]
    with pytest.raises(Overloaded):
        batcher.run_in_step([7], after_ms(5000))
    tickets[3].abandoned = True
    gate.opened.set()
    for ticket in (first, tickets[2], *tickets[4:]):
        await batcher.wait(ticket, after_ms(5000))
    assert gate.seen == [[0], [3, 5], [6]]
    await batcher.stop()


async def test_bulk_work_gets_a_slice_now_and_then_however_many_search() -> None:
    """In step, in the queue, or both: the queue is never empty."""
    for kinds in (("run_in_step",), ("submit",), ("run_in_step", "submit")):
        process = _Bulk()
        batcher = _batcher(process, workers=1, max_batch=2, max_waiting=500)
        bulk = [
            asyncio.create_task(batcher.run([-1], deadline=after_ms(30_000), priority=Priority.BULK)) for _ in range(3)
        ]
        until, left = monotonic() + 5, 0
        tickets: deque[Ticket[list[int]]] = deque()
        while not all(task.done() for task in bulk) and monotonic() < until:
            while len(tickets) < 20:
                if kinds[left % len(kinds)] == "submit":
                    tickets.append(batcher.submit([1]))
                else:
                    tickets.append(batcher.run_in_step([1], after_ms(5000)))
                left += 1
            await asyncio.sleep(0)
            while tickets and tickets[0].done:
                tickets.popleft()
            assert batcher.load().waiting
        assert all(task.done() for task in bulk), kinds
        await batcher.stop()


async def test_the_loop_does_not_stand_still_for_ever() -> None:
    """A search that takes longer than the loop's patience is a ticket as any other, and nobody rests meanwhile."""
    gate = _Gate()
    batcher, began = _batcher(gate), monotonic()
    (ticket,) = await _step(batcher, [21])
    assert not ticket.done and monotonic() - began < 2 and not batcher.resting
    with pytest.raises(DeadlineExceeded):
        await batcher.wait(ticket, after_ms(50))
    ticket.abandoned = False
    gate.opened.set()
    await batcher.wait(ticket, after_ms(5000))
    assert ticket.job == [21, 42]
    await _until(lambda: batcher.resting)
    await batcher.stop()


class _Large(list[int]):
    """A job that can be referred to weakly."""


async def test_an_idle_worker_keeps_no_job_alive() -> None:
    """What a job refers to (a whole version of the catalogue) goes when its caller is done with it."""
    batcher, job = _batcher(_double), _Large([21])
    await batcher.run(job, deadline=after_ms(5000))
    left = weakref.ref(job)
    del job
    for _ in range(200):
        if left() is None:
            break
        await asyncio.sleep(0.01)
    assert left() is None
    await batcher.stop()


async def test_a_step_leaves_no_garbage() -> None:
    """A job goes with its ticket, without a collection."""
    batcher, job = _batcher(_double), _Large([21])
    gc.collect()
    gc.disable()
    try:
        (ticket,) = await _step(batcher, job)
        left = weakref.ref(job)
        await _until(lambda: batcher.resting)
        assert left() is job
        del job, ticket
        assert left() is None
    finally:
        gc.enable()
    await batcher.stop()


@pytest.mark.promise("B3", "searches go before bulk work that waited longer", control="the bulk work waited first")
async def test_searches_go_before_bulk_work_that_waited_longer() -> None:
    """Priority beats age."""
    gate = _Gate()
    batcher = _batcher(gate)
    first = asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))
    await gate.reached()
    bulk = asyncio.create_task(batcher.run([1], deadline=after_ms(5000), priority=Priority.BULK))
    await asyncio.sleep(0)
    search = asyncio.create_task(batcher.run([2], deadline=after_ms(5000)))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, bulk, search)
    assert gate.seen == [[0], [2], [1]]
    await batcher.stop()


async def test_what_waits_together_is_taken_together_up_to_the_budget() -> None:
    """Batches grow under load, never beyond max_batch."""
    gate = _Gate()
    batcher = _batcher(gate, max_batch=4)
    tasks = [asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))]
    await gate.reached()
    tasks += [asyncio.create_task(batcher.run([number], deadline=after_ms(5000))) for number in range(1, 7)]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(*tasks)
    assert gate.seen == [[0], [1, 2, 3, 4], [5, 6]]
    await batcher.stop()


async def test_a_full_queue_refuses_at_once() -> None:
    """Never queue without bound."""
    gate = _Gate()
    batcher = _batcher(gate, max_waiting=2)
    tasks = [asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))]
    await gate.reached()
    tasks += [asyncio.create_task(batcher.run([number], deadline=after_ms(5000))) for number in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        batcher.submit([3])
    gate.opened.set()
    await asyncio.gather(*tasks)
    await batcher.stop()


async def test_those_who_left_keep_nobody_out() -> None:
    """A full queue of tickets that nobody waits for any more has room; one of tickets that are waited for has not."""
    gate = _Gate()
    batcher = _batcher(gate, max_waiting=2)
    first = asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))
    await gate.reached()
    for number in (1, 2):
        with pytest.raises(DeadlineExceeded):
            await batcher.run([number], deadline=after_ms(5))
    kept = [asyncio.create_task(batcher.run([number], deadline=after_ms(5000))) for number in (3, 4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        batcher.submit([5])
    gate.opened.set()
    await asyncio.gather(first, *kept)
    assert gate.seen == [[0], [3, 4]]
    await batcher.stop()


async def test_a_caller_is_answered_at_its_deadline_though_the_worker_hangs() -> None:
    """A stuck worker costs a caller its deadline, not more."""
    gate = _Gate()
    batcher = _batcher(gate)
    with pytest.raises(DeadlineExceeded):
        await batcher.run([1], deadline=after_ms(20))
    gate.opened.set()
    await batcher.stop()


@pytest.mark.promise("B5", "work that nobody awaits is not done")
async def test_work_that_nobody_awaits_any_more_is_not_done() -> None:
    """Expired and abandoned tickets are dropped before work begins; the one that is still awaited is done (control)."""
    gate = _Gate()
    batcher = _batcher(gate)
    first = asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))
    await gate.reached()
    abandoned = asyncio.create_task(batcher.run([1], deadline=after_ms(5000)))
    wanted = asyncio.create_task(batcher.run([2], deadline=after_ms(5000)))
    with pytest.raises(DeadlineExceeded):
        await batcher.run([3], deadline=after_ms(5))
    abandoned.cancel()
    await asyncio.gather(abandoned, return_exceptions=True)
    gate.opened.set()
    await asyncio.gather(first, wanted)
    assert gate.seen == [[0], [2]]
    await batcher.stop()


async def test_one_waiter_giving_up_does_not_end_the_work_for_the_other() -> None:
    """Two callers share a ticket; the first leaves."""
    gate = _Gate()
    batcher = _batcher(gate)
    blocker = asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))
    await gate.reached()
    job = [5]
    ticket = batcher.submit(job)
    leaver = asyncio.create_task(batcher.wait(ticket, after_ms(5000)))
    stayer = asyncio.create_task(batcher.wait(ticket, after_ms(5000)))
    await asyncio.sleep(0)
    leaver.cancel()
    gate.opened.set()
    await asyncio.gather(blocker, stayer)
    assert job == [5, 10]
    await batcher.stop()


async def test_an_error_reaches_every_waiter_of_the_batch() -> None:
    """What process raises is the caller's to see."""

    def fail(jobs: Jobs) -> None:
        raise ValueError("broken")

    batcher = _batcher(fail)
    with pytest.raises(ValueError, match="broken"):
        await batcher.run([1], deadline=after_ms(5000))
    with pytest.raises(ValueError, match="broken"):
        await batcher.run([2], deadline=after_ms(5000))
    await batcher.stop()


async def test_stopping_fails_what_waits_and_refuses_what_comes() -> None:
    """No caller is left hanging."""
    gate = _Gate()
    batcher = _batcher(gate)
    running = asyncio.create_task(batcher.run([0], deadline=after_ms(5000)))
    await gate.reached()
    waiting = asyncio.create_task(batcher.run([1], deadline=after_ms(5000)))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(batcher.stop())
    with pytest.raises(Unavailable):
        await waiting
    gate.opened.set()
    await asyncio.gather(running, stopping)
    with pytest.raises(Unavailable):
        batcher.submit([2])


class _Stall:
    """A process that stands still on odd jobs until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.still = 0

    def __call__(self, jobs: Jobs) -> None:
        if any(job[0] % 2 for job in jobs):
            self.still += 1
            assert self.opened.wait(30)
        _double(jobs)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks every 10 ms, a worker is stuck after 300 ms, and two may hang at once."""
    monkeypatch.setattr(batcher_module, "_LOOK_S", 0.01)
    monkeypatch.setattr(batcher_module, "STUCK_S", 0.3)
    monkeypatch.setattr(batcher_module, "MOST_GIVEN_UP", 2)


def _replaced() -> float:
    return REGISTRY.get_sample_value("aisle_workers_replaced_total") or 0.0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_while_every_worker_stands_still_another_takes_what_waits(quick: None) -> None:
    """Long before the stuck one is given up; it retires when that one comes back, and nothing was replaced."""
    stall, before = _Stall(), _replaced()
    batcher = _batcher(stall, max_batch=1)
    stuck = asyncio.create_task(batcher.run([1], deadline=after_ms(5000)))
    await _until(lambda: stall.still == 1)
    assert not batcher.resting
    job = [2]
    await batcher.run(job, deadline=after_ms(250))
    assert job == [2, 4] and not stuck.done() and batcher.load().workers == 1
    stall.opened.set()
    await stuck
    await _until(lambda: len(batcher._crew) == 1 and batcher.resting)
    assert _replaced() == before and not batcher.exhausted
    await batcher.stop()


async def test_a_stuck_worker_is_given_up_and_what_it_brings_back_counts_for_nothing(quick: None) -> None:
    """Its caller is told, not at its deadline of five seconds; others are served; later it comes back, to no harm."""
    stall, before = _Stall(), _replaced()
    batcher = _batcher(stall, max_batch=1)
    job = [1]
    started = monotonic()
    ticket = batcher.submit(job)
    with pytest.raises(StoodStill):
        await batcher.wait(ticket, after_ms(5000))
    assert 0.2 < monotonic() - started < 2
    assert _replaced() == before + 1
    await batcher.run([2], deadline=after_ms(1000))
    await _until(lambda: batcher.load().workers == 1 and batcher.resting)
    stall.opened.set()
    await _until(lambda: not batcher._given_up)
    assert job == [1, 2], "it did come back"
    assert isinstance(ticket.error, StoodStill)
    await batcher.run([4], deadline=after_ms(1000))
    assert len(batcher._crew) == 1
    await batcher.stop()


async def test_so_many_may_hang_and_no_more(quick: None) -> None:
    """Past the bound a stuck worker keeps its place and the batcher says so; when they come back, all is as before."""
    stall, threads = _Stall(), threading.active_count()
    batcher = _batcher(stall, max_batch=1)
    tasks = [asyncio.create_task(batcher.run([number], deadline=after_ms(4000))) for number in (1, 3, 5, 7)]
    await _until(lambda: batcher.exhausted and batcher.hesitating)
    await asyncio.sleep(0.5)
    assert threading.active_count() <= threads + 1 + 1 + 2, "configured, standing in, given up"
    with pytest.raises(DeadlineExceeded):
        await batcher.run([2], deadline=after_ms(50))
    stall.opened.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _until(lambda: not batcher.exhausted and batcher.resting and len(batcher._crew) == 1)
    await batcher.run([4], deadline=after_ms(1000))
    await batcher.stop()


async def test_a_stop_of_the_process_is_no_workers_fault(quick: None) -> None:
    """The loop was held up for longer than the bound, as by a suspended machine: nobody is given up."""
    before = _replaced()
    batcher = _batcher(lambda jobs: time.sleep(0.1), max_batch=1)
    running = asyncio.create_task(batcher.run([2], deadline=after_ms(5000)))
    await asyncio.sleep(0.02)
    time.sleep(0.6)  # noqa: ASYNC251  (the fault: the loop is held up)
    await running
    assert _replaced() == before
    await batcher.stop()


class _Bulk:
    """Slices of 10 ms (a job below 0), `busy_s` of it at work, searches of 1 ms; counts how many slices run at once."""

    def __init__(self, busy_s: float = 0.0) -> None:
        self._lock = threading.Lock()
        self.running = self.most = self.slices = 0
        self._busy_s = busy_s

    def __call__(self, jobs: Jobs) -> None:
        for job in jobs:
            bulk = job[0] < 0
            with self._lock:
                self.running += bulk
                self.most = max(self.most, self.running)
            until = thread_time() + self._busy_s * bulk
            while thread_time() < until:
                pass
            time.sleep(0.01 - self._busy_s if bulk else 0.001)
            with self._lock:
                self.running -= bulk
                self.slices += bulk


@pytest.mark.parametrize(("busy_s", "most"), [(0.01, 13), (0.0, 55)])
async def test_bulk_work_rests_between_slices_while_searches_come(busy_s: float, most: int) -> None:
    """One slice at a time, a ninth of a core's time, or half of the time where a device does the work; alone it has all
    workers, and it never starves."""
    process = _Bulk(busy_s)
    batcher = _batcher(process, workers=2, max_batch=1, max_waiting=500)
    waiting = [
        asyncio.create_task(batcher.run([-1], deadline=after_ms(30_000), priority=Priority.BULK)) for _ in range(60)
    ]
    await batcher.run([0], deadline=after_ms(5000))
    await _until(lambda: not process.running)
    before, process.most, began = process.slices, 0, monotonic()
    while monotonic() < began + 1.0:
        await batcher.run([1], deadline=after_ms(5000))
        await asyncio.sleep(0.002)
    beside = process.slices - before
    assert process.most == 1
    assert 2 <= beside <= most, "its share of the time, less on a busy machine"
    began = monotonic()
    await asyncio.gather(*waiting)
    assert process.most == 2, "nobody searches: both take part"
    await batcher.stop()


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_loop_stands_still_for_bulk_work_while_searches_come(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns of the loop during slices: none beside searches, many where nobody searches, or where a slice takes longer
    than the loop's patience."""
    monkeypatch.setattr(batcher_module, "_STANDS_STILL_FOR_BULK_S", 5.0)
    turns, inside = 0, []

    def process(jobs: Jobs) -> None:
        before = turns
        time.sleep(0.004)
        if jobs[0][0] < 0:
            inside.append(turns - before)
        _double(jobs)

    async def slices(count: int, *, beside: bool) -> list[int]:
        """Turns in each of so many that began after the first search."""
        nonlocal turns
        if beside:
            await batcher.run([1], deadline=after_ms(5000))
        inside.clear()
        bulk = [
            asyncio.create_task(batcher.run([-1], deadline=after_ms(9000), priority=Priority.BULK))
            for _ in range(count)
        ]
        searched = monotonic()
        while not all(task.done() for task in bulk):
            turns += 1
            if beside and monotonic() > searched + 0.02:
                await batcher.run([1], deadline=after_ms(5000))
                searched = monotonic()
            await asyncio.sleep(0)
        await asyncio.gather(*bulk)
        return inside

    batcher = _batcher(process, workers=workers, max_batch=1, max_waiting=500)
    assert set(await slices(6, beside=True)) == {0}
    monkeypatch.setattr(batcher_module, "_STANDS_STILL_FOR_BULK_S", 0.001)
    assert min(await slices(6, beside=True)) > 0
    await asyncio.sleep(0.15)
    assert min(await slices(6, beside=False)) > 0
    await batcher.stop()


async def test_a_slice_that_nobody_waits_for_leaves_no_rest_behind() -> None:
    """And one that is given up neither: bulk work goes on beside searches that never cease."""
    process = _Bulk()
    batcher = _batcher(process, workers=1, max_batch=1, max_waiting=500)
    for _ in range(5):
        left = asyncio.create_task(batcher.run([-1], deadline=after_ms(5000), priority=Priority.BULK))
        await asyncio.sleep(0)
        left.cancel()
    wanted = asyncio.create_task(batcher.run([-1], deadline=after_ms(5000), priority=Priority.BULK))
    until = monotonic() + 3
    while not wanted.done() and monotonic() < until:
        await batcher.run([1], deadline=after_ms(5000))
    assert wanted.done()
    await batcher.stop()


async def test_a_slice_that_took_long_keeps_the_others_for_a_moment_only() -> None:
    """Eight times as long as half a second would be four."""
    slept = iter([0.5])
    done: list[float] = []

    def process(jobs: Jobs) -> None:
        time.sleep(next(slept, 0.0) if jobs[0][0] < 0 else 0.001)
        if jobs[0][0] < 0:
            done.append(monotonic())

    batcher = _batcher(process, workers=1, max_batch=1, max_waiting=500)
    waiting = [
        asyncio.create_task(batcher.run([-1], deadline=after_ms(30_000), priority=Priority.BULK)) for _ in range(2)
    ]
    until = monotonic() + 6
    while len(done) < 2 and monotonic() < until:
        await batcher.run([1], deadline=after_ms(5000))
    assert len(done) == 2 and done[1] - done[0] < 2
    await asyncio.gather(*waiting)
    await batcher.stop()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_everybody_is_told(workers: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of searches in step and in the queue, bulk work among them; some raise, some are cancelled or late, and
    the loop loses patience with some. Each ends once, rightly, and in the end nothing waits and nobody works."""
    monkeypatch.setattr(batcher_module, "_STANDS_STILL_S", 0.004)
    chance = random.Random(seed)

    def process(jobs: Jobs) -> None:
        time.sleep(chance.choice((0.0, 0.0, 0.0005, 0.002, 0.008)))
        if any(job[0] % 17 == 0 for job in jobs):
            raise ValueError("no")
        _double(jobs)

    batcher = _batcher(process, workers=workers, max_batch=4, max_waiting=64)
    ends: dict[str, int] = {}

    async def one(number: int) -> None:
        await asyncio.sleep(chance.random() * 0.3)
        deadline = after_ms(chance.choice((3.0, 30.0, 5000.0)))
        job = [number]
        try:
            if chance.random() < 0.6:
                await batcher.wait(batcher.run_in_step(job, deadline), deadline)
            else:
                await batcher.run(job, deadline=deadline, priority=chance.choice(list(Priority)))
        except (DeadlineExceeded, Overloaded, ValueError) as error:
            end = type(error).__name__
        else:
            end = "done"
            assert job == [number, 2 * number]
        ends[end] = ends.get(end, 0) + 1

    tasks = [asyncio.create_task(one(number)) for number in range(1, 601)]
    await asyncio.sleep(0.1)
    cancelled = [task for task in tasks if chance.random() < 0.05 and task.cancel()]
    told = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert [error for error in told if error is not None and not isinstance(error, asyncio.CancelledError)] == []
    assert cancelled and ends["done"] > 50 and ends["ValueError"] and ends["DeadlineExceeded"]
    await _until(lambda: batcher.resting)
    await batcher.run([1], deadline=after_ms(5000))
    await batcher.stop()
