"""A build that was cut short goes on: what was embedded is kept, what was torn is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.index.bundle import BundleStore
from app.search.embed import Encoder
from app.types import Floats
from models.journal import Digests, Journal, forget
from scripts.cli import main as aisle
from tests import tiny

DIMENSION = 8
ENCODER = ("digest", 64, "", "int8")


def _texts(numbers: range) -> Digests:
    return np.frombuffer(b"".join(number.to_bytes(16, "big") for number in numbers), "V16")


def _vectors(numbers: range) -> Floats:
    return np.array([[number + 0.1] * DIMENSION for number in numbers], np.float32)


def _journal_of(folder: Path, numbers: range) -> Path:
    with Journal.opened(folder, ENCODER, DIMENSION) as journal:
        assert journal is not None and journal.read() == {}
        journal.keep(_texts(numbers), _vectors(numbers))
    (path,) = folder.glob(".embedded-*")
    return path


def _read(folder: Path) -> dict[bytes, Floats]:
    with Journal.opened(folder, ENCODER, DIMENSION) as journal:
        assert journal is not None
        return journal.read()


def test_what_was_kept_is_read_bit_for_bit(tmp_path: Path) -> None:
    _journal_of(tmp_path, range(5000))
    known = _read(tmp_path)
    assert list(known) == [one.tobytes() for one in _texts(range(5000))]
    assert np.array_equal(np.stack(list(known.values())), _vectors(range(5000)))


@pytest.mark.parametrize(("damage", "left"), [("cut", 19), ("torn", 11), ("more", 20)])
def test_what_is_torn_and_all_behind_it_is_cut_off(damage: str, left: int, tmp_path: Path) -> None:
    """And the journal goes on behind what is whole."""
    path = _journal_of(tmp_path, range(20))
    data = bytearray(path.read_bytes())
    record = len(data) // 20
    if damage == "cut":
        del data[-3:]
    elif damage == "torn":
        data[11 * record + 20] ^= 1
    else:
        data += b"\x00" * record
    path.write_bytes(data)
    assert len(_read(tmp_path)) == left
    with Journal.opened(tmp_path, ENCODER, DIMENSION) as journal:
        assert journal is not None
        journal.read()
        journal.keep(_texts(range(30, 32)), _vectors(range(30, 32)))
    assert len(_read(tmp_path)) == left + 2


def test_one_build_writes_and_another_encoder_reads_nothing(tmp_path: Path) -> None:
    _journal_of(tmp_path, range(3))
    with Journal.opened(tmp_path, ENCODER, DIMENSION) as first, Journal.opened(tmp_path, ENCODER, DIMENSION) as second:
        assert first is not None and second is None
        forget(tmp_path)
        assert len(list(tmp_path.glob(".embedded-*"))) == 1, "somebody writes it"
    with Journal.opened(tmp_path, ("another",), DIMENSION) as other:
        assert other is not None and other.read() == {}
    forget(tmp_path)
    assert not list(tmp_path.glob(".embedded-*"))


def test_a_build_that_was_cut_short_goes_on(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its version is that of a build that was not, byte for byte where vectors are kept."""
    monkeypatch.setattr("models.encode._CHUNK", 8)
    catalogue = tiny.write_catalogue(tmp_path / "c.jsonl", tiny.products())
    command = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--force", "a test", "--bundles"]
    whole = Encoder.products
    calls: list[int] = []

    def products(self: Encoder, texts: list[str]) -> Floats:
        calls.append(len(texts))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return whole(self, texts)

    with monkeypatch.context() as cut:
        cut.setattr(Encoder, "products", products)
        assert aisle([*command, str(tmp_path / "cut")]) != 0
    assert not BundleStore(tmp_path / "cut").versions()
    capsys.readouterr()
    assert aisle([*command, str(tmp_path / "cut")]) == 0
    assert "cut short; going on" in capsys.readouterr().err
    assert aisle([*command, str(tmp_path / "whole")]) == 0
    stores = [BundleStore(tmp_path / name) for name in ("cut", "whole")]
    kept = [store.path(store.current() or "") / "embeddings.npy" for store in stores]
    assert kept[0].read_bytes() == kept[1].read_bytes()
    assert not list((tmp_path / "cut").glob(".embedded-*"))
