"""The CPU in a device's place while the device fails, and back again.

A session whose device was lost does not recover, so the device is tried anew, by a session of its own, beside the
searches. Meanwhile the CPU's session, which is there from the start, answers: nobody waits for either.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from app.errors import AisleError, EncoderUnavailable
from app.metrics import STAGE_FAILURES
from app.runtime.onnx import OnnxEncoder
from app.types import Floats

FAILURES = 3
"""Runs in a row that a device may fail before it is left alone."""
_AGAIN_S = (5.0, 60.0)  # least and most time between two tries
_PROBE = ((1, 2, 3),)
_log = logging.getLogger("aisle.encoder")
_STANDBY = STAGE_FAILURES.labels("embed", "standby")


class Standby:
    """Has what an OnnxEncoder on a device has; any thread may call it."""

    def __init__(
        self, device: OnnxEncoder, spare: OnnxEncoder, again: Callable[[], OnnxEncoder], again_s: float = _AGAIN_S[0]
    ) -> None:
        """`again` makes a new session on the device, warm, or raises."""
        self._device = device
        self._spare = spare
        self._again = again
        self._again_s = again_s
        self._failed = 0
        self._away = False
        self._lock = threading.Lock()
        self._own = threading.local()

    @property
    def provider(self) -> str:
        return self._spare.provider if self._away else self._device.provider

    @property
    def batches(self) -> bool:
        return not self._away and self._device.batches

    @property
    def captured(self) -> bool:
        return self._device.captured

    @property
    def stood_in(self) -> bool:
        """Whether the calling thread's last vectors are the CPU's."""
        return getattr(self._own, "stood_in", False)

    def warm(self, longest: int) -> None:
        self._device.warm(longest)

    def encode(self, token_ids: Sequence[Sequence[int]]) -> Floats:
        """As OnnxEncoder; raises EncoderUnavailable only where both fail."""
        self._own.stood_in = False
        if not self._away:
            try:
                vectors = self._device.encode(token_ids)
                self._failed = 0
                return vectors
            except EncoderUnavailable as error:
                self._note(error)
        self._own.stood_in = True
        _STANDBY.inc()
        return self._spare.encode(token_ids)

    def _note(self, error: EncoderUnavailable) -> None:
        with self._lock:
            self._failed += 1
            if self._away or self._failed < FAILURES:
                return
            self._away = True
        _log.error("the device failed %d runs in a row (%s); the CPU takes its place", FAILURES, error.detail)
        threading.Thread(target=self._return, name="aisle-device", daemon=True).start()

    def _return(self) -> None:
        """Try until the device is there again."""
        wait = self._again_s
        while True:
            time.sleep(wait)
            try:
                device = self._again()
                device.encode(_PROBE)
            except (AisleError, OSError, RuntimeError):
                wait = min(2 * wait, _AGAIN_S[1])
                continue
            self._device, self._failed, self._away = device, 0, False
            _log.info("the device answers again")
            return
