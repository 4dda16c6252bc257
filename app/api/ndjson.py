"""Lines in, lines out: in order, a few in flight, memory bounded by the window whatever the stream's length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.endpoint import Bytes
from app.api.schemas import MAX_LINE_BYTES, NDJSON
from app.errors import AisleError, DeadlineExceeded, InputTooLarge

LINES_IN_FLIGHT = 8
LINE_WITHIN_S = 30.0  # from one line's end to the next one's, while there is room for it
STALLED = "aisle.write_stalled"  # set in scope["state"] by the server's protocol: the client has stopped reading

Work = Callable[[bytes], Awaitable[bytes]]
Refuse = Callable[[AisleError], bytes]


class LineStream(Bytes):
    """Answers each line of the request with one line, while further lines are still being read.

    `work` turns a line into its answer and does not raise; `refuse` writes the answer to what never reaches it."""

    def __init__(self, work: Work, refuse: Refuse) -> None:
        super().__init__(b"", media_type=NDJSON)
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._work = work
        self._refuse = refuse
        self._room = asyncio.Semaphore(LINES_IN_FLIGHT)
        self._answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._late = self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        writer = asyncio.current_task()
        assert writer is not None
        reader = asyncio.create_task(self._read(receive, writer))
        try:
            last = await self._write(scope, send)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            writer.uncancel()
            raise ClientDisconnect from None
        finally:
            reader.cancel()
            self._abandon()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _read(self, receive: Receive, writer: asyncio.Task[object]) -> None:
        try:
            async for line in lines(receive):
                await self._room.acquire()
                self._answers.put_nowait(asyncio.create_task(self._answer(line)))
            self._answers.put_nowait(None)
            while (await receive())["type"] != "http.disconnect":
                pass
        except TimeoutError:
            self._late = True
            self._answers.put_nowait(None)
            return
        except ClientDisconnect:
            pass
        self._gone = True
        writer.cancel()

    async def _answer(self, line: bytes | None) -> bytes:
        if line is None:
            return self._refuse(InputTooLarge(f"a line may have at most {MAX_LINE_BYTES} bytes"))
        return await self._work(line)

    async def _write(self, scope: Scope, send: Send) -> bytes:
        """Send the answers in order; returns the stream's last line, empty after a complete stream."""
        while (task := await self._answers.get()) is not None:
            await send({"type": "http.response.body", "body": await task, "more_body": True})
            self._room.release()
            if scope.get("state", {}).get(STALLED):
                return self._refuse(
                    DeadlineExceeded("answers were not read: read them while you write; the stream ends here")
                )
        if self._late:
            return self._refuse(DeadlineExceeded(f"no line within {LINE_WITHIN_S:g} s; the stream ends here"))
        return b""

    def _abandon(self) -> None:
        while not self._answers.empty():
            task = self._answers.get_nowait()
            if task is not None:
                task.cancel()


async def lines(receive: Receive) -> AsyncIterator[bytes | None]:
    """The request's lines without blank ones; None for a line beyond MAX_LINE_BYTES, which is never held in memory.

    Raises ClientDisconnect, and TimeoutError when a line is not complete within LINE_WITHIN_S."""
    clock = asyncio.get_running_loop().time
    held = bytearray()
    too_long = False
    more = True
    due = clock() + LINE_WITHIN_S
    while more:
        async with asyncio.timeout_at(due):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        pieces = message.get("body", b"").split(b"\n")
        for position, piece in enumerate(pieces):
            too_long = too_long or len(held) + len(piece) > MAX_LINE_BYTES
            if too_long:
                held.clear()
            else:
                held += piece
            if position == len(pieces) - 1 and more:
                break
            if too_long or held.strip():
                yield None if too_long else bytes(held)
            held.clear()
            too_long = False
        if len(pieces) > 1:
            due = clock() + LINE_WITHIN_S
