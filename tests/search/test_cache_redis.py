"""The second level against a real redis-server and its faults, and against a false one that says wrong things."""

from __future__ import annotations

import asyncio
import pickle
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from app.metrics import REGISTRY
from app.search.cache import Cache, answer_key, vector_key
from app.search.cache_entry import redis_key, seal, vector_payload
from tests.redis_server import FalseRedis, RedisServer

TIMEOUT_S = 0.015
THRESHOLD = 3
# What a shared machine may add to a wait of 15 ms; the bounds that matter are counted, not timed.
SLACK_S = 0.25
VECTOR = np.arange(1, 385, dtype=np.float32)


def key_of(number: int) -> bytes:
    return answer_key("default", "v1", b"query %d" % number)


def answer_of(number: int) -> bytes:
    return b'"version":"v1","number":%d}' % number


@asynccontextmanager
async def opened(url: str, local_bytes: int = 0, **options: Any) -> AsyncIterator[Cache]:
    """A cache whose first level is off, so that every read is of Redis; patient, where no timeout is meant."""
    cache = Cache(local_bytes, url, options.pop("ttl_s", 60.0), **({"redis_timeout_s": 2.0} | options))
    await cache.open()
    try:
        yield cache
    finally:
        await cache.close()


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> float:
    """Waits until the condition holds; the seconds that took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < within_s, "it did not happen in time"
        await asyncio.sleep(0.002)
    return time.monotonic() - begin


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def event(kind: str, name: str) -> float:
    return counted("aisle_cache_events_total", kind=kind, level="redis", event=name)


def errors(cause: str) -> float:
    return counted("aisle_redis_errors_total", cause=cause)


async def fill(cache: Cache, server: RedisServer, numbers: range) -> None:
    before = event("answer", "stored")
    for number in numbers:
        cache.put(key_of(number), answer_of(number), None, None)
    await eventually(lambda: event("answer", "stored") - before == len(numbers))
    assert all(server.control.exists(redis_key("answer", key_of(number))) for number in numbers)


# In health


@pytest.mark.parametrize("address", ["url", "unix_url"])
async def test_what_one_replica_puts_another_fetches(redis_server, address):
    """Answer and vector come back in one round trip, bit for bit, and stay in the first level."""
    url = getattr(redis_server, address)
    name = vector_key("encoder", "blue shoes")
    async with opened(url) as one, opened(url, local_bytes=1 << 20) as other:
        assert await other.fetch(key_of(1), name) == (None, None)
        one.put(key_of(1), answer_of(1), name, VECTOR)
        await eventually(lambda: redis_server.control.dbsize() == 2)
        answer, vector = await other.fetch(key_of(1), name)
        assert answer == answer_of(1)
        assert vector is not None
        assert vector.tobytes() == VECTOR.tobytes()
        redis_server.kill()
        assert other.local_answer(key_of(1)) == answer_of(1)
        kept = other.local_vector(name)
        assert kept is not None
        assert kept.tobytes() == VECTOR.tobytes()


async def test_either_of_answer_and_vector_can_be_fetched_alone(redis_server):
    """A key that is None is not asked for."""
    name = vector_key("encoder", "blue shoes")
    async with opened(redis_server.unix_url) as cache:
        cache.put(key_of(1), answer_of(1), name, VECTOR)
        await eventually(lambda: redis_server.control.dbsize() == 2)
        assert await cache.fetch(key_of(1), None) == (answer_of(1), None)
        answer, vector = await cache.fetch(None, name)
        assert answer is None
        assert vector is not None
        assert await cache.fetch(None, None) == (None, None)


@pytest.mark.promise("S7", "names in a real Redis are digests, and expire apart")
async def test_entries_have_digest_names_and_spread_lives(redis_server):
    """Every name is a digest; lives lie within a tenth of the time to live, and are not all the same."""
    async with opened(redis_server.unix_url, ttl_s=100.0) as cache:
        await fill(cache, redis_server, range(50))
        names = redis_server.control.keys()
        assert all(name.startswith(b"aisle:1:a:") and len(name) == 42 for name in names)
        lives = {redis_server.control.pttl(name) for name in names}
        assert all(90_000 - 5_000 <= life <= 110_000 for life in lives)
        assert max(lives) - min(lives) > 1_000


async def test_what_is_read_begins_a_new_life(redis_server):
    """An entry that is asked for outlives its time to live; one that nobody asks for does not."""
    async with opened(redis_server.unix_url, ttl_s=1.0) as cache:
        await fill(cache, redis_server, range(2))
        begun = time.monotonic()
        while time.monotonic() < begun + 2.0:
            assert (await cache.fetch(key_of(0), None))[0] == answer_of(0)
            await asyncio.sleep(0.05)
        assert await cache.fetch(key_of(1), None) == (None, None)


async def test_calls_made_together_get_their_own_answers(redis_server):
    """A hundred concurrent fetches, some for absent keys, share round trips and nothing else."""
    async with opened(redis_server.url) as cache:
        await fill(cache, redis_server, range(50))
        found = await asyncio.gather(*(cache.fetch(key_of(number), None) for number in range(100)))
        assert [answer for answer, _ in found] == [answer_of(number) for number in range(50)] + [None] * 50


async def test_an_entry_above_a_mebibyte_is_not_sent(redis_server):
    """Redis holds only what every reader would accept."""
    async with opened(redis_server.unix_url) as cache:
        cache.put(key_of(1), bytes((1 << 20) + 1), None, None)
        await fill(cache, redis_server, range(2, 3))
        assert redis_server.control.dbsize() == 1


async def test_a_full_queue_of_writes_drops_and_counts(redis_server):
    """With Redis hung the queue stops at its bound; what does not fit is counted, and nothing blocks."""
    async with opened(redis_server.unix_url) as cache:
        redis_server.hang()
        before = event("answer", "dropped")
        for number in range(3000):
            cache.put(key_of(number), answer_of(number), None, None)
        assert event("answer", "dropped") - before == 3000 - 1024
        redis_server.resume()


# Death, hang, return


@pytest.mark.promise(
    "A1",
    "kill -9 of Redis: 0 errors, 0 wrong answers, hits return",
    control="hits before, none after",
    metric="aisle_redis_errors_total{cause=connection}, aisle_redis_breaker_open",
)
async def test_a_killed_redis_costs_nothing_but_hits(redis_server):
    """kill -9 under load: no error, few slow calls; after a restart hits are back within five seconds."""
    async with opened(redis_server.url, breaker_retry_s=0.2) as cache:
        await fill(cache, redis_server, range(20))
        before = errors("connection")
        took: list[float] = []
        found: list[bool] = []
        for number in range(600):
            if number == 200:
                redis_server.kill()
            begin = time.perf_counter()
            answer, _ = await cache.fetch(key_of(number % 20), None)
            took.append(time.perf_counter() - begin)
            found.append(answer is not None)
            assert answer in (None, answer_of(number % 20))
        assert sum(found[:200]) > 150
        assert not any(found[200:])
        assert errors("connection") - before >= THRESHOLD
        assert cache.breaker_open
        assert counted("aisle_redis_breaker_open") == 1
        assert sorted(took[200:])[395] < 0.005
        assert max(took) < SLACK_S

        redis_server.start()
        assert await eventually(lambda: not cache.breaker_open) < 5.0
        await fill(cache, redis_server, range(20))
        await eventually_found(cache, 3)


async def eventually_found(cache: Cache, number: int, within_s: float = 5.0) -> None:
    begin = time.monotonic()
    while (await cache.fetch(key_of(number), None))[0] != answer_of(number):
        assert time.monotonic() - begin < within_s


@pytest.mark.promise(
    "A2",
    "SIGSTOP: exactly the breaker's threshold of calls pay a timeout",
    control="without the breaker every call would pay",
    metric="aisle_redis_errors_total{cause=timeout}",
)
async def test_a_hung_redis_costs_at_most_threshold_timeouts(redis_server):
    """SIGSTOP: as many calls as the breaker's threshold pay a timeout, the next hundred pay nothing."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_retry_s=60.0) as cache:
        await fill(cache, redis_server, range(1))
        await eventually_found(cache, 0)
        timeouts, skipped = errors("timeout"), errors("breaker_open")
        redis_server.hang()
        took = []
        for _ in range(100 + THRESHOLD):
            begin = time.perf_counter()
            assert await cache.fetch(key_of(0), None) == (None, None)
            took.append(time.perf_counter() - begin)
        assert errors("timeout") - timeouts == THRESHOLD
        assert errors("breaker_open") - skipped == 100
        assert all(TIMEOUT_S * 0.9 <= seconds <= TIMEOUT_S + SLACK_S for seconds in took[:THRESHOLD])
        assert sorted(took[THRESHOLD:])[90] < 0.001
        redis_server.resume()


