"""The load generator, against a server on this loop that stalls when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from tests.bench.bisection import Bisection
from tests.bench.open_loop import NO_ANSWER, Outcome, Plan, Seconds, constant, offer_apart, poisson, whole

STALL_S = 0.4
REQUEST = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
GREETING = b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n"
Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} ?\r\nserver: here\r\ncontent-length: 5\r\n\r\nhello".encode()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """The port of a server that gives request n, counted from 0 over all connections, to `answer`."""
    count = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while (request := await reader.readuntil(b"\r\n\r\n")) and not writer.is_closing():
                if request == GREETING:
                    writer.write(reply())
                else:
                    count += 1
                    await answer(count - 1, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1]


async def offered(answer: Answer, due_s: Seconds, connections: int = 256, grace_s: float = 2.0) -> Outcome:
    async with serving(answer) as port:
        plan = Plan("127.0.0.1", port, [REQUEST], due_s, GREETING, connections, grace_s)
        return await asyncio.to_thread(offer_apart, plan)


async def stall_once(number: int, writer: asyncio.StreamWriter) -> None:
    """At request 150 the whole server stands still."""
    if number == 150:
        time.sleep(STALL_S)  # noqa: ASYNC251  # a stalled loop is what is meant
    writer.write(reply())


def p99_s(latency_us: np.ndarray) -> float:
    return float(np.percentile(latency_us, 99)) / 1e6


async def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    outcome = await offered(stall_once, constant(rate=500, seconds=1))
    assert outcome.statuses == {200: 500}
    assert not outcome.waited.any()  # the generator went on sending
    assert p99_s(outcome.latency_us) > 0.7 * STALL_S
    # At 500/s some 100 were due in its first half, and waited longer than the other.
    assert np.count_nonzero(outcome.latency_us > STALL_S / 2 * 1e6) >= 80


async def test_coordinated_omission_would_have_hidden_the_stall() -> None:
    """The positive control: with one connection nothing can be sent in the stall, so one request alone is slow from
    when it was sent, which is all that a closed loop sees; from when they were due, hundreds are."""
    outcome = await offered(stall_once, constant(rate=500, seconds=1), connections=1)
    assert outcome.statuses == {200: 500}
    from_sending = outcome.latency_us - outcome.lag_us
    assert from_sending.max() > 0.9 * STALL_S * 1e6  # it did happen
    assert p99_s(from_sending) < STALL_S / 4
    assert p99_s(outcome.latency_us) > 0.7 * STALL_S
    # Time that the server took is not held against the generator.
    assert np.count_nonzero(outcome.waited) >= 100


async def test_refusals_silence_and_lost_connections_are_counted_apart() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 10 == 0:
            writer.write(reply(429))
        elif number % 10 == 1:
            writer.close()
        elif number != 102:  # which is never answered
            writer.write(reply()[:20])
            await asyncio.sleep(0.001)  # in two pieces
            writer.write(reply()[20:])

    outcome = await offered(answer, poisson(rate=1000, seconds=0.2), grace_s=0.3)
    assert outcome.statuses == {NO_ANSWER: 21, 200: 159, 429: 20}
    assert outcome.answered == 159 / 200
    # Unanswered requests count with the time that they waited in vain.
    assert np.count_nonzero(outcome.latency_us[outcome.status == NO_ANSWER] >= 0.3e6) == 21
    assert outcome.cpu_us > 0


def test_times_of_sending_are_fixed_beforehand() -> None:
    assert constant(rate=4, seconds=1).tolist() == [0.0, 0.25, 0.5, 0.75]
    times = poisson(rate=1000, seconds=50)
    assert len(times) == 50_000 and times[0] >= 0 and times[-1] <= 50
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(1e-3, rel=0.02)  # exponential: as wide as the mean
    assert np.array_equal(poisson(10, 1, seed=7), poisson(10, 1, seed=7))


def test_an_answer_is_whole_with_its_last_byte() -> None:
    assert [whole(reply()[:-1]), whole(reply(503)), whole(b"HTTP/1.1 200 OK\r\ncontent-le")] == [None, 503, None]


@pytest.mark.parametrize("limit", [50, 100, 333, 900, 1000, 2500])
def test_bisection_finds_the_limit_inside_and_outside_its_bracket(limit: float) -> None:
    bisection = Bisection(300, 1000)
    for _ in range(16):
        bisection.tell(bisection.rate <= limit)
    assert bisection.best == pytest.approx(limit, rel=0.02)
    assert bisection.best <= limit
