"""Index files that may be anything, each opened in a process of its own with limits.

    python -m tests.promises.hostile WHOLE loader|faiss

One folder a line comes in; out goes a line of JSON: what became of it, seconds, and the most memory it took. "refused";
"taken": it answers like WHOLE; "wrong": it answers otherwise; "died": killed by a signal, or by the limits. `faiss`
reads with FAISS alone, `loader` with what the service loads with.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import faiss
import numpy as np

from app.errors import CorruptPart
from app.index.dense import FaissIndex
from tests.conftest import ROOT

MEMORY_BYTES, CPU_S = 4 << 30, 20
_CODES = {0: "taken", 1: "refused", 2: "wrong"}
Answer = Callable[[Path], Any]


@dataclass(frozen=True)
class Fate:
    """What became of one folder."""

    end: str
    seconds: float
    megabytes: float


class Opener:
    """A process that opens folders, one child each."""

    def __init__(self, whole: Path, way: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.promises.hostile", str(whole), way],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip

    def fate(self, folder: Path) -> Fate:
        """Open it. Raises EOFError where the opening process itself has died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the parent of the children has died")
        return Fate(**json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def opener(whole: Path, way: str) -> Iterator[Opener]:
    """An opener for as long as the block lasts."""
    running = Opener(whole, way)
    try:
        yield running
    finally:
        running.close()


def main(arguments: Sequence[str]) -> int:
    whole, way = Path(arguments[0]), arguments[1]
    answer = _by_faiss if way == "faiss" else _by_loader
    truth = answer(whole)  # also compiles and imports all that the children need
    for line in sys.stdin:
        print(json.dumps(_fate(Path(line.strip()), answer, truth)), flush=True)
    return 0


def _fate(folder: Path, answer: Answer, truth: Any) -> dict[str, Any]:
    began = monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(_open(folder, answer, truth))
    _, status, used = os.wait4(pid, 0)
    end = _CODES.get(os.WEXITSTATUS(status), "died") if os.WIFEXITED(status) else "died"
    return {"end": end, "seconds": monotonic() - began, "megabytes": used.ru_maxrss / 1024}


def _open(folder: Path, answer: Answer, truth: Any) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    try:
        found = answer(folder)
    except CorruptPart:
        return 1
    except BaseException:
        return 2 if answer is _by_loader else 1  # the loader lets nothing else out
    return 0 if np.array_equal(found, truth) else 2


def _queries(dimension: int) -> Any:
    return np.random.default_rng(3).standard_normal((8, dimension)).astype(np.float32)


def _by_faiss(folder: Path) -> Any:
    index = faiss.read_index(str(folder / "dense.faiss"))
    return index.search(_queries(index.d), 10)[1]


def _by_loader(folder: Path) -> Any:
    index = FaissIndex.load(folder)
    return [index.search(query, 10, None)[0].tolist() for query in _queries(index.dimension)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
