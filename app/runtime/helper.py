"""One thread more, for a part of a job that a worker is at: on another core, where there is one that does nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from app.runtime.cores import anywhere

_log = logging.getLogger("aisle.helper")


class Helper:
    """Does what it is asked to, one thing at a time. A helper that stands still is asked for nothing more."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._free = threading.Lock()
        self._thread = threading.Thread(target=self._help, name="aisle-helper", daemon=True)

    def start(self) -> None:
        """Once, from the thread whose process it is."""
        self._thread.start()

    def stop(self) -> None:
        """It ends after what it is at."""
        self._asked.put(None)

    def ask(self, work: Callable[[], None]) -> bool:
        """Whether it will begin at once; from any thread. Whoever asks cannot wait for it: it may stand still."""
        if not self._thread.is_alive() or not self._free.acquire(blocking=False):
            return False
        self._asked.put(work)
        return True

    def _help(self) -> None:
        anywhere()
        while (work := self._asked.get()) is not None:
            try:
                work()
            except Exception:  # noqa: BLE001  (whatever it is, the next is done)
                _log.exception("a helper's work failed")
            finally:
                del work  # it would keep alive all that it refers to
                self._free.release()
