"""Several processes that serve as one, on real sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app import processes
from app.runtime.cores import own_cores, usable_cores
from app.runtime.member import bind
from app.settings import Settings
from tests.app.server import Served, served
from tests.conftest import ROOT

_PATIENCE_S = 60.0


def test_each_of_several_processes_answers_and_a_scrape_sums_them(tiny_bundles: Path) -> None:
    """Whoever is asked tells the counts of all, exactly."""
    with served(tiny_bundles, AISLE_PROCESSES="3") as service:
        stems = set()
        for number in range(60):  # a connection each: the kernel deals them out
            answer = httpx.post(f"{service.address}/v1/search", json={"query": f"mug {number}"}).raise_for_status()
            stems.add(answer.json()["request_id"][:12])
        assert len(stems) == 3
        assert _metric(service, 'aisle_http_requests_total{method="POST",route="/v1/search",status="200"}') == 60
        assert _metric(service, "aisle_process_starts_total") == 3
        assert _metric(service, "aisle_ready") == 1
        assert _metric(service, "process_open_fds") > 3 * 10
        assert service.stop() == 0
        assert not [pid for pid in _members(service) if _runs(pid)]


@pytest.mark.promise(
    "C4",
    "kill -9 of one of two processes: the other answers, a third begins, counts stay",
    control="the process is gone",
    metric="aisle_process_starts_total",
)
def test_a_process_that_is_killed_is_replaced_while_the_others_answer(tiny_bundles: Path) -> None:
    """Its connections are lost, new ones are not; what it counted stays counted."""
    with served(tiny_bundles, AISLE_PROCESSES="2") as service:
        _ask(service, 20)
        before = _members(service)
        os.kill(before[0], signal.SIGKILL)
        _until(lambda: not _runs(before[0]))
        _ask(service, 20)
        _until(lambda: _metric(service, "aisle_process_starts_total") == 3)
        _until(lambda: len(_members(service)) == 2)
        _ask(service, 20)
        assert _metric(service, 'aisle_http_requests_total{method="POST",route="/v1/search",status="200"}') == 60
        assert f"process {before[0]} ended with -9" in "".join(service.lines)
        assert service.stop() == 0


@pytest.mark.skipif(not own_cores(usable_cores()), reason="there is but one core, or a quota")
def test_each_process_has_a_core_of_its_own(tiny_bundles: Path) -> None:
    """Its loop; other threads run anywhere. One that is replaced leaves its core to the one that comes."""
    count = usable_cores()
    with served(tiny_bundles, AISLE_PROCESSES=str(count)) as service:
        _ask(service, 10)

        def at_home() -> bool:
            try:
                return sorted(map(os.sched_getaffinity, _members(service)), key=min) == each
            except ProcessLookupError:
                return False

        each = [{core} for core in own_cores(count)]
        _until(at_home)  # on a busy machine a loop may have left for some seconds
        tasks = [task for pid in _members(service) for task in Path(f"/proc/{pid}/task").iterdir()]
        workers = [int(task.name) for task in tasks if (task / "comm").read_text().startswith("aisle-worker")]
        named = workers or [int(task.name) for task in tasks if int(task.name) not in _members(service)]
        assert named and any(len(os.sched_getaffinity(thread)) == count for thread in named)
        os.kill(_members(service)[0], signal.SIGKILL)
        _until(lambda: _metric(service, "aisle_process_starts_total") == count + 1)
        _until(at_home)


def test_processes_end_with_their_supervisor(tiny_bundles: Path) -> None:
    """Even when it is killed: nobody is left to hold the port."""
    with served(tiny_bundles, AISLE_PROCESSES="2", AISLE_DRAIN_S="0.2") as service:
        members = _members(service)
        service.process.kill()
        _until(lambda: not any(map(_runs, members)))


def test_a_process_whose_loop_is_silent_is_replaced(tiny_bundles: Path) -> None:
    """One that is stopped stands for one that hangs."""
    program = (
        "import sys; from pathlib import Path; from app import processes; from app.settings import Settings\n"
        "processes._SILENT_S = 5.0\n"
        f"sys.exit(processes.serve(Settings(bundles=Path({str(tiny_bundles)!r}), port=0, processes=2)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    service = Served(process)
    try:
        service.wait_until_ready()
        stuck = _members(service)[0]
        os.kill(stuck, signal.SIGSTOP)
        _until(lambda: not _runs(stuck))
        _until(lambda: len(_members(service)) == 2)
        assert "has been silent" in "".join(service.lines)
        assert service.stop() == 0
    finally:
        process.kill()
        process.wait()


def test_a_sigterm_drains_every_process(tiny_bundles: Path) -> None:
    """Connections that are open are answered, and told to go elsewhere."""
    with served(tiny_bundles, AISLE_PROCESSES="2", AISLE_DRAIN_S="2") as service:
        clients = [httpx.Client() for _ in range(12)]
        for client in clients:
            client.get(f"{service.address}/livez").raise_for_status()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # into the drain
        closing = set()
        for client in clients:
            answer = client.post(f"{service.address}/v1/search", json={"query": "mug"}).raise_for_status()
            closing.add(answer.headers["connection"])
        assert closing == {"close"}
        assert service.process.wait(timeout=_PATIENCE_S) == 0


def test_a_port_that_is_taken_is_an_error_though_it_could_be_shared(tiny_bundles: Path) -> None:
    """Two services on one port would each answer half of the requests."""
    with served(tiny_bundles, AISLE_PROCESSES="2") as service:
        port = service.address.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "scripts.cli", "serve", "--bundles", str(tiny_bundles), "--port", port]
        second = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"AISLE_PROCESSES": "2"}, timeout=60
        )
        assert second.returncode == 1
        assert re.search(rf"cannot listen on 127.0.0.1:{port}: Address already in use", second.stderr)
        assert "Traceback" not in second.stderr


@pytest.mark.promise("C1", "nothing to serve: exit 1, one clear line from several processes")
def test_nothing_to_serve_ends_with_one_line_however_many_were_to_serve_it(tmp_path: Path) -> None:
    """The first process says why; the others are not begun."""
    command = [sys.executable, "-m", "scripts.cli", "serve", "--bundles", str(tmp_path), "--port", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"AISLE_PROCESSES": "3"}, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("aisle build") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_bound_sockets_share_one_port(host: str) -> None:
    """On every address of a name, and again in the next process."""
    first = bind(host, 0, alone=True)
    port = first[0].getsockname()[1]
    second = bind(host, port)
    try:
        assert {one.getsockname()[1] for one in [*first, *second]} == {port}
        first[0].listen()
        with pytest.raises(OSError):
            bind(host, port, alone=True)
    finally:
        for one in [*first, *second]:
            one.close()


def test_as_many_processes_as_cores_but_four_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes some of the device's memory."""
    monkeypatch.setattr(processes, "usable_cores", lambda: 6)
    assert processes.fitting(Settings(provider="cpu")) == 6
    monkeypatch.setattr(processes, "_has_gpu", lambda: True)
    assert processes.fitting(Settings(provider="cuda")) == processes.fitting(Settings(provider="auto")) == 4
    assert processes.fitting(Settings(provider="cpu")) == 6


