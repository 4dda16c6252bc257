"""One queue with two priorities between the event loop and the worker threads.

A ticket makes at most one hop. A worker takes what waits, up to a budget and never on a timer: idle means a batch of
one with no added wait; under load batches grow by themselves. Loop and workers take turns where they can: two threads
that are busy at once take the one interpreter from each other. Searches go before bulk work, which runs in small
slices, and while searches come one slice at a time with rests between. Several callers may wait for one ticket, each
until its own deadline; a ticket that nobody waits for any more is dropped before work begins.

A thread that stands still cannot be ended. While all of them do, one more takes what waits. One that has been at a
batch for STUCK_S is given up: its callers are told, another takes its place, and what it brings back later counts for
nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import partial
from time import thread_time
from typing import Generic, TypeVar

from app import metrics
from app.alarms import alarms
from app.errors import DeadlineExceeded, Overloaded, StoodStill, Unavailable
from app.runtime.baton import Baton, baton
from app.runtime.cores import Tether, anywhere, this_core
from app.runtime.deadline import after_ms, left_s, now
from app.runtime.watch import PATIENCE_S
from app.types import record

Job = TypeVar("Job")


STUCK_S = 3.0
"""Longer than any honest batch, bulk slices included, which should take a few milliseconds."""
MOST_GIVEN_UP = 8
"""Threads that may hang at once; from then on nobody takes their places, and the process is not ready."""
# While searches come: from the latest on for so long, bulk work rests so many times as long as its slice used a core,
# and as long at least as it took: its share of the interpreter is the same whatever it waited for. At most a moment:
# one slice that hung for seconds must not keep the others, golden queries among them, for a minute. At least for one,
# as each slice takes the loop as well. Then it waits until no search is under way, for a while at most, and what it
# waited shortens its next rest. The loop stands still for a slice, too, unless it would take longer than a moment.
_SEARCHES_COME_S = 0.1
_RESTS = 7
_LEAST_REST_S = 0.004
_LONGEST_REST_S = 0.25
_WAITS_S = 0.05
_LEAST_WAIT_S = 0.001
_STANDS_STILL_S = 0.02  # the loop at most; where a stage does, once for each worker: then none is free
_STANDS_STILL_FOR_BULK_S = 0.002
# Looks are counted rather than seconds: while a process is stopped, or its loop held up, no worker can be blamed.
_LOOK_S = 0.1
_HESITATING_LOOKS = 2
_log = logging.getLogger("aisle.batcher")


class Priority(IntEnum):
    SEARCH = 0
    BULK = 1


@record()
class Load:
    """Searches that wait, and workers to serve them."""

    waiting: int = 0
    workers: int = 1


IDLE = Load()
_LABEL = {Priority.SEARCH: "search", Priority.BULK: "bulk"}


class Ticket(Generic[Job]):
    """A job's place in the queue, and those who wait for it."""

    __slots__ = ("abandoned", "deadline", "done", "error", "here", "job", "number", "priority", "step", "waiters")

    def __init__(
        self, job: Job, priority: Priority, number: int, deadline: float = math.inf, *, here: bool = False
    ) -> None:
        self.job = job
        self.here = here  # the loop may run it by itself
        self.priority = priority
        self.number = number  # in the order in which they came
        self.deadline = deadline  # until when the loop may stand still for it
        self.waiters: list[asyncio.Future[None]] = []
        self.abandoned = False  # set when the last waiter has left; before the first has come it is still wanted
        self.done = False
        self.error: BaseException | None = None
        self.step: _Step[Job] | None = None


class _Step(Generic[Job]):
    """Tickets that the loop stands still for: how many are not over yet, and what it has to tell whom."""

    __slots__ = ("deadlines", "left", "lost", "told")

    def __init__(self, tickets: Sequence[Ticket[Job]]) -> None:
        self.left = len(tickets)
        self.deadlines = [ticket.deadline for ticket in tickets]
        for ticket in tickets:
            ticket.step = self
        self.lost = False  # the loop has lost patience: what ends from now on is sent to it
        self.told: list[tuple[Ticket[Job], BaseException | None]] = []


