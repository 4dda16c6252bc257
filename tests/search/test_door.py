"""The door of the queue: what cannot be answered in time is refused before it waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.runtime.batcher import Load
from app.runtime.deadline import after_ms
from app.search.service import SearchService, most_in_time

PROFILE = SimpleNamespace(uses_dense=False, uses_words=True)


def _service(waiting: int, words_ms: float = 10.0) -> tuple[Any, Any]:
    costs = SimpleNamespace(least_ms=lambda steps: words_ms, ms=lambda tier: words_ms)
    searcher = SimpleNamespace(costs=costs, ranking=None)
    service: Any = SearchService.__new__(SearchService)
    service._batcher = SimpleNamespace(load=lambda: Load(waiting, 2))
    service._collections = SimpleNamespace(all=lambda: {"default": SimpleNamespace(searcher=searcher)})
    return service, searcher


@pytest.mark.parametrize(("waiting", "refused"), [(0, False), (20, False), (36, False), (44, True), (100, True)])
def test_a_search_counts_itself_and_what_is_in_hand(waiting: int, refused: bool) -> None:
    """Two workers, 10 ms a search, 250 ms: 44 that wait take 220 ms, one in hand and its own 20 more, and expectations
    err by a tenth. Those used to be accepted, and answered 504."""
    service, searcher = _service(waiting)
    assert service._cannot_be_kept(searcher, PROFILE, after_ms(250)) == refused


def test_a_worker_takes_dear_words_one_at_a_time() -> None:
    """The first of a take waits for the last, whichever stage it is that takes long."""
    assert most_in_time([_service(0, words_ms=10.0)[1]]) <= 1
    assert most_in_time([_service(0, words_ms=1.0)[1]]) == 8
