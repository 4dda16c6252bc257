"""A shop whose catalogue is built again and again: by one who errs, and by one who does not.

Seven harmful ways and twenty harmless ones to make the next version of a published one. Both run over a tiny encoder
in seconds and over the shipped one in minutes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.index.bundle import BundleStore
from app.index.dense import FaissIndex
from app.types import Floats
from models.gate import Verdict, judge
from scripts.cli import main as aisle
from tests import tiny

Row = dict[str, Any]
PUBLISHED, LATER, EARLIER = "2026-03-02T02:00:00", "2026-03-03T02:00:00", "2026-02-01T02:00:00"


@dataclass
class Shop:
    """Products, an encoder, judgements, and a published version of all that under `folder`."""

    folder: Path
    rows: list[Row]
    encoder: Path
    judged: list[str]
    mapping: Path | None = None

    @property
    def store(self) -> BundleStore:
        return BundleStore(self.folder / "bundles")

    def open(self) -> Shop:
        """Publish the first version (forced: a random encoder is worse than words alone, and the gate knows)."""
        assert self.store.current() is None
        self._build(self.written(self.rows), "--as-of", PUBLISHED, "--force", "a first version", publish=True)
        return self

    def written(self, rows: Sequence[Row], name: str = "products.jsonl") -> Path:
        path = self.folder / name
        if path.suffix != ".csv":
            return tiny.write_catalogue(path, list(rows))
        names = list(dict.fromkeys(key for row in rows for key in row))
        with path.open("w", newline="", encoding="utf-8") as file:
            sheet = csv.DictWriter(file, names)
            sheet.writeheader()
            sheet.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
        return path

    def rebuilt(
        self,
        rows: Sequence[Row] | None = None,
        *more: str,
        vectors: Floats | None = None,
        encoder: Path | None = None,
        as_of: str = LATER,
        name: str = "products.jsonl",
    ) -> str:
        """The next version, not published. Vectors of unchanged texts are the published ones, unless others are given
        or another encoder is."""
        words = [*more, "--as-of", as_of]
        if vectors is not None:
            np.save(self.folder / "given.npy", vectors)
            (self.folder / "given.ids.txt").write_text("\n".join(self.ids()))
            words += ["--vectors", str(self.folder / "given.npy")]
        elif encoder is None:
            words += ["--reuse", "current"]
        return self._build(self.written(self.rows if rows is None else rows, name), *words, encoder=encoder)

    def _build(self, catalogue: Path, *more: str, encoder: Path | None = None, publish: bool = False) -> str:
        words = ["build", str(catalogue), "--bundles", str(self.store.folder), *more]
        words += ["--encoder", str(encoder or self.encoder)]
        words += ["--mapping", str(self.mapping)] if self.mapping and "--mapping" not in more else []
        words += [] if publish else ["--no-publish"]
        words += [] if "--unjudged" in more else self.judged
        before = set(self.store.versions())
        assert aisle([word for word in words if word != "--unjudged"]) == 0
        (made,) = set(self.store.versions()) - before
        return made

    def judge(self, version: str) -> Verdict:
        """The gate's verdict; a version that nobody published is removed again, so that its name can be had anew."""
        verdict = judge(self.store, version)
        shutil.rmtree(self.store.path(version))
        return verdict

    def ids(self) -> list[str]:
        return sorted(str(row["id"]) for row in self.rows)

    def vectors(self) -> Floats:
        """The published products' embeddings, [n, dimension], in the order of the ids."""
        folder = self.store.path(self.store.current() or "")
        if (folder / "embeddings.npy").exists():
            return np.load(folder / "embeddings.npy").astype(np.float32)
        index = FaissIndex.load(folder)
        return np.stack([index.vector(row) for row in range(len(index))])

    def other_encoder(self, change: Callable[[Path], None]) -> Path:
        """A copy of the encoder after a change, with a description that vouches for the changed files."""
        folder = self.folder / "encoder"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.encoder, folder)
        change(folder)
        description = json.loads((folder / "encoder.json").read_text())
        for name in description["sha256"]:
            description["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "encoder.json").write_text(json.dumps(description))
        return folder


# What goes wrong. Each takes the shop and whether to err: without the error, the same steps must give a good version.


def wrong_pooling(shop: Shop, err: bool) -> str:
    """The first token's vector for the mean of all."""
    return _with_encoder(shop, first_token_pooling if err else _saved_again)


def other_tokenizer(shop: Shop, err: bool) -> str:
    """Every piece has another piece's number."""
    return _with_encoder(shop, _renumbered_vocabulary if err else _saved_again)


def saturated_int8(shop: Shop, err: bool) -> str:
    """Weights quantised by a scale under which most of them clip."""
    return _with_encoder(shop, _clipped_weights if err else _saved_again)


def shuffled_vectors(shop: Shop, err: bool) -> str:
    """Every product with the vector of another."""
    vectors = shop.vectors()
    return shop.rebuilt(vectors=np.roll(vectors, 1, axis=0) if err else vectors)


def flipped_sign(shop: Shop, err: bool) -> str:
    """The stored vectors point the other way."""
    vectors = shop.vectors()
    return shop.rebuilt(vectors=-vectors if err else vectors)


def dropped_field(shop: Shop, err: bool) -> str:
    """An export without the brands."""
    return shop.rebuilt([{**row, "brand": None} for row in shop.rows] if err else shop.rows)


def stale_input(shop: Shop, err: bool) -> str:
    """The export of a month ago, which lacks a few products that came since."""
    return shop.rebuilt(shop.rows[: -len(shop.rows) // 50], as_of=EARLIER if err else LATER)


HARMFUL: dict[str, tuple[Callable[[Shop, bool], str], str, str]] = {  # → (how, the layer that sees it, its check)
    "wrong pooling": (wrong_pooling, "fingerprint", "probes"),
    "other tokenizer": (other_tokenizer, "fingerprint", "probes"),
    "saturated int8": (saturated_int8, "fingerprint", "probes"),
    "shuffled vectors": (shuffled_vectors, "fingerprint", "vectors"),
    "flipped sign": (flipped_sign, "fingerprint", "vectors"),
    "dropped field": (dropped_field, "inputs", "fields"),
    "stale input": (stale_input, "inputs", "stale"),
}


def _with_encoder(shop: Shop, change: Callable[[Path], None]) -> str:
    return shop.rebuilt(encoder=shop.other_encoder(change))


def first_token_pooling(folder: Path) -> None:
    """Replaces the sum over the tokens (which becomes their mean when it is made a unit vector)."""
    model = onnx.load(folder / "encoder.onnx")
    (pool,) = [node for node in model.graph.node if node.op_type == "ReduceSum"]
    first = numpy_helper.from_array(np.array(0, dtype=np.int64), "first_token")
    pool.CopyFrom(helper.make_node("Gather", [pool.input[0], first.name], [pool.output[0]], axis=1))
    model.graph.initializer.append(first)
    onnx.save(model, folder / "encoder.onnx")


def _renumbered_vocabulary(folder: Path) -> None:
    value = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = value["model"]["vocab"]
    pieces = [piece for piece in vocabulary if not piece.startswith("[")]
    numbers = np.random.default_rng(0).permutation([vocabulary[piece] for piece in pieces])
    vocabulary.update(zip(pieces, numbers.tolist(), strict=True))
    (folder / "tokenizer.json").write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def _clipped_weights(folder: Path) -> None:
    """A scale eight times too small; where the weights are floats, what such a scale would leave of them."""
    model = onnx.load(folder / "encoder.onnx")
    tensors = {one.name: one for one in model.graph.initializer}
    quantised = [one for one in tensors.values() if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 2]
    for one in quantised:
        scale = tensors[one.name.replace("_quantized", "_scale")]
        narrow = np.clip(numpy_helper.to_array(one).astype(np.int32) * 8, -127, 127).astype(np.int8)
        one.CopyFrom(numpy_helper.from_array(narrow, one.name))
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / np.float32(8), scale.name))
    for one in [] if quantised else [one for one in tensors.values() if len(one.dims) == 2]:
        values = numpy_helper.to_array(one)
        most = np.abs(values).max() / 8
        one.CopyFrom(numpy_helper.from_array(np.clip(values, -most, most), one.name))
    onnx.save(model, folder / "encoder.onnx")


def _saved_again(folder: Path) -> None:
    """Other bytes, the same network."""
    model = onnx.load(folder / "encoder.onnx")
    model.producer_name = "again"
    onnx.save(model, folder / "encoder.onnx")


# What does not go wrong.


def _some(shop: Shop, share: float, seed: int) -> set[int]:
    count = max(1, round(share * len(shop.rows)))
    return set(np.random.default_rng(seed).choice(len(shop.rows), count, replace=False).tolist())


def _in_another_order(shop: Shop, seed: int) -> str:
    return shop.rebuilt([shop.rows[at] for at in np.random.default_rng(seed).permutation(len(shop.rows))])


def _without(shop: Shop, share: float, seed: int) -> str:
    gone = _some(shop, share, seed)
    return shop.rebuilt([row for at, row in enumerate(shop.rows) if at not in gone])


def _with_more(shop: Shop, share: float, seed: int) -> str:
    """New colours of some products."""
    more = [{**shop.rows[at], "id": f"new-{at}", "color": "Teal"} for at in sorted(_some(shop, share, seed))]
    return shop.rebuilt([*shop.rows, *more])


def _edited(shop: Shop, share: float, seed: int, **change: Callable[[Row], Any]) -> str:
    some = _some(shop, share, seed)
    rows = [
        {**row, **{name: of(row) for name, of in change.items()}} if at in some else row
        for at, row in enumerate(shop.rows)
    ]
    return shop.rebuilt(rows)


def _as_hnsw(shop: Shop) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.index.dense.FLAT_UP_TO", 10)
        return shop.rebuilt()


def _noisy(shop: Shop) -> str:
    """As another machine's kernels give them: cosine about 0.995."""
    vectors = shop.vectors()
    size = 0.1 * np.linalg.norm(vectors, axis=1, keepdims=True) / np.sqrt(vectors.shape[1])
    return shop.rebuilt(vectors=vectors + size * np.random.default_rng(0).standard_normal(vectors.shape).astype("f4"))


BENIGN: dict[str, Callable[[Shop], str]] = {
    "the same again": lambda shop: shop.rebuilt(),
    "the same export, touched": lambda shop: shop.rebuilt(as_of=EARLIER),
    "rows in another order": lambda shop: _in_another_order(shop, 1),
    "rows in yet another order": lambda shop: _in_another_order(shop, 2),
    "1 % more products": lambda shop: _with_more(shop, 0.01, 3),
    "10 % more products": lambda shop: _with_more(shop, 0.1, 4),
    "2 % discontinued": lambda shop: _without(shop, 0.02, 5),
    "another 2 % discontinued": lambda shop: _without(shop, 0.02, 6),
    "10 % discontinued": lambda shop: _without(shop, 0.1, 7),
    "some descriptions rewritten": lambda shop: _edited(shop, 0.05, 8, description=lambda _: "Now with free shipping."),
    "some titles with a new word": lambda shop: _edited(shop, 0.03, 9, title=lambda row: f"{row['title']} (new)"),
    "some brands unknown": lambda shop: _edited(shop, 0.05, 10, brand=lambda _: None),
    "other popularity": lambda shop: _edited(shop, 1.0, 11, rating_count=lambda row: len(str(row)) * 7 % 1000),
    "an added field": lambda shop: _edited(shop, 0.5, 12, season=lambda _: "winter"),
    "compressed": lambda shop: shop.rebuilt(name="products.jsonl.gz"),
    "as CSV": lambda shop: shop.rebuilt(
        [{k: v for k, v in row.items() if k != "category"} | _leaf(row) for row in shop.rows], name="products.csv"
    ),
    "vectors given in float32": lambda shop: shop.rebuilt(vectors=shop.vectors()),
    "vectors of another machine": _noisy,
    "an approximate index": _as_hnsw,
    "the encoder exported again": lambda shop: shop.rebuilt(
        encoder=shop.other_encoder(_saved_again), vectors=shop.vectors()
    ),
}


def _leaf(row: Row) -> Row:
    return {"category": row["category"][-1]} if row.get("category") else {}
