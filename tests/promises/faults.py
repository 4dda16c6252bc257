"""Single faults of a version, each by name: what is unsigned is laid into its folder, what is signed is sealed anew."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from app.index.bundle import MANIFEST, file_digest
from app.index.dense import FaissIndex
from tests.promises.versions import Pair, content, parts, signed_anew

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Fault:
    """`change` makes it in a version's folder; `named` is a part that the refusal has to name, if it has to name one;
    `signed`: the digests are made to fit."""

    name: str
    change: Change
    named: str = ""
    signed: bool = False


def single_faults(pair: Pair, encoder: Path, draw: random.Random, truncations: int, swaps: int | None) -> list[Fault]:
    """Truncations, swapped files (all pairs where `swaps` is None), missing, foreign and additional files, old
    manifests over new files, and parts that do not fit each other under digests that do."""
    old, new = pair.store.path(pair.first), pair.store.path(pair.second)
    return [
        *_truncated(new, draw, truncations),
        *_swapped(new, draw, swaps),
        *(Fault(f"{path.name} missing", _missing(path.name), path.name) for path in parts(new)),
        *_foreign(old, new),
        *_additional(),
        Fault("an older manifest over newer files", _laid(old / MANIFEST), MANIFEST),
        Fault("a manifest of another collection", _collection, MANIFEST),
        *_ill_fitting(old, encoder),
    ]


def offered_version(pair: Pair, fault: Fault) -> str:
    """Make the second version with the fault. Without a signature it keeps its name."""
    if fault.signed:
        return signed_anew(pair.store, pair.second, fault.change, {"fault": fault.name})
    fault.change(pair.store.path(pair.second))
    return pair.second


def _truncated(folder: Path, draw: random.Random, count: int) -> Iterator[Fault]:
    everything = parts(folder)
    for number in range(count):
        path = everything[number % len(everything)]
        size = path.stat().st_size
        keep = draw.choice((0, size - 1, draw.randrange(size), draw.randrange(size)))
        yield Fault(f"{path.name} cut to {keep} bytes", _cut(path.name, keep), path.name)


def _swapped(folder: Path, draw: random.Random, count: int | None) -> list[Fault]:
    digests = {path.name: file_digest(path) for path in parts(folder)}
    pairs = [(one, two) for one, two in itertools.combinations(digests, 2) if digests[one] != digests[two]]
    chosen = pairs if count is None else draw.sample(pairs, count)
    return [Fault(f"{one} and {two} swapped", _exchange(one, two)) for one, two in chosen]


def _foreign(old: Path, new: Path) -> Iterator[Fault]:
    for path in parts(old):
        if path.name != MANIFEST and file_digest(path) != file_digest(new / path.name):
            yield Fault(f"{path.name} of an older version", _laid(path), path.name)


def _additional() -> Iterator[Fault]:
    for name in ("surprise.bin", ".hidden", "dense.faiss.tmp", "encoder.onnx.data", "MANIFEST.json"):
        yield Fault(f"{name} besides", lambda folder, name=name: (folder / name).write_bytes(b"x"), name)
    yield Fault("a folder besides", lambda folder: (folder / "more").mkdir(), "more")


def _ill_fitting(old: Path, encoder: Path) -> Iterator[Fault]:
    """Digests that fit, and parts that do not."""

    def signed(name: str, change: Change, named: str = "") -> Fault:
        return Fault(name, change, named, signed=True)

    half = faiss.METRIC_INNER_PRODUCT
    yield signed("vectors of half the dimensions", _indexed(half, lambda held: held[:, :16]), "dense.faiss")
    yield signed("another metric", _indexed(faiss.METRIC_L2, lambda held: held), "dense.faiss")
    yield signed("a vector too few", _indexed(half, lambda held: held[:-1]))
    yield signed("a vector too many", _indexed(half, lambda held: np.vstack([held, held[:1]])))
    yield signed("vectors of other products", _indexed(half, lambda held: held[::-1].copy()))
    yield signed("vectors of another version", _laid(old / "dense.faiss"))
    yield signed("ids of another version", _laid(*old.glob("catalog.*")))
    yield signed("ids alone of another version", _laid(*old.glob("catalog.ids.*")))
    yield signed("ids in another order", _ids_reversed)
    yield signed("words of another version", _laid(*old.glob("lexical.*")))
    yield signed("another encoder", _laid(*encoder.iterdir()))
    yield signed("another encoder's weights", _laid(encoder / "encoder.onnx"))
    yield signed("golden answers of another version", _laid(old / "golden.json"), "golden.json")


def _cut(name: str, keep: int) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def _missing(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _laid(*paths: Path) -> Change:
    return lambda folder: [shutil.copyfile(path, folder / path.name) for path in paths]


def _exchange(one: str, two: str) -> Change:
    def change(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / two).read_bytes()
        (folder / one).write_bytes(second)
        (folder / two).write_bytes(first)

    return change


def _collection(folder: Path) -> None:
    held = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps({**held, "collection": "other", "content": content(folder)}))


def _indexed(metric: int, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def write(folder: Path) -> None:
        old = FaissIndex.load(folder)
        vectors = change(np.stack([old.vector(row) for row in range(len(old))]))
        index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, metric)
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(folder / "dense.faiss"))

    return write


def _ids_reversed(folder: Path) -> None:
    ids = (folder / "catalog.ids.bin").read_bytes()  # four bytes each
    (folder / "catalog.ids.bin").write_bytes(b"".join(ids[at : at + 4] for at in range(len(ids) - 4, -1, -4)))
