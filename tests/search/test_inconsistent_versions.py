"""Versions whose digests are right and whose parts are not: each is refused, and the part is named."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from app.errors import CorruptPart
from app.index.bundle import BundleStore
from app.index.dense import FaissIndex
from app.search.embed import Encoder
from app.search.features import NAMES
from app.search.versions import Encoders, load
from scripts.cli import main as aisle
from tests import tiny

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def store(tiny_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    """A private copy of the tiny bundle, and room for more versions."""
    root = tmp_path_factory.mktemp("inconsistent") / "bundles"
    shutil.copytree(tiny_bundles, root)
    return BundleStore(root)


def _sealed(store: BundleStore, change: Change, content: dict[str, Any] | None = None) -> str:
    old = store.path(store.current() or "")
    with store.building() as folder:
        for path in old.iterdir():
            shutil.copyfile(path, folder / path.name)
        held = json.loads((folder / "manifest.json").read_text())["content"]
        (folder / "manifest.json").unlink()
        change(folder)
        return store.seal(folder, {**held, **(content or {})})


def _refusal(store: BundleStore, change: Change, content: dict[str, Any] | None = None) -> str:
    version = _sealed(store, change, content)
    store.verify(version)  # every digest is right
    with pytest.raises(CorruptPart) as refused:
        load(store, version, Encoders("cpu"))
    return refused.value.detail


def _written(part: str, raw: bytes) -> Change:
    return lambda folder: (folder / part).write_bytes(raw)


def _updated(part: str, **members: Any) -> Change:
    def change(folder: Path) -> None:
        held = json.loads((folder / part).read_text())
        (folder / part).write_text(json.dumps({**held, **members}))

    return change


def _saved(part: str, make: Callable[[Any], Any]) -> Change:
    return lambda folder: np.save(folder / part, make(np.load(folder / part)))


def _codes(codec: int, change: Callable[[Any], Any] = lambda vectors: vectors, graph: bool = False) -> Change:
    def write(folder: Path) -> None:
        old = FaissIndex.load(folder)
        vectors = change(np.stack([old.vector(row) for row in range(len(old))]))
        dimension, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        index = (
            faiss.IndexHNSWSQ(dimension, codec, 8, metric)
            if graph
            else faiss.IndexScalarQuantizer(dimension, codec, metric)
        )
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(folder / "dense.faiss"))

    return write


def _with_nan(vectors: Any) -> Any:
    vectors[3, 4] = np.nan
    return vectors


def _header(shape: str, descr: object = "<f4") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


NPY = {
    "empty": b"",
    "pickle": pickle.dumps([1]),
    "archive": b"PK\x03\x04rest",
    "half a header": b"\x93NUMPY\x01\x00\x08\x00{'a': ((",
    "more rows than there is memory": _header("(10000000000000,)"),
    "more rows than there are numbers": _header(f"({10**30},)"),
    "objects": _header("(60,)", "|O") + bytes(600),
    "records": _header("(60,)", [("a", "<f8")]) + bytes(600),
}
DEEP = b"[" * 100_000

CHANGES: dict[str, tuple[str, Change]] = {
    **{
        f"{part}: {name}": (part, _written(part, raw))
        for part in ("catalog.ids.offsets.npy", "catalog.5.number.npy", "lexical.rows.npy", "lexical.idf.npy")
        for name, raw in NPY.items()
    },
    **{f"{part}: too deep": (part, _written(part, DEEP)) for part in ("encoder.json", "golden.json", "catalog.json")},
    "lexical.json: too deep": ("lexical index", _written("lexical.json", DEEP)),
    **{
        f"lexical.vocabulary: {name}": ("lexical index", _written("lexical.vocabulary", raw))
        for name, raw in {"empty": b"", "not UTF-8": b"\xff", "more terms": b"a\nb\n" + DEEP, "twice": b"a\na"}.items()
    },
    "a dimension that is no number": ("encoder.json", _updated("encoder.json", dimension="x")),
    "a limit below zero": ("encoder.json", _updated("encoder.json", max_query_tokens=-1)),
    "a limit beyond reason": ("encoder.json", _updated("encoder.json", max_product_tokens=10**30)),
    "no digests": ("encoder.json", _updated("encoder.json", sha256={})),
    "another tokenizer": (
        "tokenizer.json",
        lambda folder: (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " "),
    ),
    "golden ids that are none": ("golden.json", _written("golden.json", b'[{"query": "mug", "ids": 5}]')),
    "a golden query that is empty": ("golden.json", _written("golden.json", b'[{"query": "", "ids": ["a"]}]')),
    "codes of 8 bits": ("dense.faiss", _codes(faiss.ScalarQuantizer.QT_8bit)),
    "codes of 8 bits in a graph": ("dense.faiss", _codes(faiss.ScalarQuantizer.QT_8bit, graph=True)),
    "codes of the other 16 bits": ("dense.faiss: its codes", _codes(faiss.ScalarQuantizer.QT_bf16)),
    "a vector that is not finite": ("dense.faiss", _codes(faiss.ScalarQuantizer.QT_fp16, _with_nan)),
    "vectors of fewer dimensions": ("dimensions", _codes(faiss.ScalarQuantizer.QT_fp16, lambda held: held[:, :16])),
    "fewer vectors": ("59 products", _codes(faiss.ScalarQuantizer.QT_fp16, lambda held: held[:-1])),
    "ids out of order": (
        "catalog.ids.bin",
        _written("catalog.ids.bin", b"".join(b"q%03d" % n for n in range(60))[::-1]),
    ),
    "an id twice": ("catalog.ids.bin", _written("catalog.ids.bin", b"p000" * 60)),
    "ids in another encoding": (
        "catalog.ids.bin",
        _written("catalog.ids.bin", b"".join(b"\xff%03d" % n for n in range(60))),
    ),
    "first values of other rows": ("catalog.2.first.npy", _saved("catalog.2.first.npy", lambda held: held * 0)),
}


def test_the_same_parts_sealed_again_are_served(store: BundleStore) -> None:
    """Control: sealing alone does not break a version."""
    assert load(store, _sealed(store, lambda folder: None, {"note": "same"}), Encoders("cpu"))


@pytest.mark.parametrize("fault", CHANGES)
def test_a_part_that_does_not_fit_is_refused_by_name(store: BundleStore, fault: str) -> None:
    """A refusal, never a fault of the program: the versions after this one are still to be followed."""
    named, change = CHANGES[fault]
    assert named in _refusal(store, change)


def _profile(**members: Any) -> dict[str, Any]:
    whole = {"depth": 200, "floor": 0.2, "link": {"slope": 3, "intercept": 0, "calibrated": False}}
    return {**whole, "weights": _weights(1.0, 0.5, 0.5), **members}


def _weights(*legs: float, **others: float) -> dict[str, float]:
    return {**dict.fromkeys(NAMES, 0.0), **dict(zip(NAMES, legs, strict=False)), **others}


WORDS = _profile(weights=_weights(0, 0.5, 0.5))


@pytest.mark.parametrize(
    ("default", "lexical"),
    [
        (_profile(depth=float("inf")), WORDS),
        (_profile(depth=10**9), WORDS),
        (_profile(weights=_weights(10**400)), WORDS),
        (_profile(weights=_weights(1e308, 1e308)), WORDS),
        (_profile(), _profile()),
        (_profile(), _profile(weights=_weights(1))),
        (_profile(weights=_weights(1, -0.1, 0.5)), WORDS),
        (_profile(weights=_weights(head=0.1)), WORDS),
        (_profile(weights={"dense": 1.0, "bm25_title": 0.5, "bm25_all": 0.5}), WORDS),
        (_profile(weights=_weights(1, excluded=float("-inf"))), WORDS),
        (_profile(link={"slope": -3, "intercept": 0, "calibrated": True}), WORDS),
        (_profile(link={"slope": 3, "intercept": 0, "calibrated": True, "clarity": {"words_best": 1}}), WORDS),
    ],
)
def test_a_configuration_that_cannot_rank_is_refused(
    store: BundleStore, default: dict[str, Any], lexical: dict[str, Any]
) -> None:
    """Depths and weights beyond all bounds, legs that count against a product or not at all, features that are not
    named, links that turn the order round, and a profile to fall back to that needs the encoder."""
    ranking = {"profiles": {"default": default, "lexical": lexical}}
    assert "manifest.json" in _refusal(store, lambda folder: None, {"ranking": ranking})


@pytest.mark.parametrize("catalogue", [[1], "x", {"examples": 5}])
def test_a_catalogue_that_cannot_present_itself_is_refused(store: BundleStore, catalogue: object) -> None:
    """Else the list of collections would fail for all of them."""
    assert "manifest.json: catalogue" in _refusal(store, lambda folder: None, {"catalogue": catalogue})


def test_an_encoder_with_another_prefix_has_another_digest(tiny_encoder: Path, tmp_path: Path) -> None:
    """Vectors are cached under the digest: one of "mug" must not serve for "query: mug"."""
    shutil.copytree(tiny_encoder, tmp_path / "prefixed")
    _updated("encoder.json", query_prefix="query: ")(tmp_path / "prefixed")
    plain, prefixed = Encoder(tiny_encoder, "cpu"), Encoder(tmp_path / "prefixed", "cpu")
    assert not np.allclose(plain.queries(["mug"]), prefixed.queries(["mug"]))
    assert plain.digest != prefixed.digest


def test_an_index_that_cannot_be_written_in_full_is_an_error_of_the_system(tmp_path: Path) -> None:
    """A full disk, as the command line reports it: FAISS speaks of a RuntimeError."""
    (tmp_path / "dense.faiss").symlink_to("/dev/full")
    with pytest.raises(OSError, match="dense.faiss"):
        FaissIndex.build(np.ones((600, 32), np.float32)).save(tmp_path)


def test_a_title_of_signs_alone_does_not_stop_a_build(tiny_encoder: Path, tmp_path: Path) -> None:
    """It cannot be a golden query; the product is built all the same."""
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", [{"id": "a", "title": "™"}, {"id": "b", "title": "mug"}])
    command = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(tmp_path / "b")]
    assert aisle(command) == 0
