"""Changes on their way into the log of one collection: those that come while others are made durable share the next
fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from app.errors import Overloaded
from app.index.changes import ChangeLog, Edit

_MOST_WAITING = 256  # requests


class ChangeWriter:
    """Belongs to the event loop's thread; the log is written in another."""

    def __init__(self, folder: Path) -> None:
        self._log = ChangeLog(folder)
        self._waiting: list[tuple[Sequence[Edit], asyncio.Future[int]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, edits: Sequence[Edit]) -> int:
        """The sequence of the last of the edits, which are durable then, and hold as a whole. Raises Unavailable or
        CorruptPart where they could not be kept, Overloaded where too many requests wait for the disk. A caller that is
        cancelled merely does not learn of it."""
        if len(self._waiting) >= _MOST_WAITING:
            raise Overloaded("too many changes are waiting to be written; try again shortly")
        kept: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((edits, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await asyncio.shield(kept)

    async def close(self) -> None:
        """Finish what waits."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                ends = await asyncio.to_thread(self._log.append, [edits for edits, _ in taken])
            except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must be told)
                for _, kept in taken:
                    kept.set_exception(error)
                    kept.exception()  # its caller may have gone
            else:
                for (_, kept), end in zip(taken, ends, strict=True):
                    kept.set_result(end)
        self._writing = None