@pytest.mark.promise(
    "A2", "the control: with a threshold out of reach every call pays", metric="aisle_redis_errors_total{cause=timeout}"
)
async def test_without_the_breaker_every_call_would_pay(redis_server):
    """Control of the test above: with a threshold out of reach, the fault costs a timeout each time."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_threshold=10_000) as cache:
        redis_server.hang()
        before = errors("timeout")
        for _ in range(10):
            assert await cache.fetch(key_of(0), None) == (None, None)
        assert errors("timeout") - before == 10
        redis_server.resume()


async def test_a_hung_redis_costs_few_of_the_calls_that_come_meanwhile(redis_server):
    """Calls by five each 2 ms do not queue up behind a late answer: one a round pays, the others go on without."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_retry_s=60.0) as cache:
        await fill(cache, redis_server, range(1))
        timeouts, late = errors("timeout"), errors("late")
        redis_server.hang()
        calls = []
        for _ in range(50):
            calls += [asyncio.create_task(cache.fetch(key_of(0), None)) for _ in range(5)]
            await asyncio.sleep(0.002)
        assert await asyncio.gather(*calls) == [(None, None)] * 250
        assert errors("timeout") - timeouts == THRESHOLD
        assert errors("late") - late > 4
        assert cache.breaker_open
        redis_server.resume()


