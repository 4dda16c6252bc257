"""One process a core.

An interpreter runs on one core at a time, so threads bring a second core little: on two cores two processes answer 1.7
times the searches of one (BENCHMARKS.md). The supervisor loads nothing and answers nobody. It starts the first member
and, once that has loaded, the others; when all have, it tells them to listen, so that a start fails as a whole and with
one line. The kernel deals connections out (SO_REUSEPORT). A member that ends, or whose event loop has been silent for
long, is replaced; members whose supervisor is gone stop. Each loads, caches, queues and follows CURRENT by itself;
counters lie in files that any of them can sum up (app/api/exposition.py).

They talk over a socket pair. To the member: its settings, "listen". From it: "loaded", then, once it listens, "." every
second.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from app import __version__
from app.runtime.cores import own_cores, usable_cores, worker_threads
from app.runtime.member import BEAT_S, LISTEN, METRICS_FOLDER, Membership, bind
from app.settings import Settings

_SILENT_S = 30.0  # longer than any request may hold a loop; a member that is being debugged is taken for a stuck one
_AGAIN_S = (0.5, 30.0)  # least and most time before a member is replaced that ended soon after its start
_SOON_S = 60.0
_MOST_ON_GPU = 4
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own in it; a counter in a file on a disk waits when the disk does
_ROOM_BYTES = 16 << 20  # a process writes some 100 KB
_HELD = "held"
_log = logging.getLogger("aisle")


def serve(settings: Settings) -> int:
    """Serve in as many processes as the settings say until told to stop. Returns the exit code: 0, or 1 when start-up
    failed, with one line that says why."""
    with _shared_folder() as folder:
        count = settings.processes or fitting(settings)
        return _serve_together(settings, count, folder) if count > 1 else _serve_alone(settings, folder)


@contextlib.contextmanager
def _shared_folder() -> Iterator[Path]:
    """For what is counted. In shared memory where that has room: its pages are taken when they are first written, and
    where there are none left then, the kernel ends the process. Folders of services that were killed are removed."""
    try:
        room = os.statvfs(_SHARED_MEMORY)
        shared = os.access(_SHARED_MEMORY, os.W_OK) and room.f_bavail * room.f_frsize >= _ROOM_BYTES
    except OSError:
        shared = False
    parent = _SHARED_MEMORY if shared else Path(tempfile.gettempdir())
    for left in (_SHARED_MEMORY.glob("aisle-*"), parent.glob("aisle-*")):
        for folder in left:
            _sweep(folder)
    folder = Path(tempfile.mkdtemp(prefix="aisle-", dir=parent))
    descriptor = os.open(folder / "made", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # the kernel lets go of it when this process ends, however it ends
    (folder / "made").rename(folder / _HELD)  # never there without its lock: another start would sweep it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Removes a folder whose service has ended; one without a lock is being made, or nobody knows whose it is."""
    try:
        descriptor = os.open(folder / _HELD, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _serve_alone(settings: Settings, folder: Path) -> int:
    os.environ[METRICS_FOLDER] = str(folder)  # what one counts is exposed in the same way, and as cheaply
    from app.main import serve as serve_here  # not above: it looks for the folder, and the supervisor stays small

    return serve_here(settings)


def _serve_together(settings: Settings, count: int, folder: Path) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        reserved = bind(settings.host, settings.port, alone=True)
    except OSError as error:
        _log.error("cannot listen on %s:%d: %s", settings.host, settings.port, error.strerror or error)
        return 1
    try:
        port = reserved[0].getsockname()[1]
        given = settings.model_copy(
            update={"port": port, "processes": 1, "workers": settings.workers or worker_threads(count)}
        )
        return _Supervisor(given, count, folder).run()
    finally:
        for one in reserved:
            one.close()


def fitting(settings: Settings) -> int:
    """One process a core; on a GPU at most four, each of which takes some of its memory. One where the kernel does not
    deal connections out (it does on Linux)."""
    if sys.platform != "linux":
        return 1
    return min(usable_cores(), _MOST_ON_GPU) if on_gpu(settings) else usable_cores()


def on_gpu(settings: Settings) -> bool:
    """Whether encoders would run on a GPU."""
    return settings.provider != "cpu" and _has_gpu()


@dataclass(eq=False)
class _Member:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    core: int
    started: float = field(default_factory=monotonic)
    heard: float = field(default_factory=monotonic)
    loaded: bool = False
    listens: bool = False


class _Supervisor:
    def __init__(self, settings: Settings, count: int, folder: Path) -> None:
        self._settings = settings
        self._count = count
        self._cores = [] if on_gpu(settings) else own_cores(count)
        self._folder = folder
        self._members: list[_Member] = []
        self._due: list[float] = []  # when a member that ended is to be replaced
        self._delay = _AGAIN_S[0]
        self._open = self._announced = False
        self._stopping = False
        self._failed = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        waker, woken = socket.socketpair()
        waker.setblocking(False)
        woken.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(waker.fileno())
        self._selector.register(woken, selectors.EVENT_READ)
        try:
            self._start_one()
            while self._members or self._due:
                for key, _ in self._selector.select(BEAT_S):
                    if key.fileobj is woken:
                        woken.recv(64)
                    else:
                        self._hear(key.data)
                self._look_after()
        finally:
            for member in self._members:
                member.process.kill()
            signal.set_wakeup_fd(-1)
        return int(self._failed)

    def _start_one(self) -> None:
        ours, theirs = socket.socketpair()
        taken = {member.core for member in self._members}
        core = next((core for core in self._cores if core not in taken), -1)
        command = [sys.executable, "-m", "app.processes", str(theirs.fileno()), str(core)]
        environment = {**os.environ, METRICS_FOLDER: str(self._folder)}
        with theirs:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,  # a terminal's interrupt goes to the supervisor alone, which passes it on once
            )
        ours.sendall(self._settings.model_dump_json().encode() + b"\n")
        member = _Member(process, ours, core)
        self._members.append(member)
        self._selector.register(ours, selectors.EVENT_READ, member)

    def _hear(self, member: _Member) -> None:
        try:
            said = member.channel.recv(4096)
        except OSError:
            said = b""
        if not said:
            self._bury(member)
        else:
            member.heard = monotonic()
            if not member.loaded:
                member.loaded = True
                self._greet(member)
            elif not member.listens:
                member.listens = True
                self._announce()

    def _greet(self, member: _Member) -> None:
        if self._open:
            _tell(member)
        elif not self._stopping:
            while len(self._members) < self._count:
                self._start_one()
            if all(one.loaded for one in self._members):
                for one in self._members:
                    _tell(one)
                self._open = True

    def _announce(self) -> None:
        """Once, when all of them can be reached."""
        if not self._announced and all(one.listens for one in self._members):
            self._announced = True
            host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
            print(f"aisle {__version__} serves http://{host}:{self._settings.port}", flush=True)

    def _bury(self, member: _Member) -> None:
        self._selector.unregister(member.channel)
        member.channel.close()
        self._members.remove(member)
        code = member.process.wait()
        _forget_gauges(member.process.pid, self._folder)
        if self._stopping:
            self._failed = self._failed or code not in (0, -signal.SIGTERM)
        elif not self._open:
            self._failed = True  # it has said why
            self._stop()
        else:
            lived = monotonic() - member.started
            delay = _AGAIN_S[0] if lived > _SOON_S else self._delay
            self._delay = min(2 * delay, _AGAIN_S[1])
            _log.error("process %d ended with %d; another starts in %.1f s", member.process.pid, code, delay)
            self._due.append(monotonic() + delay)

    def _look_after(self) -> None:
        now = monotonic()
        for member in self._members:
            # From its first sign of life on: before, it waits in silence for the others, which may load for minutes.
            if member.listens and now - member.heard > _SILENT_S:
                _log.error("process %d has been silent for %.0f s and is killed", member.process.pid, _SILENT_S)
                member.heard = now
                member.process.kill()
        for at in [at for at in self._due if at <= now]:
            self._due.remove(at)
            self._start_one()

    def _stop(self, *_: object) -> None:
        """Pass it on: the first time members drain, the second they stop at once."""
        self._stopping = True
        self._due.clear()
        for member in self._members:
            member.process.send_signal(signal.SIGTERM)


def _tell(member: _Member) -> None:
    with contextlib.suppress(OSError):  # it has just ended, and will be buried
        member.channel.send(LISTEN)


def _has_gpu() -> bool:
    """Without loading ONNX Runtime, which takes 60 MB."""
    try:
        importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return Path("/dev/nvidiactl").exists()


def _forget_gauges(pid: int, folder: Path) -> None:
    for file in folder.glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)


def _member(descriptor: int, core: int) -> int:
    membership = Membership.join(descriptor, core)
    from app.main import serve as serve_alone

    return serve_alone(Settings.model_validate_json(membership.given), membership)


if __name__ == "__main__":
    sys.exit(_member(*map(int, sys.argv[1:])))