class _Worker(Generic[Job]):
    """A thread, the batch it is at (empty: it waits), and how often it was seen at it."""

    __slots__ = ("batch", "baton", "looks", "owes", "tether", "thread")

    def __init__(self, work: Callable[[_Worker[Job]], None], number: int) -> None:
        self.batch: Sequence[Ticket[Job]] = ()
        self.looks = 0
        self.baton = baton()
        self.owes: Baton | None = None  # to the loop, which stands still for what has just ended
        self.thread = threading.Thread(target=work, args=(self,), name=f"aisle-worker-{number}", daemon=True)
        self.tether = Tether(self.thread)


class Batcher(Generic[Job]):
    """Runs jobs in worker threads. `process` gets a list of jobs of one priority and leaves each one's result in the
    job itself; what it raises fails all jobs of that list. All methods belong to the event loop's thread."""

    def __init__(
        self, process: Callable[[Sequence[Job]], None], *, workers: int, max_waiting: int, max_batch: int = 0
    ) -> None:
        self._process = process
        self._workers = workers
        self._max_batch = max_batch  # 0: as `start` says
        self._max_waiting = max_waiting
        self._waiting: tuple[deque[Ticket[Job]], deque[Ticket[Job]]] = (deque(), deque())
        self._next_step: deque[Ticket[Job]] = deque()
        self._step_due = self._stands = False  # the loop will come to it; it stands still for one
        self._idle = 0
        self._lock = threading.Lock()
        self._sleepers: list[_Worker[Job]] = []  # those of the idle that nobody has woken yet
        self._over = baton()  # the loop's, which stands still
        self._crew: list[_Worker[Job]] = []
        self._given_up: list[_Worker[Job]] = []
        self._numbers, self._tickets = itertools.count(), itertools.count()
        self._still_looks = self._quiet_looks = self._finished = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._searched_at = -math.inf  # when a search was taken last
        self._bulk_from = 0.0  # when the next bulk slice may begin, beside searches
        self._bulk_due = 0.0  # when the one under way might have begun
        self._bulk_since = 0.0  # when the last one began, or since when one waits
        self._bulk_may = False  # the loop stands still for one
        self._bulk_is_long = False  # the last one was: the loop would stand still in vain
        self._most: Callable[[], int] | None = None
        self._sizes = {priority: metrics.BATCH_SIZE.labels(_LABEL[priority]) for priority in Priority}
        self._skipped = metrics.SKIPPED.labels("abandoned")
        self._depths = {priority: metrics.QUEUE_WAITING.labels(_LABEL[priority]) for priority in Priority}
        self._shown = dict.fromkeys(Priority, 0)
        self.exhausted = False
        """Whether as many threads hang as may: then one that stands still keeps its place."""

    def start(
        self, *, max_batch: int = 1, most: Callable[[], int] | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        """Start the workers. `max_batch` is what a worker takes at most where the constructor was not told; `most`
        says each time how many will do, and one always does. Longer than `patience_s` at one batch, a worker stands
        still."""
        self._max_batch = self._max_batch or max_batch
        self._most = most
        self._still_looks = 2 + round(patience_s / _LOOK_S)  # certainly after the watches of its stages say so
        self._loop = asyncio.get_running_loop()
        for _ in range(self._workers):
            self._add_worker()
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    async def stop(self) -> None:
        """Finish what runs, fail what waits, end the workers."""
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._stopping = True
            left = [ticket for queue in (*self._waiting, self._next_step) for ticket in queue]
            self._next_step.clear()
            for priority in Priority:
                self._waiting[priority].clear()
                self._show_depth(priority)
            self._wake(len(self._sleepers))
            threads = [worker.thread for worker in self._crew]
        _settle(left, Unavailable("the service is stopping"))
        await asyncio.to_thread(_join, threads)

    def _add_worker(self) -> None:
        worker = _Worker(self._work, next(self._numbers))
        self._crew.append(worker)
        worker.thread.start()

    # ---------------------------------------------------------------- those who stand still

    def _look(self) -> None:
        """Ten times a second, on the loop."""
        assert self._loop is not None
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        with self._lock:
            for worker in self._crew:
                worker.looks += bool(worker.batch)
            busy = all(worker.batch for worker in self._crew) and not self._finished
            self._quiet_looks, self._finished = (self._quiet_looks + 1 if busy else 0), 0
            stuck = [worker for worker in self._crew if worker.looks > STUCK_S / _LOOK_S]
            lost = [ticket for worker in stuck for ticket in self._give_up(worker)]
            waits = self._waiting[0] or self._waiting[1] or self._next_step
            if waits and len(self._crew) == self._workers and not self._able():
                self._add_worker()
        _settle(lost, StoodStill("what worked at this stood still, and was given up"))

    def _give_up(self, worker: _Worker[Job]) -> Sequence[Ticket[Job]]:
        if len(self._given_up) >= MOST_GIVEN_UP:
            return ()
        self._crew.remove(worker)
        self._given_up.append(worker)
        self._bulk_from = 0.0  # it may have been at bulk work, which others must not wait for
        self.exhausted = len(self._given_up) >= MOST_GIVEN_UP
        metrics.WORKERS_REPLACED.inc()
        _log.error("%s has been at one batch for %.0f s and is replaced", worker.thread.name, STUCK_S)
        if len(self._crew) < self._workers:
            self._add_worker()
        return worker.batch

    def _able(self) -> int:
        """Workers that do not stand still."""
        return sum(worker.looks < self._still_looks for worker in self._crew)

    @property
    def hesitating(self) -> bool:
        """Whether no worker has finished a batch for a tenth of a second though each is at one."""
        return self._quiet_looks >= _HESITATING_LOOKS

    def submit(self, job: Job, priority: Priority = Priority.SEARCH) -> Ticket[Job]:
        """Queue a job. Raises Overloaded at once when too much waits already, Unavailable when stopping."""
        self._refuse_one_too_many(priority)
        queue, ticket = self._waiting[priority], Ticket(job, priority, next(self._tickets))
        with self._lock:
            if priority is Priority.BULK and not queue:
                self._bulk_since = now()
            queue.append(ticket)
            self._show_depth(priority)
            self._wake(1)
        return ticket

    def run_in_step(self, job: Job, deadline: float, *, alone: bool = False, here: bool = False) -> Ticket[Job]:
        """Queue a search that takes a moment. Once all have joined that the loop has read already, and a worker is
        free, the loop lets a batch run, and stands still until that is done; for a moment at most, then its tickets are
        as any others. A loop that goes on meanwhile takes the interpreter from the worker again and again: two threads
        that are busy at once answer fewer searches than one after the other. And what comes meanwhile makes the next
        batch, in which each stage finds its code and data warm. `alone`: nobody else is about to join, so at once.
        `here`: it cannot stall, and is short enough for the loop to run by itself, where all of its batch are; the hop
        to a worker and back takes a quarter of such a search. Raises as `submit` does."""
        assert self._loop is not None, "start() first"
        self._refuse_one_too_many(Priority.SEARCH)
        ticket = Ticket(job, Priority.SEARCH, next(self._tickets), deadline, here=here)
        with self._lock:
            # Those before it are seen to, by the loop or by the worker that they wait for.
            begins = not self._next_step and not self._step_due
            self._next_step.append(ticket)
            self._step_due = self._step_due or begins
            if not begins:
                self._show_depth(Priority.SEARCH)
        if begins and alone:
            self._step()
        elif begins:
            self._loop.call_soon(self._step)
        return ticket

    def _step(self) -> None:
        """On the loop, which has nothing else to do first. Where no worker is free, the next that is asks for it."""
        assert self._loop is not None
        with self._lock:
            self._step_due = self._bulk_may = here = False
            if not self._idle:
                return
            if self._bulk_is_due() and not self._bulk_is_long:
                tickets, patience_s = [self._waiting[Priority.BULK][0]], _STANDS_STILL_FOR_BULK_S
                self._bulk_may = True
            elif self._is_next_in_step():
                tickets, patience_s = self._pop_next_in_step(), _STANDS_STILL_S
                here = all(ticket.here for ticket in tickets)
                if not here:
                    self._waiting[Priority.SEARCH].extendleft(reversed(tickets))
            else:
                tickets = []
            # Workers that waited for this step may find that nobody waits for it any more, and others in the queue.
            wanted = len(self._waiting[Priority.SEARCH]) + self._bulk_may
            if not tickets:
                self._wake(wanted)
                return
            self._step_due = self._stands = True  # the loop sees to what comes meanwhile
            step = None if here else _Step(tickets)
            if step and len(self._crew) == 1:  # on the core that the loop leaves: no other need be woken
                self._crew[0].tether.hold(this_core())
            first = self._sleepers.pop() if step and self._sleepers else None
            self._wake(wanted - (first is not None))
        if step:
            self._stand_still(step, patience_s, None if first is None else first.baton)
        else:
            self._run_here(tickets)
        with self._lock:
            self._step_due = self._stands = False
            if self._next_step or self._bulk_is_due():
                self._step_due = True
                self._loop.call_soon(self._loop.call_soon, self._step)  # what has just ended is answered first

    def _pop_next_in_step(self) -> list[Ticket[Job]]:
        """Those that a batch has room for, without those that nobody waits for any more."""
        joined: list[Ticket[Job]] = []
        room = self._share(len(self._next_step))
        while self._next_step and len(joined) < room:
            ticket = self._next_step.popleft()
            if ticket.abandoned:
                self._skipped.inc()
            else:
                joined.append(ticket)
        return joined

    def _run_here(self, tickets: Sequence[Ticket[Job]]) -> None:
        self._searched_at = now()
        self._sizes[Priority.SEARCH].observe(len(tickets))
        error: BaseException | None = None
        try:
            self._process([ticket.job for ticket in tickets])
        except Exception as raised:  # noqa: BLE001  (as in a worker)
            error = raised
        _settle(tickets, error)

    def _stand_still(self, step: _Step[Job], patience_s: float, first: Baton | None) -> None:
        """Until the step is over; for so long at most, until the next deadline; then its tickets are as any others.
        `first`: of a worker that is woken by this."""
        began = now()
        until = min([began + patience_s, *(deadline for deadline in step.deadlines if deadline > began)])
        while step.left and (first is not None or now() < until):
            self._over.wait(until, giving=first)
            first = None
        if first is not None:  # another worker was quicker; this one is among the sleepers no more
            first.give()
        if step.left:
            with self._lock:
                step.lost = True
                if len(self._crew) == 1:
                    self._crew[0].tether.hold(-1)
        for ticket, error in step.told:
            _settle((ticket,), error)
        step.told.clear()  # a ticket knows its step: they would be garbage in a cycle

    def _refuse_one_too_many(self, priority: Priority) -> None:
        if self._stopping:
            raise Unavailable("the service is stopping")
        joined = len(self._next_step) if priority is Priority.SEARCH else 0
        if len(self._waiting[priority]) + joined >= self._max_waiting and not self._drop_abandoned(priority):
            metrics.REFUSED.labels("queue_full").inc()
            raise Overloaded("too many searches are waiting; try again shortly")

    def _drop_abandoned(self, priority: Priority) -> int:
        """Make room in a full queue: while workers stand still, those who left would keep out those who come."""
        dropped = 0
        with self._lock:
            for queue in (self._waiting[priority], self._next_step):
                wanted = [ticket for ticket in queue if not (ticket.abandoned and ticket.priority is priority)]
                dropped += len(queue) - len(wanted)
                queue.clear()
                queue.extend(wanted)
            self._show_depth(priority)
        self._skipped.inc(dropped)
        return dropped

    async def wait(self, ticket: Ticket[Job], deadline: float) -> None:
        """Wait until the ticket's job has been processed, or the deadline.

        Raises DeadlineExceeded (the job may still be under way: what it has found so far stays readable), or what
        `process` raised. A caller that is cancelled merely stops waiting."""
        if ticket.done:
            if ticket.error is not None:
                raise ticket.error
            return
        assert self._loop is not None, "start() first"
        ticket.deadline = min(ticket.deadline, deadline)
        future: asyncio.Future[None] = self._loop.create_future()
        ticket.waiters.append(future)
        alarm = alarms().at(deadline, partial(_expire, future))
        ticket.abandoned = False
        try:
            await future
        finally:
            alarm.cancel()
            ticket.waiters.remove(future)
            ticket.abandoned = not ticket.waiters

    @property
    def resting(self) -> bool:
        """Whether nothing waits and no worker works."""
        return self._idle == len(self._crew) and not (self._waiting[0] or self._waiting[1] or self._next_step)

    def _searching(self) -> bool:
        return any(worker.batch and worker.batch[0].priority is Priority.SEARCH for worker in self._crew)

    def load(self) -> Load:
        """What waits now, and who serves it."""
        return Load(len(self._waiting[Priority.SEARCH]) + len(self._next_step), max(1, self._able()))

    async def run(self, job: Job, *, deadline: float, priority: Priority = Priority.SEARCH) -> None:
        """Submit and wait."""
        await self.wait(self.submit(job, priority), deadline)

    def _work(self, worker: _Worker[Job]) -> None:
        anywhere()
        # An idle worker remembers nothing: its last jobs would keep alive all that they refer to.
        while (batch := self._take(worker)) is not None and self._run(worker, batch):
            del batch

    def _run(self, worker: _Worker[Job], batch: list[Ticket[Job]]) -> bool:
        """Process those that are still wanted. False once the loop has closed: nobody is waiting any more."""
        assert self._loop is not None
        wanted = [ticket for ticket in batch if not ticket.abandoned]
        if len(wanted) < len(batch):
            self._skipped.inc(len(batch) - len(wanted))
        error: BaseException | None = None
        began, used = now(), thread_time() if batch[0].priority is Priority.BULK else 0.0
        if wanted:
            self._sizes[wanted[0].priority].observe(len(wanted))
            try:
                self._process([ticket.job for ticket in wanted])
            except Exception as raised:  # noqa: BLE001  (whatever it is, those who wait must be told)
                error = raised
            if worker in self._given_up:  # they have been told already
                return True
            self._finished += 1
        self._rest_after(batch, began, used)
        loose = self._told_in_step(worker, batch, error)
        if not wanted or not loose:
            return True
        try:
            self._loop.call_soon_threadsafe(_settle, loose, error)
        except RuntimeError:
            return False
        return True

    def _told_in_step(
        self, worker: _Worker[Job], batch: Sequence[Ticket[Job]], error: BaseException | None
    ) -> Sequence[Ticket[Job]]:
        """Leave word for the loop where it stands still; those are returned for which it does not."""
        loose: list[Ticket[Job]] = []
        with self._lock:
            for ticket in batch:
                step = ticket.step
                if step is None or step.lost:
                    loose.append(ticket)
                    continue
                step.told.append((ticket, error))
                step.left -= 1
                if not step.left:
                    worker.owes = self._over
        return loose

    def _take(self, worker: _Worker[Job]) -> list[Ticket[Job]] | None:
        with self._lock:
            try:
                return self._taken(worker)
            finally:
                if worker.owes is not None:  # it found more to do
                    worker.owes.give()
                    worker.owes = None

    def _taken(self, worker: _Worker[Job]) -> list[Ticket[Job]] | None:
        worker.batch, worker.looks = (), 0
        if self._is_one_too_many(worker):
            return None
        while (priority := self._next()) is None:
            if self._stopping:
                return None
            self._sleep(worker, self._looks_again())
        if priority is Priority.SEARCH:
            self._searched_at = now()
        else:
            self._bulk_may, self._bulk_since = False, now()
            self._bulk_due = max(self._bulk_from, now() - _WAITS_S)
            self._bulk_from = math.inf  # until this one is done
        queue = self._waiting[priority]
        # Leave a fair share to workers that wait too: two workers with half a batch each beat one with all of it.
        share = self._share(-(-len(queue) // (self._idle + 1)))
        waits = self._waiting[Priority.SEARCH] or self._next_step
        if priority is Priority.BULK and (waits or self._searches_come()):
            share = 1  # a search that comes now waits for all of it
        taken = [queue.popleft()]
        while len(taken) < share and queue[0].step is taken[0].step:
            taken.append(queue.popleft())
        self._show_depth(priority)
        worker.batch = taken
        if taken[0].step is None:
            worker.tether.hold(-1)
        if self._idle and self._is_next_in_step():
            self._ask_for_step()
        elif self._idle and self._waiting[Priority.SEARCH]:
            self._wake(1)
        return taken

    def _sleep(self, worker: _Worker[Job], until: float) -> None:
        """Until it is woken. Whom it owes the end of a step is told by the same call."""
        self._idle += 1
        self._sleepers.append(worker)
        owed, worker.owes = worker.owes, None
        self._lock.release()
        worker.baton.wait(until, giving=owed)
        self._lock.acquire()
        self._idle -= 1
        with suppress(ValueError):  # by nobody
            self._sleepers.remove(worker)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._sleepers))):
            self._sleepers.pop().baton.give()

    def _show_depth(self, priority: Priority) -> None:
        joined = len(self._next_step) if priority is Priority.SEARCH else 0
        depth = len(self._waiting[priority]) + joined
        if depth != self._shown[priority]:
            self._shown[priority] = depth
            self._depths[priority].set(depth)

    def _share(self, waiting: int) -> int:
        """How many of those a worker takes at once."""
        share = min(waiting, self._max_batch)
        return max(1, min(share, self._most())) if share > 1 and self._most is not None else share

    def _next(self) -> Priority | None:
        """What a worker should take; None where it should wait, for the loop to stand still among others."""
        searches, bulk_waits = self._waiting
        if not (searches or bulk_waits or self._next_step):
            return None
        if searches and searches[0].step is not None:
            return Priority.SEARCH
        if self._bulk_may and bulk_waits:
            return Priority.BULK
        bulk = self._bulk_is_due()
        if bulk and (searches or self._bulk_is_long or not self._searches_come()):
            return Priority.BULK
        if (bulk or self._is_next_in_step()) and not (self._stands and searches):
            self._ask_for_step()
            return None
        return Priority.SEARCH if searches else None

    def _is_next_in_step(self) -> bool:
        """Whether of the searches that wait the first is one that the loop stands still for."""
        searches = self._waiting[Priority.SEARCH]
        return bool(self._next_step) and (not searches or self._next_step[0].number < searches[0].number)

    def _bulk_is_due(self) -> bool:
        """Whether bulk work may go on: no search waits, or it has waited for them long enough."""
        if not self._waiting[Priority.BULK] or self._rest_s():
            return False
        if not (self._waiting[Priority.SEARCH] or self._next_step):
            return True
        return now() > max(self._bulk_from, self._bulk_since) + _WAITS_S

    def _ask_for_step(self) -> None:
        """From a worker. What has just ended is answered first, which takes the loop one more round."""
        if not self._step_due:
            assert self._loop is not None
            self._step_due = True
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._loop.call_soon, self._step)

    def _looks_again(self) -> float:
        """Until when a worker waits, unless it is woken."""
        if not self._waiting[Priority.BULK]:
            return math.inf
        return now() + (self._rest_s() or (_STANDS_STILL_S if self._step_due else _LEAST_WAIT_S))

    def _searches_come(self) -> bool:
        return now() < self._searched_at + _SEARCHES_COME_S

    def _rest_after(self, batch: Sequence[Ticket[Job]], began: float, used: float) -> None:
        """`began` by the clock, `used` by this thread's own."""
        if batch[0].priority is Priority.BULK:
            at = now()
            self._bulk_is_long = max(thread_time() - used, (at - began) / 4) > _STANDS_STILL_FOR_BULK_S
            rest = max(_RESTS * (thread_time() - used), at - began) - max(0.0, began - self._bulk_due)
            self._bulk_from = at + min(max(rest, _LEAST_REST_S), _LONGEST_REST_S)

    def _rest_s(self) -> float:
        """Seconds that bulk work rests yet: until its time has come and no search is under way, or no search has come
        for long."""
        begins = self._bulk_from + (_WAITS_S if self._searching() else 0.0)
        return max(0.0, min(begins, self._searched_at + _SEARCHES_COME_S) - now())

    def _is_one_too_many(self, worker: _Worker[Job]) -> bool:
        """Whether a worker has come back to find its place taken."""
        if worker in self._given_up:
            self._given_up.remove(worker)
            self.exhausted = False
            return True
        if len(self._crew) <= self._workers or self._able() <= self._workers:
            return False
        self._crew.remove(worker)
        return True


def _join(threads: Sequence[threading.Thread]) -> None:
    patience = after_ms(5000.0)
    for thread in threads:
        thread.join(timeout=left_s(patience))


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("no answer within the deadline"))


def _settle(tickets: Sequence[Ticket[Job]], error: BaseException | None) -> None:
    for ticket in tickets:
        if ticket.done:  # its worker came back just as it was given up
            continue
        ticket.done, ticket.error = True, error
        for future in ticket.waiters:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