async def test_a_late_answer_keeps_further_calls_from_waiting(redis_server):
    """While one caller waits for a hung Redis, those who came with it go on, and others pass it by at once."""
    async with opened(redis_server.url, redis_timeout_s=1.0) as cache:
        redis_server.hang()
        waiting = [asyncio.create_task(cache.fetch(key_of(number), None)) for number in range(5)]
        await asyncio.sleep(0.3)
        assert [task.done() for task in waiting] == [False] + [True] * 4
        begin = time.perf_counter()
        assert await asyncio.gather(*(cache.fetch(key_of(9), None) for _ in range(50))) == [(None, None)] * 50
        assert time.perf_counter() - begin < 0.3
        assert not waiting[0].done()
        redis_server.resume()
        assert await asyncio.gather(*waiting) == [(None, None)] * 5


async def test_nobody_is_let_go_where_nobody_waits(redis_server):
    """The timer of a round may fire when its callers have gone: that is no error and counts nothing."""
    async with opened(redis_server.url, redis_timeout_s=1.0) as cache:
        before = errors("late")
        cache._redis._let_all_but_one_go()
        redis_server.hang()
        gone = asyncio.create_task(cache.fetch(key_of(0), None))
        await asyncio.sleep(0.05)
        gone.cancel()
        cache._redis._let_all_but_one_go()
        assert errors("late") == before
        redis_server.resume()


async def test_one_slow_moment_does_not_open_the_breaker(redis_server):
    """However many wait in a round that fails, it is one failure; the next call goes on over a new connection."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_retry_s=60.0) as cache:
        await fill(cache, redis_server, range(20))
        redis_server.hang()
        before = errors("timeout")
        assert await asyncio.gather(*(cache.fetch(key_of(n), None) for n in range(20))) == [(None, None)] * 20
        assert errors("timeout") - before == 1
        redis_server.resume()
        assert not cache.breaker_open
        await eventually_found(cache, 3)


async def test_failures_with_a_success_between_them_do_not_add_up(redis_server):
    """The breaker counts failures in a row."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_retry_s=60.0) as cache:
        await fill(cache, redis_server, range(1))
        for _ in range(3):
            redis_server.hang()
            for _ in range(THRESHOLD - 1):
                assert await cache.fetch(key_of(0), None) == (None, None)
            redis_server.resume()
            # Until this success, as patient as the server needs to wake up: a late reply would be one failure more.
            assert redis_server.control.ping()
            await eventually_found(cache, 0)
            assert not cache.breaker_open


