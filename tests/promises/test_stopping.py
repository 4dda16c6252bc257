"""C2, C3 and C4: replicas that stop, are restarted or killed under load."""

from __future__ import annotations

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.app.server import served
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.load import Answer, Load, capacity, failed
from tests.promises.proxy import Farm, farm
from tests.promises.running import metric
from tests.promises.versions import Pair

DRAIN_S = 1.0
_SLOW_MS = 20.0
_AT_ONCE = 3  # services of their own


@dataclass(frozen=True)
class Stop:
    """One SIGTERM: what was asked, what was accepted, and how long the end took."""

    answers: list[Answer]
    accepted: set[str]
    at: float
    took: float
    code: int
    in_flight: int

    @property
    def lost(self) -> list[str]:
        """Accepted and not answered in full; or sent before the drain was over, and not answered."""
        answered = {f"q{one.number}" for one in self.answers if not one.failure}
        early = {f"q{one.number}" for one in self.answers if one.sent < self.at + 0.95 * DRAIN_S}
        return sorted((self.accepted | early) - answered)


def _stop_once(pair: Pair, draw: random.Random, rate: float, folder: Path) -> Stop:
    """Load, SIGTERM at a random moment, load until nobody listens any more."""
    told = folder / f"accepted-{draw.random()}"
    command = ["tests.promises.staged_app", "--bundles", str(pair.root), "--accepted", str(told)]
    environment = {"AISLE_DRAIN_S": str(DRAIN_S), "AISLE_WORKERS": "2"}
    with served(pair.root, command=[*command, "--encoder-ms", str(_SLOW_MS)], **environment) as service:
        with Load(service.address, rate, name="q", most=64) as load:
            time.sleep(draw.uniform(0.2, 1.0))
            at, begun = time.monotonic(), len(told.read_text().split()) - len(load.answers)
            service.process.send_signal(signal.SIGTERM)
            code = service.process.wait(timeout=30)
            took = time.monotonic() - at
            time.sleep(0.1)
        return Stop(load.answers, set(told.read_text().split()), at, took, code, max(0, begun))


@pytest.mark.parametrize("stops", forms(5, 100))
def test_a_sigterm_at_any_moment_loses_no_accepted_request(
    pair: Pair, promise: Promise, seed: int, stops: int, tmp_path: Path
) -> None:
    """What reached the application, or was sent before the drain was over, is answered; and the end comes in time."""
    rate = 40.0  # half of what two workers with this encoder bring
    with promise("C2", f"{stops} SIGTERMs: 0 accepted requests lost, exit ≤ drain + longest request + 1 s") as found:
        with ThreadPoolExecutor(_AT_ONCE) as several:
            draws = [random.Random(f"{seed} {number}") for number in range(stops)]
            made = list(several.map(lambda draw: _stop_once(pair, draw, rate, tmp_path), draws))
        accepted = sum(len(one.accepted) for one in made)
        lost = [name for one in made for name in one.lost]
        beyond = [one.took - DRAIN_S - _longest_s(one) for one in made]
        under_way = sum(one.in_flight for one in made)
        refused = sum(bool(answer.failure) for one in made for answer in one.answers)
        found.figure = (
            f"{stops} SIGTERMs: {accepted:,} accepted, {len(lost)} lost; the end {max(beyond):.2f} s after drain and "
            "longest request at most"
        )
        found.control = f"{under_way} were under way at the signals; {refused} came when nobody listened any more"
        found.metric = f"exit codes {sorted({one.code for one in made})}"
        assert not lost, lost[:5]
        assert all(one.code == 0 for one in made)
        assert max(beyond) <= 1.0
        assert under_way and refused


def _longest_s(one: Stop) -> float:
    return max(answer.done - answer.sent for answer in one.answers if answer.status == 200)


@dataclass(frozen=True)
class Size:
    """`rate` 0: half of what one replica can do, which is all that is left for a while."""

    times: int
    requests: int
    rate: float


def _under_load(running: Farm, size: Size, happen: list[float], draw: random.Random, kind: str) -> list[Answer]:
    """Let it happen to the replicas in turn, then go on until there were requests enough."""
    rate = size.rate or capacity(running.address) / 4
    with Load(running.address, rate) as load:
        time.sleep(0.5)
        for number in range(size.times):
            if kind == "restart":
                happen.append(running.restart(number % 2))
            else:
                happen.append(_kill(running, number % 2))
            time.sleep(draw.uniform(0, 0.3))
        load.until(lambda: len(load.answers) >= size.requests, patience_s=600)
    return load.answers


def _kill(running: Farm, number: int) -> float:
    """SIGKILL; the seconds until another in its place is sent to."""
    began = time.monotonic()
    running.replicas[number].kill()
    running.begin(number)
    return time.monotonic() - began


@pytest.mark.parametrize("size", forms(Size(2, 0, 100), Size(20, 50_000, 0)))
def test_a_rolling_restart_behind_haproxy_is_invisible(
    pair: Pair, promise: Promise, seed: int, size: Size, tmp_path: Path
) -> None:
    """With the configuration that deploy/ recommends."""
    took: list[float] = []
    with (
        promise("C3", f"{size.times} restarts, ≥ {size.requests:,} requests: 0 failed") as found,
        farm(pair.root, tmp_path) as running,
    ):
        answers = _under_load(running, size, took, random.Random(seed), "restart")
        wrong = failed(answers)
        found.figure = f"{len(answers):,} requests over {len(took)} restarts: {wrong or '0 failed'}"
        downs = running.total("chkdown")
        starts = [metric(f"http://127.0.0.1:{port}", "aisle_process_starts_total") for port in running.ports]
        found.metric = f"HAProxy saw replicas go down {downs} times; aisle_process_starts_total {starts}"
        found.control = f"each took {min(took):.1f} to {max(took):.1f} s to stop, the drain with it"
        assert not wrong
        assert len(answers) >= size.requests
        assert downs >= size.times and min(took) >= DRAIN_S
        assert all(int(row["stot"]) for row in running.statistics()), "one of them was never asked"


@pytest.mark.parametrize("size", forms(Size(2, 0, 150), Size(20, 0, 0)))
def test_a_killed_replica_behind_haproxy_is_invisible_with_one_retry(
    pair: Pair, promise: Promise, seed: int, size: Size, tmp_path: Path
) -> None:
    """What it was answering is asked again of the other; it is back as soon as it can be started."""
    took: list[float] = []
    with (
        promise("C4", f"{size.times} × kill -9 behind HAProxy with one retry: 0 failed") as found,
        farm(pair.root, tmp_path) as running,
    ):
        answers = _under_load(running, size, took, random.Random(seed), "kill")
        wrong = failed(answers)
        again = running.total("wretr") + running.total("wredis")
        found.figure = (
            f"{len(answers):,} requests over {len(took)} kills: {wrong or '0 failed'}; back in {max(took):.1f} s"
        )
        found.control = f"HAProxy asked {again} requests again"
        found.metric = f"HAProxy saw replicas go down {running.total('chkdown')} times"
        assert not wrong
        assert again, "no request was under way on any of them"
