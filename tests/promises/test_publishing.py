"""D2: whatever kills a publication, the old or the new version is served, whole."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from app.search.versions import Encoders, load
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.publisher import Job, Publisher, publisher
from tests.promises.versions import Pair, content

_FAULTS = ("ENOSPC", "EIO", "short")


class _Watched:
    """A store that somebody publishes to, and what came of it."""

    def __init__(self, pair: Pair, running: Publisher) -> None:
        self._pair = pair
        self._running = running
        self._encoders = Encoders("cpu")
        self._kept: list[object] = []
        self.note = "first"
        self.ends: Counter[str] = Counter()
        self.littered = 0

    def publish(self, job: Job) -> list[str]:
        """Let it happen, then load what a service would: the old or the new, as the exit code says where it says."""
        store = self._pair.store
        outcome = self._running.publish(job)
        served = load(store, store.current() or "", self._encoders)
        self._kept = [served]  # its encoder is loaded once
        found = content(store.path(store.current() or "")).get("note", "first")
        assert found in (self.note, job.note), f"{job}: {found} is neither old nor new"
        assert outcome.code != 2, f"{job}: not an error of the system"
        if outcome.code == 0:
            assert found == job.note, f"{job}: it said that it was published"
        end = "killed" if outcome.code < 0 else "failed" if outcome.code else "done"
        self.ends[f"{end}, {'new' if found == job.note else 'old'}"] += 1
        self.note = found
        self.littered += bool(litter(self._pair.root))
        return outcome.steps

    def timed(self, note: str) -> float:
        """Seconds of an undisturbed publication."""
        began = monotonic()
        self.publish(Job(note))
        return monotonic() - began

    @property
    def killed(self) -> int:
        return self.ends["killed, old"] + self.ends["killed, new"]

    @property
    def told(self) -> str:
        """Every end and how often it came."""
        return "; ".join(f"{end}: {count}" for end, count in sorted(self.ends.items()))

    def clean(self, number: int) -> None:
        """An undisturbed publication takes away what the others left; what is there is as it should be."""
        before = self._pair.store.current()
        self.publish(Job(f"clean {number}"))
        assert not litter(self._pair.root)
        for version in self._pair.store.versions():
            self._pair.store.verify(version)
            if version not in (self._pair.store.current(), before, self._pair.first):
                shutil.rmtree(self._pair.store.path(version))
        assert self._pair.store.history()[-2:] == [before, self._pair.store.current()]


def litter(root: Path) -> list[str]:
    """What no reader ever looks at."""
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def _at_steps(draw: random.Random, steps: list[str], kills: int) -> Iterator[Job]:
    """Kills before steps and in the middle of writes: all of them where there are kills enough, else those at the end,
    which publish, and some of the others."""
    numbers = range(len(steps))
    some = {*numbers[-(kills // 3) :], *draw.sample(numbers, kills // 3)}
    for number in numbers if kills >= 2 * len(steps) else sorted(some):
        yield Job(f"step {number}", "torn" if steps[number] == "write" and draw.random() < 0.5 else "kill", number)


@pytest.mark.parametrize("kills", forms(60, 500))
def test_a_killed_publication_leaves_the_old_or_the_new_version_whole(
    pair: Pair, promise: Promise, seed: int, kills: int
) -> None:
    """At every step and at random moments; the next publication takes away what was left."""
    draw = random.Random(seed)
    bar = f"{kills:,} kills: exactly the old or the new version, verified and loaded; litter gone after the next"
    with promise("D2", bar) as found, publisher(pair.root, pair.first) as running:
        watched = _Watched(pair, running)
        steps = watched.publish(Job("measured"))
        seconds = min(watched.timed(f"timed {number}") for number in range(5))
        for number, job in enumerate(_at_steps(draw, steps, kills)):
            watched.publish(job)
            if number % 10 == 9:
                watched.clean(number)
        for number in range(3 * kills):
            if watched.killed >= kills:
                break
            watched.publish(Job(f"moment {number}", kill_after_s=draw.uniform(0, seconds)))
            if number % 10 == 9:
                watched.clean(number)
        watched.clean(-1)
        ended = watched.ends
        found.figure = f"{watched.killed} kills over {len(steps)} steps: {watched.told}"
        found.control = f"{ended['killed, new']} kills came after CURRENT, {watched.littered} left litter"
        found.metric = "none: the publisher is no server"
        assert watched.killed >= kills, "the publications were over before they were killed"
        assert ended["killed, old"] and ended["killed, new"] and watched.littered


@pytest.mark.parametrize("share", forms(0.1, 1.0))
def test_a_failing_disk_leaves_the_old_or_the_new_version_whole(
    pair: Pair, promise: Promise, seed: int, share: float
) -> None:
    """Full, broken, or full in the middle of a write, at any step: an error is told, and nothing half is served."""
    draw = random.Random(seed)
    with (
        promise("D2", "ENOSPC, EIO and short writes at each step: old or new, whole") as found,
        publisher(pair.root, pair.first) as running,
    ):
        watched = _Watched(pair, running)
        steps = watched.publish(Job("measured"))
        wanted = (
            range(len(steps)) if share == 1.0 else sorted(draw.sample(range(len(steps)), round(share * len(steps))))
        )
        told = 0
        for number in wanted:
            for fault in _FAULTS:
                if fault != "short" or steps[number] == "write":
                    watched.publish(Job(f"{fault} {number}", fault, number))
                    told += 1
            watched.clean(number) if number % 10 == 0 else None
        watched.clean(-1)
        failed = watched.ends["failed, old"] + watched.ends["failed, new"]
        found.figure = f"{told} faults over {len(list(wanted))} of {len(steps)} steps: {watched.told}"
        found.control = f"{failed} of {told} ended with an error (an unlink that fails is passed over)"
        found.metric = "none: the publisher is no server"
        assert failed > 0.8 * told