async def test_a_loop_that_stood_still_is_no_failure_of_redis(redis_server):
    """A reply that came while this process was busy past the deadline is taken (nearly always, on a shared machine)."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_threshold=10_000) as cache:
        await fill(cache, redis_server, range(1))
        await eventually_found(cache, 0)
        found = 0
        for _ in range(10):
            call = asyncio.create_task(cache.fetch(key_of(0), None))
            for _ in range(3):
                await asyncio.sleep(0)
            assert not call.done()
            time.sleep(3 * TIMEOUT_S)  # noqa: ASYNC251  the fault
            found += (await call)[0] == answer_of(0)
        assert found >= 6


async def test_hits_are_back_within_five_seconds_after_a_hang(redis_server):
    """After SIGCONT the breaker closes by itself, without a caller's time, and no reply of old is read as new."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S) as cache:
        await fill(cache, redis_server, range(10))
        redis_server.hang()
        for number in range(THRESHOLD):
            await cache.fetch(key_of(number), None)
        assert cache.breaker_open
        redis_server.resume()
        assert await eventually(lambda: not cache.breaker_open) < 5.0
        for number in range(10):
            await eventually_found(cache, number)


async def test_an_idle_connection_that_redis_closed_is_not_a_failure(redis_server):
    """A restart or the server's own timeout between two calls costs neither a hit nor a step towards the breaker."""
    async with opened(redis_server.url) as cache:
        await fill(cache, redis_server, range(1))
        assert (await cache.fetch(key_of(0), None))[0] == answer_of(0)
        before = errors("connection")
        assert redis_server.control.client_kill_filter(_type="normal", skipme=True) >= 1
        assert (await cache.fetch(key_of(0), None))[0] == answer_of(0)
        assert errors("connection") == before


async def test_a_redis_that_was_never_there_is_found_when_it_comes(redis_server):
    """The service may start first."""
    redis_server.kill()
    async with opened(redis_server.url, breaker_retry_s=0.05) as cache:
        for _ in range(THRESHOLD):
            assert await cache.fetch(key_of(0), None) == (None, None)
        assert cache.breaker_open
        redis_server.start()
        await eventually(lambda: not cache.breaker_open)
        await fill(cache, redis_server, range(1))
        await eventually_found(cache, 0)


# Bytes that cannot be trusted


class Canary:
    """Would end the test if anything unpickled it."""

    def __reduce__(self):
        return (pytest.fail, ("the canary ran",))


def damaged(kind: str) -> bytes:
    whole = seal("answer", key_of(0), answer_of(0))
    return {
        "bit flip": whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:],
        "flip in the digest": whole[:5] + bytes([whole[5] ^ 1]) + whole[6:],
        "truncation": whole[:-1],
        "empty": b"",
        "older format": b"\xa0a" + whole[2:],
        "another key's": seal("answer", key_of(1), answer_of(1)),
        "another kind's": seal("vector", key_of(0), vector_payload(VECTOR)),
        "oversized": seal("answer", key_of(0), bytes(2 << 20)),
        "pickle": pickle.dumps(Canary()),
        "marked pickle": b"\xa1a" + pickle.dumps(Canary()),
    }[kind]


@pytest.mark.promise(
    "A4",
    "damaged bytes are a miss that a put heals",
    control="the damaged bytes lay under the key",
    metric="aisle_cache_events_total{event=corrupt}",
)
@pytest.mark.parametrize(
    "kind",
    ["bit flip", "flip in the digest", "truncation", "empty", "older format", "another key's", "another kind's",
     "oversized", "pickle", "marked pickle"],
)  # fmt: skip
async def test_damaged_bytes_are_a_counted_miss(redis_server, kind):
    """Whatever lies under the key, it is a miss, counted as corrupt, and a new put heals it."""
    async with opened(redis_server.unix_url, local_bytes=1 << 20) as cache:
        name = redis_key("answer", key_of(0))
        redis_server.control.set(name, damaged(kind))
        before = event("answer", "corrupt")
        assert await cache.fetch(key_of(0), None) == (None, None)
        assert event("answer", "corrupt") - before == 1
        assert cache.local_answer(key_of(0)) is None
        cache.put(key_of(0), answer_of(0), None, None)
        await eventually(lambda: redis_server.control.get(name) == seal("answer", key_of(0), answer_of(0)))
        assert (await cache.fetch(key_of(0), None))[0] == answer_of(0)


