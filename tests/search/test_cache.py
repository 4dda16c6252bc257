"""Laws of the cache's keys, stored form, first level and facade, without a server."""

from __future__ import annotations

import pickle
import random
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.metrics import REGISTRY
from app.search.cache import Cache, answer_key, vector_key
from app.search.cache_entry import MAX_ENTRY_BYTES, redis_key, seal, unseal, vector_of, vector_payload
from app.search.cache_local import OVERHEAD_BYTES, LocalLevel
from app.search.searcher import Searcher
from app.types import SearchRequest, Sort
from tests.ledger import Promise
from tests.promises.forms import forms

KEY = answer_key("default", "v1", b"blue shoes")
VECTOR_KEY = vector_key("encoder", "blue shoes")

parts = st.tuples(st.text(max_size=6), st.text(max_size=6), st.lists(st.binary(max_size=6), max_size=4).map(tuple))


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def events(kind: str, level: str, event: str) -> float:
    labels = {"kind": kind, "level": level, "event": event}
    return REGISTRY.get_sample_value("aisle_cache_events_total", labels) or 0.0


# Keys


@given(parts, parts)
def test_keys_are_equal_exactly_when_their_tuples_are(one, other):
    """No move of bytes from one part to the next, and no part more or less, gives the same key."""
    assert (answer_key(one[0], one[1], *one[2]) == answer_key(other[0], other[1], *other[2])) == (one == other)


@pytest.mark.promise("A6", "10,000 tuples, 10,000 keys", control="many of them differ only in where a part ends")
def test_ten_thousand_tuples_have_ten_thousand_keys():
    """Tuples drawn from few letters, so that many differ only in where one part ends and the next begins."""
    rng = random.Random(5)
    tuples = set()
    while len(tuples) < 10_000:
        tuples.add(tuple("".join(rng.choices("ab:", k=rng.randrange(5))) for _ in range(rng.randrange(2, 6))))
    keys = {answer_key(one[0], one[1], *(part.encode() for part in one[2:])) for one in tuples}
    assert len({"".join(one) for one in tuples}) < len(keys) == 10_000


_ASKED: dict[str, tuple[Any, ...]] = {
    "query": ("mug", "steel mug", None),
    "k": (1, 10, 11),
    "offset": (0, 1),
    "filter": (
        {"field": "brand", "in": ["Acme"]},
        {"field": "brand", "in": ["Acme", "Zeta"]},
        {"field": "price", "gte": 1},
    ),
    "facets": ((), ("brand",), ("brand", "color")),
    "sort": ((), (Sort("price"),), (Sort("price", True),)),
    "profile": ("default", "lexical"),
    "explain": (False, True),
    "fields": (None, ("title",), ("title", "brand")),
    "prefix": (False, True),
    "relax": (False, True),
}


@pytest.mark.parametrize("count", forms(500, 10_000))
def test_requests_share_a_key_exactly_when_they_are_the_same(
    tiny_searcher: Searcher, promise: Promise, seed: int, count: int
) -> None:
    """Pairs of requests that differ in nothing, in one member or in all, over collections and versions."""
    draw = random.Random(seed)

    def drawn() -> dict[str, Any]:
        one = {name: draw.choice(values) for name, values in _ASKED.items()}
        return one | {"collection": draw.choice(("default", "retail")), "version": draw.choice(("v1", "v2"))}

    def key(one: dict[str, Any]) -> bytes:
        request = SearchRequest(**{name: value for name, value in one.items() if name != "version"})
        return answer_key(request.collection, one["version"], tiny_searcher.query(request).parts)

    same = wrong = 0
    with promise("A6", f"{count:,} pairs of requests: equal keys ⇔ equal requests") as found:
        for number in range(count):
            one = drawn()
            other = dict(one) if number % 3 == 0 else one | dict([draw.choice(list(drawn().items()))])
            other = drawn() if number % 3 == 2 else other
            same += one == other
            wrong += (key(one) == key(other)) != (one == other)
        found.figure = f"{count:,} pairs of requests, {wrong} wrong"
        found.control = f"{same:,} pairs are equal, {count - same:,} are not"
        assert wrong == 0
        assert min(same, count - same) > count / 4


@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 8))
def test_a_character_that_moves_between_parts_changes_the_key(left, right, cut):
    """The same concatenation cut elsewhere is another key."""
    joined = left + right
    moved = (joined[:cut], joined[cut:])
    assert (vector_key(*moved) == vector_key(left, right)) == (moved == (left, right))


