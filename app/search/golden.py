"""Golden queries: what a version answered when it was built, asked again at every start and every minute after.

A version that was whole when it was loaded may still come to answer wrongly: memory that flips, a device that computes
something else when it is hot. Wrong answers are worse than none, so a process that gives them says it is not ready.
An encoder that fails outright is another matter: such searches are answered by the words, and say so.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app import metrics
from app.errors import CorruptPart
from app.pace import give_way
from app.types import SearchRequest

if TYPE_CHECKING:
    from app.search.searcher import Searcher

GOLDEN = "golden.json"
EVERY_S = 60.0
LEAST_OVERLAP = 0.8
"""Mean share of the expected top ten. int8 kernels differ between processors, so order may differ in near-ties;
another encoder or index differs wholly."""
_FAILURES = 2  # in a row
_log = logging.getLogger("aisle.golden")

Golden = Mapping[str, frozenset[str]]
"""Query → ids of its top ten."""


def read_golden(folder: Path) -> Golden:
    """What a version's folder holds. Raises CorruptPart."""
    try:
        listed = json.loads((folder / GOLDEN).read_bytes())
        return {str(one["query"]): frozenset(map(str, one["ids"])) for one in listed}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptPart(f"{GOLDEN}: unreadable ({type(error).__name__})") from error


def golden_answers(searcher: Searcher, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Top-ten ids of each text: what a later start must give again."""
    answers = []
    for text in texts:
        answers.append({"query": text, "ids": _top(searcher, text)})
        give_way()
    return answers


def overlap(golden: Golden, given: Mapping[str, Sequence[str]]) -> float | None:
    """Mean share of the expected top tens that is found again; None where nothing is expected."""
    shares = [len(wanted & set(given[text])) / len(wanted) for text, wanted in golden.items() if wanted]
    return float(np.mean(shares)) if shares else None


def _top(searcher: Searcher, text: str) -> list[str]:
    query = searcher.query(SearchRequest(text))
    words = searcher.words.parse(query.text or "")
    give_way()
    vector = searcher.query_vectors([query.text or ""], query.profile)[0]
    give_way()
    candidates = searcher.result_set(query, words, vector)
    give_way()
    ranked = searcher.rank(candidates.rows, words, vector, query.profile)
    return [searcher.catalog.id(int(row)) for row in ranked.rows[:10]]


@dataclass(eq=False, slots=True)
class GoldenJob:
    """One golden query on its way through the queue, past every cache."""

    searcher: Searcher
    text: str
    ids: Sequence[str] = ()

    def run(self) -> None:
        """Answer it. Raises EncoderUnavailable, as a search does not."""
        self.ids = _top(self.searcher, self.text)


class GoldenWatch:
    """Asks the golden queries of every collection again, for as long as `watch` runs."""

    def __init__(
        self, served: Callable[[], Mapping[str, tuple[Searcher, Golden]]], ask: Callable[[GoldenJob], Awaitable[None]]
    ) -> None:
        """`served`: searcher and golden queries by collection; `ask` runs a job behind all searches, and raises where
        it was not run."""
        self._served = served
        self._ask = ask
        self._failures: dict[tuple[str, str], int] = {}

    @property
    def failing(self) -> list[str]:
        """Collections whose golden queries failed twice in a row."""
        return sorted(name for (name, _), count in self._failures.items() if count >= _FAILURES)

    async def watch(self) -> None:
        while True:
            for name in self._served():
                for outcome in ("passed", "failed", "skipped"):
                    metrics.GOLDEN_CHECKS.labels(name, outcome)  # there from the start, so that an increase is seen
            await asyncio.sleep(EVERY_S)
            await self.check()

    async def check(self) -> None:
        """One round over every collection."""
        served = self._served()
        now = {(name, searcher.version) for name, (searcher, _) in served.items()}
        self._failures = {key: count for key, count in self._failures.items() if key in now}
        for name, (searcher, golden) in served.items():
            found = await self._found_again(searcher, golden)
            outcome = "skipped" if found is None else "passed" if found >= LEAST_OVERLAP else "failed"
            metrics.GOLDEN_CHECKS.labels(name, outcome).inc()
            if found is None:
                continue
            key = (name, searcher.version)
            self._failures[key] = self._failures.get(key, 0) + 1 if outcome == "failed" else 0
            if outcome == "failed":
                _log.error("collection %s: only %.0f%% of the golden top tens are found again", name, found * 100)

    async def _found_again(self, searcher: Searcher, golden: Golden) -> float | None:
        """None where that cannot be told: no time, or no encoder."""
        given: dict[str, Sequence[str]] = {}
        for text in golden:
            job = GoldenJob(searcher, text)
            try:
                await self._ask(job)
            except Exception as error:  # noqa: BLE001  (the rounds must go on; searches tell of what fails outright)
                _log.warning("golden queries could not be asked: %s", type(error).__name__)
                return None
            given[text] = job.ids
        return overlap(golden, given)