@pytest.mark.promise(
    "D7",
    "NaN from Redis never reaches the ranking",
    control="it is well sealed",
    metric="aisle_cache_events_total{event=corrupt}",
)
async def test_a_sealed_vector_with_a_value_that_is_not_finite_is_corrupt(redis_server):
    """Even well-sealed NaN does not reach the ranking."""
    key = vector_key("encoder", "blue shoes")
    payload = vector_payload(np.array([1.0, np.nan], np.float32))
    redis_server.control.set(redis_key("vector", key), seal("vector", key, payload))
    async with opened(redis_server.unix_url) as cache:
        before = event("vector", "corrupt")
        assert await cache.fetch(None, key) == (None, None)
        assert event("vector", "corrupt") - before == 1


async def test_ten_megabytes_under_a_key_are_a_miss_and_no_more(redis_server):
    """The giant value costs its caller at most a timeout, and the neighbours' values stay right."""
    redis_server.control.set(redis_key("answer", key_of(0)), bytes(10 << 20))
    async with opened(redis_server.unix_url, breaker_retry_s=0.05) as cache:
        await fill(cache, redis_server, range(1, 5))
        corrupt, timeouts = event("answer", "corrupt"), errors("timeout")
        assert await cache.fetch(key_of(0), None) == (None, None)
        assert (event("answer", "corrupt") - corrupt) + (errors("timeout") - timeouts) == 1
        for number in range(1, 5):
            await eventually_found(cache, number)


async def test_a_list_under_a_key_is_a_miss_that_a_put_replaces(redis_server):
    """A key of the wrong type answers as absent to MGET and is overwritten by SET."""
    async with opened(redis_server.unix_url) as cache:
        redis_server.control.rpush(redis_key("answer", key_of(0)), b"x")
        before = event("answer", "miss")
        assert await cache.fetch(key_of(0), None) == (None, None)
        assert event("answer", "miss") - before == 1
        await fill(cache, redis_server, range(1))
        await eventually_found(cache, 0)


async def test_a_redis_without_memory_still_serves_its_hits(redis_server):
    """-OOM refuses writes: they are counted and dropped, while reads go on and the breaker stays closed."""
    async with opened(redis_server.unix_url) as cache:
        await fill(cache, redis_server, range(1))
        redis_server.control.config_set("maxmemory", "1")
        refused, dropped = errors("reply"), event("answer", "dropped")
        cache.put(key_of(1), answer_of(1), None, None)
        await eventually(lambda: event("answer", "dropped") - dropped == 1)
        assert errors("reply") - refused == 1
        assert (await cache.fetch(key_of(0), None))[0] == answer_of(0)
        assert not cache.breaker_open


async def test_a_redis_that_wants_a_password_is_skipped(redis_server):
    """-NOAUTH opens the breaker; the right password in the address works."""
    redis_server.control.config_set("requirepass", "open sesame")
    async with opened(redis_server.url) as cache:
        for _ in range(THRESHOLD):
            assert await cache.fetch(key_of(0), None) == (None, None)
        assert cache.breaker_open
    async with opened(redis_server.url.replace("redis://", "redis://:open%20sesame@")) as cache:
        before = event("answer", "miss")
        assert await cache.fetch(key_of(0), None) == (None, None)
        assert event("answer", "miss") - before == 1
        assert not cache.breaker_open
    redis_server.control.config_set("requirepass", "")


# Answers that are not answers

WRONG = {
    "OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "NOAUTH": b"-NOAUTH Authentication required.\r\n",
    "WRONGTYPE": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "maxclients": b"-ERR max number of clients reached\r\n",
    "MOVED": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "too few values": b"*0\r\n",
    "too many values": b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    "a null": b"*-1\r\n",
    "a number": b":42\r\n",
    "not RESP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "binary noise": bytes(range(256)),
    "half a reply": b"*1\r\n$100\r\nabc",
    "nothing": b"",
}


