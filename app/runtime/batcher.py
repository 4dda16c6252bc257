"""One queue with two priorities between the event loop and the worker threads.

A ticket makes at most one hop. A worker takes what waits, up to a budget and never on a timer: idle means a batch of
one with no added wait; under load batches grow by themselves. Searches go before bulk work, which runs in small slices.
Several callers may wait for one ticket, each until its own deadline; a ticket that nobody waits for any more is dropped
before work begins.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from app import metrics
from app.errors import DeadlineExceeded, Overloaded, Unavailable
from app.runtime.deadline import left_s

Job = TypeVar("Job")


class Priority(IntEnum):
    SEARCH = 0
    BULK = 1


@dataclass(frozen=True, slots=True)
class Load:
    """Searches that wait, and workers to serve them."""

    waiting: int = 0
    workers: int = 1


IDLE = Load()
_LABEL = {Priority.SEARCH: "search", Priority.BULK: "bulk"}


class Ticket(Generic[Job]):
    """A job's place in the queue, and those who wait for it."""

    __slots__ = ("abandoned", "done", "error", "job", "priority", "waiters")

    def __init__(self, job: Job, priority: Priority) -> None:
        self.job = job
        self.priority = priority
        self.waiters: list[asyncio.Future[None]] = []
        self.abandoned = False  # set when the last waiter has left; before the first has come it is still wanted
        self.done = False
        self.error: BaseException | None = None


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
        self._idle = 0
        self._wake = threading.Condition(threading.Lock())
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._most: Callable[[], int] | None = None
        self._sizes = {priority: metrics.BATCH_SIZE.labels(_LABEL[priority]) for priority in Priority}
        self._skipped = metrics.SKIPPED.labels("abandoned")
        self._depths = {priority: metrics.QUEUE_WAITING.labels(_LABEL[priority]) for priority in Priority}

    def start(self, *, max_batch: int = 1, most: Callable[[], int] | None = None) -> None:
        """Start the workers. `max_batch` is what a worker takes at most where the constructor was not told; `most`
        says each time how many will do, and one always does."""
        self._max_batch = self._max_batch or max_batch
        self._most = most
        self._loop = asyncio.get_running_loop()
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"aisle-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def stop(self) -> None:
        """Finish what runs, fail what waits, end the workers."""
        with self._wake:
            self._stopping = True
            left = [ticket for queue in self._waiting for ticket in queue]
            for priority in Priority:
                self._waiting[priority].clear()
                self._depths[priority].set(0)
            self._wake.notify_all()
        _settle(left, Unavailable("the service is stopping"))
        await asyncio.to_thread(self._join_threads)

    def _join_threads(self) -> None:
        for thread in self._threads:
            thread.join(timeout=5.0)

    def submit(self, job: Job, priority: Priority = Priority.SEARCH) -> Ticket[Job]:
        """Queue a job. Raises Overloaded at once when too much waits already, Unavailable when stopping."""
        queue = self._waiting[priority]
        if len(queue) >= self._max_waiting:
            metrics.REFUSED.labels("queue_full").inc()
            raise Overloaded("too many searches are waiting; try again shortly")
        ticket = Ticket(job, priority)
        with self._wake:
            if self._stopping:
                raise Unavailable("the service is stopping")
            queue.append(ticket)
            self._depths[priority].set(len(queue))
            if self._idle:
                self._wake.notify()
        return ticket

    async def wait(self, ticket: Ticket[Job], deadline: float) -> None:
        """Wait until the ticket's job has been processed, or the deadline.

        Raises DeadlineExceeded (the job may still be under way: what it has found so far stays readable), or what
        `process` raised. A caller that is cancelled merely stops waiting."""
        if ticket.done:
            if ticket.error is not None:
                raise ticket.error
            return
        assert self._loop is not None, "start() first"
        future: asyncio.Future[None] = self._loop.create_future()
        ticket.waiters.append(future)
        timer = self._loop.call_later(left_s(deadline), _expire, future)
        ticket.abandoned = False
        try:
            await future
        finally:
            timer.cancel()
            ticket.waiters.remove(future)
            ticket.abandoned = not ticket.waiters

    @property
    def resting(self) -> bool:
        """Whether nothing waits and no worker works."""
        return self._idle == self._workers and not (self._waiting[0] or self._waiting[1])

    def load(self) -> Load:
        """What waits now, and who serves it."""
        return Load(len(self._waiting[Priority.SEARCH]), self._workers)

    async def run(self, job: Job, *, deadline: float, priority: Priority = Priority.SEARCH) -> None:
        """Submit and wait."""
        await self.wait(self.submit(job, priority), deadline)

    def _work(self) -> None:
        # An idle worker remembers nothing: its last jobs would keep alive all that they refer to.
        while (batch := self._take()) is not None and self._run(batch):
            del batch

    def _run(self, batch: list[Ticket[Job]]) -> bool:
        """Process those that are still wanted. False once the loop has closed: nobody is waiting any more."""
        assert self._loop is not None
        wanted = [ticket for ticket in batch if not ticket.abandoned]
        self._skipped.inc(len(batch) - len(wanted))
        if not wanted:
            return True
        self._sizes[wanted[0].priority].observe(len(wanted))
        error: BaseException | None = None
        try:
            self._process([ticket.job for ticket in wanted])
        except Exception as raised:  # noqa: BLE001  (whatever it is, those who wait must be told)
            error = raised
        try:
            self._loop.call_soon_threadsafe(_settle, wanted, error)
        except RuntimeError:
            return False
        return True

    def _take(self) -> list[Ticket[Job]] | None:
        with self._wake:
            while not (self._waiting[0] or self._waiting[1]):
                if self._stopping:
                    return None
                self._idle += 1
                self._wake.wait()
                self._idle -= 1
            priority = Priority.SEARCH if self._waiting[Priority.SEARCH] else Priority.BULK
            queue = self._waiting[priority]
            # Leave a fair share to workers that wait too: two workers with half a batch each beat one with all of it.
            share = -(-len(queue) // (self._idle + 1))
            most = self._max_batch if self._most is None else max(1, min(self._max_batch, self._most()))
            taken = [queue.popleft() for _ in range(min(share, most))]
            self._depths[priority].set(len(queue))
            return taken


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("no answer within the deadline"))


def _settle(tickets: Sequence[Ticket[Job]], error: BaseException | None) -> None:
    for ticket in tickets:
        ticket.done, ticket.error = True, error
        for future in ticket.waiters:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
