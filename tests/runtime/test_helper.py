"""The thread that helps a worker: what it takes, what it refuses, and that nothing is lost with what fails."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from app.runtime.helper import Helper


@pytest.fixture
def helper() -> Iterator[Helper]:
    one = Helper()
    one.start()
    yield one
    one.stop()
    one._thread.join(5)
    assert not one._thread.is_alive()


def _done(helper: Helper) -> bool:
    """Whether it comes to one thing more."""
    over = threading.Event()
    while not helper.ask(over.set):
        pass
    return over.wait(5)


def test_it_takes_one_thing_at_a_time(helper: Helper) -> None:
    """Busy, it refuses at once; then it takes the next."""
    begun, opened = threading.Event(), threading.Event()
    assert helper.ask(lambda: (begun.set(), opened.wait(5), None)[-1])
    assert begun.wait(5)
    assert not helper.ask(lambda: None)
    opened.set()
    assert _done(helper)


def test_what_fails_costs_nothing_but_itself(helper: Helper, caplog: pytest.LogCaptureFixture) -> None:
    """It is written down, and the next is done."""

    def fails() -> None:
        raise ValueError("no")

    assert helper.ask(fails)
    assert _done(helper)
    assert "a helper's work failed" in caplog.text


def test_what_is_over_is_let_go(helper: Helper) -> None:
    """A thread that waits would keep the last search alive, and the version with it."""

    class Work:
        def __call__(self) -> None:
            pass

    work = Work()
    kept = weakref.ref(work)
    assert helper.ask(work)
    del work
    assert _done(helper)
    gc.collect()
    assert kept() is None


def test_one_that_has_not_started_takes_nothing() -> None:
    """A service that is not open, or has stopped."""
    assert not Helper().ask(lambda: None)