def test_an_answer_and_a_vector_never_share_a_key():
    """The kinds have separate name spaces."""
    assert answer_key("a", "b") != vector_key("a", "b")


@pytest.mark.promise("S7", "names in Redis are digests")
def test_a_name_in_redis_holds_a_digest_and_nothing_of_the_query():
    """aisle:1:a:<32 hex digits>, for any query, a lone surrogate included."""
    name = redis_key("answer", answer_key("default", "v1", b"secret shoes"))
    assert name.startswith(b"aisle:1:a:")
    assert len(name) == len(b"aisle:1:a:") + 32
    int(name.rsplit(b":", 1)[1], 16)
    assert len(vector_key("encoder", "\ud800")) == 16


# Stored form


@given(st.binary(max_size=300))
def test_what_was_sealed_opens_to_the_same_bytes(payload):
    """unseal is the inverse of seal under the same kind and key."""
    assert unseal("answer", KEY, seal("answer", KEY, payload)) == payload


@pytest.mark.promise("A4", "0 of 10,000 damaged entries open", control="the undamaged entry opens")
def test_ten_thousand_damaged_entries_all_stay_closed():
    """A flipped bit, a cut, an addition or a stray byte never opens; the undamaged entry does (control)."""
    rng = random.Random(7)
    stored = seal("answer", KEY, b'"total":{"value":3},"hits":[]}' * 20)
    opened = 0
    for _ in range(10_000):
        damaged = bytearray(stored)
        match rng.randrange(4):
            case 0:
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[rng.randrange(len(damaged)) :]
            case 2:
                damaged += rng.randbytes(rng.randrange(1, 9))
            case _:
                del damaged[rng.randrange(len(damaged))]
        opened += unseal("answer", KEY, bytes(damaged)) is not None
    assert opened == 0
    assert unseal("answer", KEY, stored) is not None


def test_an_entry_of_another_key_kind_or_format_stays_closed():
    """Entries cannot be moved between keys or kinds, and an older format is not read."""
    stored = seal("answer", KEY, b"{}")
    assert unseal("answer", answer_key("default", "v2", b"blue shoes"), stored) is None
    assert unseal("vector", KEY, b"\xa1v" + stored[2:]) is None
    assert unseal("answer", KEY, b"\xa0a" + stored[2:]) is None


def test_an_oversized_entry_is_refused_without_reading_it():
    """Even a well-sealed entry above the bound stays closed, in less time than its digest would take."""
    huge = seal("answer", KEY, bytes(MAX_ENTRY_BYTES + 1))
    assert unseal("answer", KEY, huge) is None
    assert unseal("answer", KEY, seal("answer", KEY, bytes(MAX_ENTRY_BYTES))) is not None


def test_a_vector_comes_back_bit_for_bit_and_read_only():
    """float32 bytes there and back; a shared vector cannot be changed by one of its readers."""
    vector = np.random.default_rng(1).standard_normal(384).astype(np.float32)
    back = vector_of(vector_payload(vector))
    assert back is not None
    assert back.tobytes() == vector.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1.0


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00" * 4, b"\x02\x00\x00\x00" + b"\x00" * 4, b"\x01\x00\x00\x00" + b"\x00" * 5,
     vector_payload(np.array([1.0, np.nan], np.float32)), vector_payload(np.array([np.inf], np.float32))],
)  # fmt: skip
def test_a_vector_of_the_wrong_size_or_not_finite_is_refused(payload):
    """The dimension must match the bytes, and every value must be finite."""
    assert vector_of(payload) is None


def test_pickled_bytes_are_never_loaded():
    """A pickle whose loading would raise is a closed entry like any other."""

    class Canary:
        def __reduce__(self):
            return (pytest.fail, ("the canary ran",))

    canary = pickle.dumps(Canary())
    assert unseal("answer", KEY, canary) is None
    assert unseal("answer", KEY, b"\xa1a" + canary) is None
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(canary)


# First level


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400), st.booleans()), max_size=60))
def test_the_first_level_counts_its_bytes_and_forgets_the_least_recent(steps):
    """Its content and its bytes equal those of a model that lists every entry, after any sequence of puts and gets."""
    budget = 3000
    level = LocalLevel("answer", budget, 60.0)
    model: OrderedDict[bytes, int] = OrderedDict()
    for number, size, reads in steps:
        key = bytes([number])
        if reads:
            assert (level.get(key) is not None) == (key in model)
            if key in model:
                model.move_to_end(key)
            continue
        level.put(key, b"x", size)
        model.pop(key, None)
        if (size + OVERHEAD_BYTES) * 8 <= budget:
            model[key] = size + OVERHEAD_BYTES
        while sum(model.values()) > budget:
            model.popitem(last=False)
        assert level.bytes == sum(model.values()) <= budget
        assert len(level) == len(model)