@pytest.mark.promise(
    "A3",
    "no reply raises or is taken for an answer; the breaker opens",
    control="the false server was asked",
    metric="aisle_redis_errors_total",
)
@pytest.mark.parametrize("closes", [False, True], ids=["stays", "hangs up"])
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_reply_is_harmless(wrong, closes):
    """No reply raises or is taken for an answer; soon Redis is left alone, and callers pass it by."""
    false = FalseRedis(WRONG[wrong], closes=closes)
    async with false.listening(), opened(false.url, redis_timeout_s=TIMEOUT_S, breaker_retry_s=60.0) as cache:
        kinds = ("timeout", "connection", "reply")
        before = sum(map(errors, kinds))
        for number in range(20):
            assert await cache.fetch(key_of(number), None) == (None, None)
            cache.put(key_of(number), answer_of(number), None, None)
        assert cache.breaker_open
        assert sum(map(errors, kinds)) - before >= THRESHOLD
        assert 0 < false.asked <= 4 * THRESHOLD


async def test_a_value_that_is_not_bytes_is_a_miss():
    """A number among the values is no entry."""
    false = FalseRedis(b"*1\r\n:7\r\n")
    async with false.listening(), opened(false.url) as cache:
        assert await cache.fetch(key_of(0), None) == (None, None)


async def test_a_redis_slower_than_the_timeout_is_skipped():
    """200 ms late answers cost the threshold's timeouts; the breaker then stays open through its probes."""
    false = FalseRedis(b"*1\r\n$-1\r\n", delay_s=0.2)
    async with false.listening(), opened(false.url, redis_timeout_s=TIMEOUT_S, breaker_retry_s=0.01) as cache:
        for _ in range(THRESHOLD):
            await cache.fetch(key_of(0), None)
        assert cache.breaker_open
        probed = false.asked
        await eventually(lambda: false.asked >= probed + 2)
        assert cache.breaker_open


# Cancelled callers


@pytest.mark.promise(
    "A6", "0 answers of another key among 1,000 cancelled fetches", control="more than 500 were cancelled"
)
async def test_a_thousand_cancelled_fetches_never_shift_an_answer(redis_server):
    """Callers who leave at any moment of a call take nobody's answer with them: each key yields its own value."""
    rng = random.Random(3)
    async with opened(redis_server.url) as cache:
        await fill(cache, redis_server, range(64))
        cancelled = wrong = 0
        for turn in range(1000):
            leaver = asyncio.create_task(cache.fetch(key_of(turn % 64), None))
            stayer = asyncio.create_task(cache.fetch(key_of((turn + 7) % 64), None))
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            leaver.cancel()
            wrong += (await stayer)[0] != answer_of((turn + 7) % 64)
            try:
                wrong += (await leaver)[0] != answer_of(turn % 64)
            except asyncio.CancelledError:
                cancelled += 1
        for number in range(64):
            wrong += (await cache.fetch(key_of(number), None))[0] != answer_of(number)
        assert wrong == 0
        assert cancelled > 500
        assert redis_server.control.info("commandstats")["cmdstat_mget"]["calls"] >= 1000
        assert not cache.breaker_open


async def test_callers_who_time_out_leave_no_answer_behind(redis_server):
    """Answers that come after their round's timeout are never read by the next round."""
    async with opened(redis_server.url, redis_timeout_s=TIMEOUT_S, breaker_threshold=10_000) as cache:
        await fill(cache, redis_server, range(10))
        before = errors("timeout")
        for turn in range(10):
            redis_server.hang()
            assert await cache.fetch(key_of(turn), None) == (None, None)
            redis_server.resume()
            await eventually_found(cache, (turn + 1) % 10)
        assert errors("timeout") - before >= 10


async def test_closing_lets_waiting_callers_go(redis_server):
    """Nobody hangs on a cache that was closed, and a closed cache answers with nothing."""
    cache = Cache(0, redis_server.url, 60.0, redis_timeout_s=60.0)
    await cache.open()
    redis_server.hang()
    waiting = asyncio.create_task(cache.fetch(key_of(0), None))
    await asyncio.sleep(0)
    await cache.close()
    assert await waiting == (None, None)
    assert await cache.fetch(key_of(0), None) == (None, None)
    cache.put(key_of(0), answer_of(0), None, None)
    redis_server.resume()
