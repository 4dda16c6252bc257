"""A device that fails is stood in for by the CPU, and taken back once it answers. The device is a stand-in itself:
what a real one does when it is lost is tried where there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import orjson
import pytest

from app.errors import EncoderUnavailable
from app.metrics import REGISTRY
from app.runtime.onnx import OnnxEncoder
from app.runtime.standby import FAILURES, Standby
from app.search.job import SearchJob
from app.search.searcher import Searcher
from app.types import SearchRequest
from tests.app.faults import Device

IDS = [[5, 6, 7]]


@pytest.fixture
def device(tiny_encoder: Path) -> Device:
    return Device(tiny_encoder / "encoder.onnx")


def _standby(device: Device, path: Path, tries: list[float] | None = None) -> Standby:
    def again() -> OnnxEncoder:
        if tries is not None:
            tries.append(time.monotonic())
        if device.lost:
            raise EncoderUnavailable("no CUDA device")
        return Device(path / "encoder.onnx")

    return Standby(device, OnnxEncoder(path / "encoder.onnx", "cpu"), again, again_s=0.05)


def test_nobody_is_told_of_a_device_that_fails_but_by_name(device: Device, tiny_encoder: Path) -> None:
    """Every run is answered; after three in a row the device is left alone; it comes back by itself."""
    tries: list[float] = []
    standby, before = _standby(device, tiny_encoder, tries), _counted()
    whole = standby.encode(IDS)
    assert standby.provider == "cuda" and not standby.stood_in
    device.lost = True
    for _ in range(10):
        assert np.array_equal(standby.encode(IDS), whole)
        assert standby.stood_in
    assert device.runs == 1 + FAILURES, "it is not asked any more"
    assert standby.provider == "cpu" and not standby.batches
    assert _counted() - before == 10
    _until(lambda: len(tries) >= 2)
    device.lost = False
    _until(lambda: standby.provider == "cuda")
    assert np.array_equal(standby.encode(IDS), whole) and not standby.stood_in


def test_a_run_that_fails_now_and_then_takes_nothing_away(device: Device, tiny_encoder: Path) -> None:
    standby = _standby(device, tiny_encoder)
    for _ in range(3 * FAILURES):
        device.lost = True
        standby.encode(IDS)
        assert standby.stood_in
        device.lost = False
        standby.encode(IDS)
        assert not standby.stood_in
    assert standby.provider == "cuda"


def test_whose_vectors_they_are_is_told_thread_by_thread(device: Device, tiny_encoder: Path) -> None:
    standby = _standby(device, tiny_encoder)
    standby.encode(IDS)
    device.lost = True
    other = threading.Thread(target=standby.encode, args=(IDS,))
    other.start()
    other.join()
    assert not standby.stood_in


def test_a_spare_that_fails_too_is_an_error(
    device: Device, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = _standby(device, tiny_encoder)
    device.lost = True
    monkeypatch.setattr(standby._spare, "_session", None)
    with pytest.raises(EncoderUnavailable):
        standby.encode(IDS)


def test_a_search_is_answered_in_full_and_says_who_encoded_it(
    tiny_searcher: Searcher, device: Device, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_searcher.encoder, "_query_model", _standby(device, tiny_encoder))

    def ask(profile: str) -> dict[str, object]:
        job = SearchJob(tiny_searcher, tiny_searcher.query(SearchRequest("steel mug", profile=profile)), perf_counter())
        tiny_searcher.search([job])
        assert job.answer is not None
        told: dict[str, object] = orjson.loads(b"{" + job.answer.tail)
        return told

    whole = ask("default")
    device.lost = True
    struck = ask("default")
    assert struck["degraded"] == {"is": True, "reasons": ["encoder_on_cpu"]} and struck["tier"] == "hybrid"
    assert struck["hits"] == whole["hits"], "the stand-in's session is the CPU's"
    assert ask("lexical")["degraded"] == {"is": False, "reasons": []}


def _counted() -> float:
    return REGISTRY.get_sample_value("aisle_stage_failures_total", {"stage": "embed", "cause": "standby"}) or 0.0


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