def test_folders_of_services_that_were_killed_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other: not that of one that runs, nor one that nobody can tell whose it is. Its own goes with its end."""
    monkeypatch.setattr(processes, "_SHARED_MEMORY", tmp_path)
    for name in ("aisle-killed", "aisle-unknown"):
        (tmp_path / name).mkdir()
    (tmp_path / "aisle-killed" / "held").touch()
    with processes._shared_folder() as running, processes._shared_folder() as own:
        assert running.parent == own.parent == tmp_path
        assert {path.name for path in tmp_path.iterdir()} == {"aisle-unknown", running.name, own.name}
    assert {path.name for path in tmp_path.iterdir()} == {"aisle-unknown"}


def test_shared_memory_without_room_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its pages run out, the kernel would end the process that writes; the control is the test above."""
    monkeypatch.setattr(processes, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(processes, "_ROOM_BYTES", 1 << 60)
    with processes._shared_folder() as folder:
        assert folder.is_dir() and tmp_path not in folder.parents


def _ask(service: Served, count: int) -> None:
    for number in range(count):
        httpx.post(f"{service.address}/v1/search", json={"query": f"mug {number}"}).raise_for_status()


def _metric(service: Served, name: str) -> float:
    for line in httpx.get(f"{service.address}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise LookupError(name)


def _members(service: Served) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == service.process.pid and b"app.processes" in command:
            found.append(int(folder.name))
    return found


def _runs(pid: int) -> bool:
    """Of several threads the first may be a zombie while another still holds the sockets."""
    own = Path("/proc") / str(pid)
    try:
        return (own / "stat").read_text().rpartition(")")[2].split()[0] != "Z" or len([*(own / "task").iterdir()]) > 1
    except OSError:
        return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except (OSError, httpx.HTTPError, LookupError):
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def test_a_signal_that_interrupts_a_metric_does_not_lock_itself_out(tiny_bundles: Path) -> None:
    """Its handler runs in the midst of whatever the loop does; what several processes count lies behind one lock. Here
    the loop does nothing but count; the control is that it is interrupted in there at all."""
    program = (
        "import signal, sys, threading, time; from app import metrics; from app.main import _Server\n"
        "class Loop:\n"
        "    def call_soon_threadsafe(self, *_): seen.append(1)\n"
        "import asyncio; asyncio.get_event_loop = lambda: Loop()\n"
        "seen = []; server = object.__new__(_Server); server._told = False\n"
        "server.should_exit = server.force_exit = False\n"
        "signal.signal(signal.SIGALRM, lambda *a: (setattr(server, '_told', False), server.handle_exit(*a)))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)\n"
        "inside, until = 0, time.monotonic() + 1.0\n"
        "while time.monotonic() < until:\n"
        "    for _ in range(100): metrics.IN_FLIGHT.inc()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0); print(len(seen))"
    )
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tiny_bundles.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=os.environ | folder, timeout=30
    )
    assert done.returncode == 0 and int(done.stdout) > 100, done.stderr