def test_an_entry_above_an_eighth_of_the_budget_is_not_kept():
    """One giant answer does not drive out the rest, and replaces an older one under its key by nothing."""
    level = LocalLevel("answer", 8000, 60.0)
    level.put(b"small", b"s", 100)
    level.put(b"giant", b"g", 1000 - OVERHEAD_BYTES)
    assert level.get(b"giant") == b"g"
    level.put(b"giant", b"g", 1001 - OVERHEAD_BYTES)
    assert level.get(b"giant") is None
    assert level.get(b"small") == b"s"


def test_a_local_entry_ends_with_its_time_to_live():
    """Held one moment before the end of its time without use, gone at the moment, with its bytes."""
    clock = Clock()
    level = LocalLevel("answer", 8000, 30.0, clock)
    level.put(b"k", b"v", 1)
    for _ in range(3):
        clock.now += 29.9
        assert level.get(b"k") == b"v"
    clock.now += 30.0
    assert level.get(b"k") is None
    assert level.bytes == 0


def test_evictions_and_held_bytes_are_counted():
    """The metrics say what was evicted and what is held."""
    level = LocalLevel("vector", 8 * (800 + OVERHEAD_BYTES), 30.0)
    before = events("vector", "local", "evicted")
    for number in range(10):
        level.put(bytes([number]), b"v", 800)
    assert events("vector", "local", "evicted") - before == 2
    assert REGISTRY.get_sample_value("aisle_cache_local_bytes", {"kind": "vector"}) == level.bytes == 8000


# Facade without Redis


async def test_a_cache_of_no_bytes_and_no_redis_keeps_nothing():
    """Both levels can be switched off; everything still works."""
    cache = Cache(0, None, 60.0)
    await cache.open()
    cache.put(KEY, b"{}", VECTOR_KEY, np.ones(4, np.float32))
    assert cache.local_answer(KEY) is None
    assert cache.local_vector(VECTOR_KEY) is None
    assert await cache.fetch(KEY, VECTOR_KEY) == (None, None)
    await cache.close()


@pytest.mark.promise("D7", "NaN never enters the cache", control="the answer put beside it does")
async def test_a_vector_that_is_not_finite_is_not_kept():
    """NaN never enters the cache; the answer put beside it does."""
    cache = Cache(1 << 20, None, 60.0)
    cache.put(KEY, b"{}", VECTOR_KEY, np.array([1.0, np.nan], np.float32))
    assert cache.local_vector(VECTOR_KEY) is None
    assert cache.local_answer(KEY) == b"{}"


async def test_a_change_to_the_callers_vector_does_not_reach_the_cache():
    """What is kept is a copy."""
    cache = Cache(1 << 20, None, 60.0)
    vector = np.ones(4, np.float32)
    cache.put(None, None, VECTOR_KEY, vector)
    vector[0] = 9.0
    kept = cache.local_vector(VECTOR_KEY)
    assert kept is not None
    assert kept.tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("url", ["http://cache:6379", "redis://user:hunter2@cache:port", "unix://x?nonsense=1", ""])
def test_an_address_that_is_not_one_is_refused_without_repeating_it(url):
    """A wrong address fails at assembly, in words that hold no password."""
    with pytest.raises(ValueError, match="address of Redis") as caught:
        Cache(0, url, 60.0)
    assert "hunter2" not in str(caught.value)


def test_a_time_to_live_must_be_positive():
    """Zero would store entries that Redis refuses."""
    with pytest.raises(ValueError, match="time to live"):
        Cache(0, None, 0.0)


@pytest.mark.bench
def test_a_local_hit_takes_microseconds():
    """Best of many hits, in a cache of a thousand entries."""
    cache = Cache(64 << 20, None, 60.0)
    for number in range(1000):
        cache.put(number.to_bytes(16, "big"), bytes(8000), None, None)
    best = min(_seconds(cache, (500).to_bytes(16, "big")) for _ in range(5000))
    assert best < 5e-6


def _seconds(cache: Cache, key: bytes) -> float:
    begin = time.perf_counter()
    cache.local_answer(key)
    return time.perf_counter() - begin
