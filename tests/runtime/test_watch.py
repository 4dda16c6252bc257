"""Who stands still in a stage, and when the next one may try it."""

from __future__ import annotations

import threading

from app.runtime.watch import Watch, patience_s


class _Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def _inside(watch: Watch) -> tuple[threading.Thread, threading.Event]:
    """A thread that is inside until it is let out."""
    entered, out = threading.Event(), threading.Event()

    def stay() -> None:
        with watch:
            entered.set()
            out.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(10)
    return thread, out


def test_others_keep_out_while_somebody_stands_still_and_try_it_now_and_then() -> None:
    """Not for an honest run; then for 5 s after the last try, for 10 s once two stand there; not after they left."""
    clock = _Clock()
    watch = Watch(clock)
    watch.patience_s = 0.2
    assert not watch.rests()
    first, out = _inside(watch)
    clock.at += 0.1
    assert not watch.rests() and watch.still() == 0 and watch.still(0.05) == 1
    clock.at += 0.2
    assert watch.rests() and watch.still() == 1
    clock.at += 5
    assert not watch.rests(), "it is tried"
    second, also_out = _inside(watch)
    assert watch.rests(), "by one at a time"
    clock.at += 9
    assert watch.rests() and watch.still() == 2
    clock.at += 2
    assert not watch.rests()
    for thread, event in ((first, out), (second, also_out)):
        event.set()
        thread.join(10)
    assert not watch.rests() and watch.still() == 0


def test_patience_grows_with_what_is_expected() -> None:
    """A large network takes longer without standing still."""
    assert patience_s(1.0) == 0.2
    assert patience_s(50.0) == 1.0
