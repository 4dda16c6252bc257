"""C1: ready means warm, and what cannot be warmed never becomes ready."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.app.server import start
from tests.bench.wire import Client
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.load import searches
from tests.promises.running import metric
from tests.promises.versions import Pair, signed_anew

_FIRST, _STEADY = 100, 1000


@dataclass(frozen=True)
class Start:
    """What was heard before it was ready, and p99 of the first searches and of later ones."""

    refused: int
    before: set[int]
    after: set[int]
    first_ms: float
    steady_ms: float
    warm: float


def _started(pair: Pair) -> Start:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = start(pair.root, port=port, AISLE_PROCESSES="1", AISLE_PROVIDER="cpu", AISLE_CACHE_MB="0")
    try:
        refused, before = 0, set()
        until = time.monotonic() + 90
        with httpx.Client() as http:
            while time.monotonic() < until:
                try:
                    status = http.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code
                except httpx.TransportError:
                    refused += 1
                    time.sleep(0.002)
                    continue
                if status == 200:
                    break
                before.add(status)
        client = Client(f"http://127.0.0.1:{port}")
        spent, after = [], set()
        for number in range(_FIRST + _STEADY):
            raw = client.request("/v1/search", searches(number))
            began = time.perf_counter()
            after.add(int(client.exchange(raw)[0].split()[1]))
            spent.append((time.perf_counter() - began) * 1e3)
        client.close()
        ready = metric(f"http://127.0.0.1:{port}", "aisle_ready")
    finally:
        running.kill()
    first, steady = (float(np.percentile(part, 99)) for part in (spent[:_FIRST], spent[_FIRST:]))
    return Start(refused, before, after, first, steady, ready)


@pytest.mark.parametrize("starts", forms(1, 5))
def test_ready_means_warm(pair: Pair, promise: Promise, starts: int, request: pytest.FixtureRequest) -> None:
    """From its first moment /readyz is asked; the first 200 is followed by searches, at once."""
    timed = request.node.get_closest_marker("deep") is not None
    bar = "refused or 503 until ready" + ("; p99 of the first 100 ≤ 1.2 × steady, median of five" if timed else "")
    with promise("C1", bar) as found:
        seen = [_started(pair) for _ in range(starts)]
        ratio = median(one.first_ms / one.steady_ms for one in seen)
        found.figure = (
            f"{starts} starts: p99 of the first {_FIRST} × {ratio:.2f} of {_STEADY} later ones "
            f"({seen[0].first_ms:.1f} and {seen[0].steady_ms:.1f} ms)"
        )
        found.control = f"not ready for {sum(one.refused for one in seen)} probes"
        found.metric = f"aisle_ready {min(one.warm for one in seen):.0f}"
        for one in seen:
            assert one.refused and one.before <= {503} and one.after == {200} and one.warm == 1
        if timed:
            assert ratio <= 1.2, [(one.first_ms, one.steady_ms) for one in seen]


def test_what_cannot_be_warmed_never_becomes_ready(pair: Pair, promise: Promise) -> None:
    """A version whose golden queries have other answers: exit code 1 and one clear line, and nothing ever listens."""

    def other_answers(folder: Path) -> None:
        golden = json.loads((folder / "golden.json").read_text())
        for one in golden if isinstance(golden, list) else golden["queries"]:
            one["ids"] = ["nobody"] * len(one["ids"])
        (folder / "golden.json").write_text(json.dumps(golden))

    with promise("C1", "a failing warm-up: never ready, exit ≠ 0, one clear line") as found:
        version = signed_anew(pair.store, pair.first, other_answers)
        (pair.root / "CURRENT").write_text(version + "\n")
        running = start(pair.root, AISLE_PROCESSES="1", AISLE_PROVIDER="cpu")
        code = running.process.wait(timeout=90)
        running._reader.join(10)
        said = [line for line in running.lines if "golden.json" in line]
        found.figure = f"exit code {code}, {len(said)} line: {said[0].strip() if said else ''}"
        (pair.root / "CURRENT").write_text(pair.first + "\n")
        sound = start(pair.root, AISLE_PROCESSES="1", AISLE_PROVIDER="cpu")
        try:
            sound.wait_until_ready()
        finally:
            sound.kill()
        found.control = f"with its own answers the version is served ({urlsplit(sound.address).scheme})"
        assert code not in (0, None) and not running.address
        assert len(said) == 1 and "Traceback" not in "".join(running.lines)
