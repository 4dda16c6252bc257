"""The first level of the cache: a least-recently-used map bounded in bytes, in this process.

Used on the event loop's thread only, so it needs no lock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from app.metrics import CACHE, CACHE_BYTES, cell
from app.search.cache_entry import Kind

V = TypeVar("V")

# The map's slot, the entry's tuple, the key and the headers of its objects, as tracemalloc counts them on CPython 3.11.
OVERHEAD_BYTES = 200
# One entry may take this part of the budget: a giant answer must not drive out everything else.
_LARGEST_SHARE = 8


class LocalLevel(Generic[V]):
    """Values of one kind by key, each with its size in bytes. All operations are O(1) (amortised, in evictions)."""

    def __init__(
        self, kind: Kind, budget_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bytes = 0
        self._budget = budget_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[V, float, int]] = OrderedDict()
        self._hit, self._miss, self._stored, self._evicted = (
            cell(CACHE.labels(kind, "local", event)) for event in ("hit", "miss", "stored", "evicted")
        )
        self._held = CACHE_BYTES.labels(kind)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> V | None:
        """The value, now the most recently used and at the beginning of its life; None when it is absent or its life
        is over."""
        entry = self._entries.get(key)
        if entry is None:
            self._miss.inc(1)
            return None
        value, expires, cost = entry
        at = self._clock()
        if at >= expires:
            self._remove(key)
            self._miss.inc(1)
            return None
        self._entries[key] = value, at + self._ttl_s, cost
        self._entries.move_to_end(key)
        self._hit.inc(1)
        return value

    def put(self, key: bytes, value: V, size_bytes: int) -> None:
        """Keeps the value, evicting the least recently used; a value above 1/8 of the budget is not kept."""
        if key in self._entries:
            self._remove(key)
        cost = size_bytes + OVERHEAD_BYTES
        if cost * _LARGEST_SHARE > self._budget:
            return
        self._entries[key] = (value, self._clock() + self._ttl_s, cost)
        self.bytes += cost
        while self.bytes > self._budget:
            _, (_, _, freed) = self._entries.popitem(last=False)
            self.bytes -= freed
            self._evicted.inc(1)
        self._stored.inc(1)
        self._held.set(self.bytes)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self.bytes = 0
        self._held.set(0)

    def _remove(self, key: bytes) -> None:
        _, _, cost = self._entries.pop(key)
        self.bytes -= cost
        self._held.set(self.bytes)
