"""Faults that a test brings about at the seams of the service, and what its callers saw meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from app.errors import EncoderUnavailable
from app.runtime.onnx import OnnxEncoder
from app.search.searcher import Searcher
from app.types import Floats

ALLOWANCE_MS = 20.0
"""How much later than its deadline an answer may come."""


class Fault:
    """Strikes while it is `on`, at a share of the calls; `struck` counts."""

    def __init__(self, share: float = 1.0) -> None:
        self.on = False
        self.share = share
        self.struck = 0
        self.released = threading.Event()
        self._random = random.Random(5)

    def strikes(self) -> bool:
        if not self.on or self._random.random() >= self.share:
            return False
        self.struck += 1
        return True

    def stall(self) -> None:
        """Stand still for five seconds, or until the test is over."""
        self.released.wait(5.0)

    def end(self) -> None:
        self.on = False
        self.released.set()


class Device(OnnxEncoder):
    """The CPU's session that says it is a device's, and fails while it is `lost`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "cpu")
        self.provider, self.lost, self.runs, self.lost_runs = "cuda", False, 0, 0
        self._path = path

    @property
    def batches(self) -> bool:
        return False

    def again(self) -> OnnxEncoder:
        """A new session on it."""
        if self.lost:
            raise EncoderUnavailable("no CUDA device")
        return Device(self._path)

    def encode(self, token_ids: Sequence[Sequence[int]]) -> Floats:
        self.runs += 1
        if self.lost:
            self.lost_runs += 1
            raise EncoderUnavailable("the device is lost")
        return super().encode(token_ids)


@contextmanager
def session_fault(patch: pytest.MonkeyPatch, act: Callable[[Fault, Any], Any], share: float = 1.0) -> Iterator[Fault]:
    """Every run of an ONNX session that is struck gives what `act` makes of its output, or raises what `act` raises."""
    fault, real = Fault(share), ort.InferenceSession.run

    def run(session: Any, names: Any, feeds: Any, options: Any = None) -> Any:
        output = real(session, names, feeds, options)
        return [act(fault, output[0])] if fault.strikes() else output

    with patch.context() as patched:
        patched.setattr(ort.InferenceSession, "run", run)
        try:
            yield fault
        finally:
            fault.end()


@contextmanager
def searcher_fault(patch: pytest.MonkeyPatch, stage: str, act: Callable[[Fault], None]) -> Iterator[Fault]:
    """Every call of a Searcher's method that is struck does `act` first."""
    fault, real = Fault(), getattr(Searcher, stage)

    def run(searcher: Searcher, *arguments: Any, **more: Any) -> Any:
        if fault.strikes():
            act(fault)
        return real(searcher, *arguments, **more)

    with patch.context() as patched:
        patched.setattr(Searcher, stage, run)
        try:
            yield fault
        finally:
            fault.end()


def raises(fault: Fault, output: Any = None) -> Any:
    """What a session does whose device is lost, and any stage that has a defect."""
    raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")


def gives_nan(fault: Fault, output: Any) -> Any:
    return np.full_like(output, np.nan)


def gives_another_shape(fault: Fault, output: Any) -> Any:
    return output[:, :-3]


def stalls(fault: Fault, output: Any = None) -> Any:
    fault.stall()
    return output


@dataclass
class Seen:
    """What callers saw."""

    statuses: set[int] = field(default_factory=set)
    words: set[str] = field(default_factory=set)  # tiers and reasons of degraded answers
    whole: int = 0
    answers: int = 0
    latest_ms: float = 0.0
    late: list[float] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)  # metrics of other processes that were seen to move
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self, http: httpx.AsyncClient, query: str, timeout_ms: float = 1000.0, **more: Any) -> dict[str, Any]:
        """One search, and what became of it."""
        started = time.perf_counter()
        response = await http.post("/v1/search", json={"query": query, "timeout_ms": timeout_ms, **more})
        self.note(response, (time.perf_counter() - started) * 1e3 - timeout_ms)
        body: dict[str, Any] = response.json()
        return body

    def note(self, response: httpx.Response, over_ms: float = 0.0) -> None:
        body = response.json()
        self.answers += 1
        self.statuses.add(response.status_code)
        self.latest_ms = max(self.latest_ms, over_ms)
        if over_ms > ALLOWANCE_MS:
            self.late.append(over_ms)
        if response.status_code != 200:
            assert response.headers["content-type"] == "application/problem+json"
        elif body["degraded"]["is"]:
            self.words |= {body["tier"], *body["degraded"]["reasons"]}
            self.bodies.append(body)
        else:
            self.whole += 1

    async def ask_for(self, http: httpx.AsyncClient, seconds: float, rate: float, stem: str, timeout_ms: float) -> None:
        """Searches at fixed times, each with other words, whatever became of those before."""
        tasks = []
        started = time.perf_counter()
        for number in range(round(seconds * rate)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self.ask(http, f"{stem} {number}", timeout_ms)))
        await asyncio.gather(*tasks)
