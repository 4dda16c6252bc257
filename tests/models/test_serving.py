"""Which way to serve is chosen, and that the load is offered as it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.index.bundle import BundleStore
from models.pareto import Setting
from models.serving import Loaded, Serving, candidates, chosen, default, rounds_of, under_load


def _loaded(processes: int, *p99s: float) -> Loaded:
    return Loaded(Serving(processes, 1, 0), tuple(np.full(100, value) for value in p99s))


def test_the_first_is_left_only_for_what_is_quicker_every_time() -> None:
    """Quicker in the median is not enough; nor is what was measured in fewer rounds."""
    first = _loaded(1, 5.0, 5.0, 5.0)
    lucky, better, short = _loaded(2, 1.0, 1.0, 6.0), _loaded(3, 4.0, 4.0, 4.5), _loaded(4, 1.0, 1.0)
    assert chosen([first, lucky, short]) is first
    assert chosen([first, lucky, better, short]) is better
    assert chosen([first]) is first


def test_the_default_is_the_first_candidate_and_none_is_there_twice() -> None:
    """All of them can be set: at least one process, one worker."""
    found = candidates()
    assert found[0] == default() and len(set(found)) == len(found)
    assert all(one.processes >= 1 and one.workers >= 1 and one.max_batch >= 0 for one in found)


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_ticks_are_foretold(count: int) -> None:
    """At most all of them in every round, at least two to the end."""
    assert 5 * min(count, 2) <= rounds_of(count) <= 5 * count


def test_searches_are_answered_in_processes_of_their_own(tiny_bundles: Path) -> None:
    """Each way gets as many searches a round as the rate says; the first is there in every round."""
    version = BundleStore(tiny_bundles).current() or ""
    ways = (Serving(1, 1, 0), Serving(2, 2, 1))
    ticks: list[int] = []
    loaded = under_load(
        (tiny_bundles, "default", version), Setting(50, 0), ways, ["steel mug", "lamp"], 100.0, 0.2, ticks.append
    )
    assert [one.serving for one in loaded] == list(ways)
    assert len(loaded[0].times) == 5 and all(len(one) == 20 and (one > 0).all() for one in loaded[0].times)
    assert len(ticks) == rounds_of(len(ways)) == sum(len(one.times) for one in loaded)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    """No version there: the measurement ends with the reason, and leaves no process behind."""
    with pytest.raises(RuntimeError, match="NotFound"):
        under_load((tmp_path, "default", "20261123-ab12cd34"), Setting(5, 0), [Serving(1, 1, 0)], ["a"], 10.0, 0.1)
