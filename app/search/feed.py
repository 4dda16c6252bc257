"""Changes to what is served: kept in each collection's log, and taken in from there, whichever process kept them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

from app import metrics
from app.errors import AisleError
from app.index.changes import Edit
from app.search.live import LiveVersion
from app.search.versions import Served
from app.search.writes import ChangeWriter

_log = logging.getLogger("aisle.changes")
_POLL_S = 0.1
_AT_ONCE_S = 0.5  # then others may have their turn
_FOLD_AGAIN_S = 600.0
Fold = Callable[[str], Coroutine[Any, Any, None]]


class ChangeFeed:
    """The live side of every collection. `live` is the event loop's, as all methods are but `begin`."""

    def __init__(
        self,
        log: Callable[[str], Path],
        swap: Callable[[str, Served], None],
        *,
        fold: Fold | None = None,
        after: int = 0,
    ) -> None:
        """`log`: folder of a collection's changes; `swap` serves what came of them, from any thread. `fold` makes and
        publishes a version of a collection and its changes, once there are so many."""
        self.live: dict[str, LiveVersion] = {}
        self._folder, self._swap = log, swap
        self._fold, self._fold_after = fold, after
        self._folds: dict[str, asyncio.Task[None]] = {}
        self._fold_at: dict[str, float] = {}
        self._writers: dict[str, ChangeWriter] = {}
        self._swapping = Lock()
        self._stepping: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unread: dict[str, str] = {}
        self._follower: asyncio.Task[None] | None = None

    def begin(self, name: str, live: LiveVersion) -> None:
        """Serve a version, with the changes that it has taken in, in place of the one before. From any thread."""
        with self._swapping:
            self.live = {**self.live, name: live}
            self._swap(name, live.served)
        metrics.CHANGED.labels(name).set(live.changed)
        metrics.CHANGES_LAG.labels(name).set(0.0)

    def follow(self) -> None:
        """Watch the logs from now on."""
        self._follower = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Finish what is being kept; a fold under way is given up."""
        for writer in self._writers.values():
            await writer.close()
        for task in [*([self._follower] if self._follower else []), *self._folds.values()]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def keep(self, name: str, edits: Sequence[Edit]) -> int:
        """Write edits to the collection's log, durably; the sequence of the last. Raises Unavailable, Overloaded."""
        writer = self._writers.get(name)
        if writer is None:
            writer = self._writers[name] = ChangeWriter(self._folder(name))
        sequence = await writer.keep(edits)
        for edit in edits:
            metrics.CHANGES.labels(name, edit.op).inc()
        return sequence

    async def catch_up(self, name: str) -> None:
        """Take in what the log holds by now, unless that takes long."""
        live = self.live[name]
        if live.behind:  # never given up half way: two threads would step at once
            await asyncio.wait({asyncio.create_task(self._take_in(name, live))}, timeout=_AT_ONCE_S)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            for name, live in self.live.items():
                if live.behind:
                    await self._take_in(name, live)
                metrics.CHANGES_LAG.labels(name).set(live.lag_s)
                if self._fold is not None and live.changed >= self._fold_after:
                    self._begin_fold(name, self._fold)

    def _begin_fold(self, name: str, fold: Fold) -> None:
        """One at a time, and not again at once: the gate may have refused what came of it."""
        now = time.monotonic()
        if name not in self._folds and now >= self._fold_at.get(name, 0.0):
            self._fold_at[name] = now + _FOLD_AGAIN_S
            task = self._folds[name] = asyncio.create_task(fold(name))
            task.add_done_callback(lambda _: self._folds.pop(name, None))

    async def _take_in(self, name: str, live: LiveVersion) -> None:
        try:
            async with self._stepping[name]:
                await asyncio.to_thread(self._step, name, live)
            self._unread.pop(name, None)
        except Exception as error:  # noqa: BLE001  (what was served goes on being served, and the lag tells)
            if self._unread.get(name) != str(error):
                self._unread[name] = str(error)
                known = isinstance(error, AisleError)
                _log.error("collection %s: changes cannot be taken in: %s", name, error, exc_info=not known)

    def _step(self, name: str, live: LiveVersion) -> None:
        """Some of what waits; each step is served at once."""
        until = perf_counter() + _AT_ONCE_S
        while perf_counter() < until and live.listen():
            live.step()
            metrics.CHANGES_LAG.labels(name).set(live.lag_s)
            with self._swapping:
                if self.live.get(name) is not live:  # a new version has taken its place, with these changes
                    return
                self._swap(name, live.served)
            metrics.CHANGED.labels(name).set(live.changed)
