"""Parts that want more than to be read: pickles that run, files that are something else, models that reach out."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tests.promises.faults import Change, Fault

_MODEL = "encoder.onnx"


@dataclass
class Bomb:
    """Unpickling it touches a file."""

    canary: str

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.canary,)


def pickles(folder: Path, canary: Path) -> Iterator[Fault]:
    """Every array of the version as a pickle, bare and in numpy's own wrapping, under digests that fit."""
    for path in sorted(folder.glob("*.npy")):
        # Neither is read to serve: the next build may reuse them, and reads them without pickles.
        named = "" if path.name in ("embeddings.npy", "hashes.npy") else path.name
        yield Fault(f"{path.name} a pickle", _written(path.name, pickle.dumps(Bomb(str(canary)))), named, signed=True)
        yield Fault(f"{path.name} an array of objects", _objects(path.name, canary), named, signed=True)


def not_plain(folder: Path, aside: Path) -> Iterator[Fault]:
    """Something else under a part's name, with the very bytes that were signed."""
    for path in sorted(folder.iterdir()):
        for kind in ("symlink", "hard link", "fifo", "folder", "device"):
            yield Fault(f"{path.name} a {kind}", _other(path.name, kind, aside), path.name)


def reaching(folder: Path, aside: Path) -> Iterator[Fault]:
    """Models whose weights lie in another file: outside by every way there is, and inside without a digest."""
    shutil.copy(folder / _MODEL, aside / "weights.bin")
    for location in ("../weights.bin", str(aside / "weights.bin"), "/etc/hostname", "..", "/dev/zero"):
        yield Fault(f"weights in {location}", _external(location), _MODEL, signed=True)
    for kind in ("symlink", "hard link"):
        yield Fault(f"weights by a {kind}", _external("weights.bin", kind, aside / "weights.bin"), signed=True)


def _written(name: str, raw: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(raw)


def _objects(name: str, canary: Path) -> Change:
    def write(folder: Path) -> None:
        array = np.empty(60, dtype=object)
        array[:] = [Bomb(str(canary))] * 60
        np.save(folder / name, array, allow_pickle=True)

    return write


def _other(name: str, kind: str, aside: Path) -> Change:
    def change(folder: Path) -> None:
        part, kept = folder / name, aside / "kept"
        kept.unlink(missing_ok=True)
        shutil.move(part, kept)
        if kind == "symlink":
            part.symlink_to(kept)
        elif kind == "hard link":
            os.link(kept, part)
        elif kind == "fifo":
            os.mkfifo(part)
        elif kind == "folder":
            part.mkdir()
        else:
            part.symlink_to("/dev/zero")

    return change


def _external(location: str, kind: str = "", target: Path | None = None) -> Change:
    """The model with its largest weights told to lie at `location`."""

    def change(folder: Path) -> None:
        model = onnx.load(str(folder / _MODEL), load_external_data=False)
        largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        del largest.external_data[:]
        largest.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(largest.raw_data)))):
            entry = largest.external_data.add()
            entry.key, entry.value = key, value
        largest.ClearField("raw_data")
        (folder / _MODEL).write_bytes(model.SerializeToString())
        _vouch(folder)
        if kind == "symlink":
            (folder / location).symlink_to(target or "")
        elif kind == "hard link":
            os.link(target or "", folder / location)

    return change


def _vouch(folder: Path) -> None:
    """Let the encoder's description name the model as it is now."""
    held = json.loads((folder / "encoder.json").read_text())
    held["sha256"][_MODEL] = hashlib.sha256((folder / _MODEL).read_bytes()).hexdigest()
    (folder / "encoder.json").write_text(json.dumps(held))
