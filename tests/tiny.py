"""A tiny bundle's ingredients: a two-layer random ONNX encoder and sixty products, the same on every run."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

DIMENSION = 32
_HIDDEN = 48
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_KINDS = ("headphones", "speaker", "kettle", "backpack", "lamp", "mug")
_QUALITIES = ("wireless", "waterproof", "small", "large", "steel", "wooden", "folding", "quiet", "bright", "soft")
_BRANDS = ("Acme", "Borealis", "Cobalt", "Dunmore", "Étoile")
_COLORS = ("black", "white", "red", "blue")


def products(count: int = 60, seed: int = 7) -> list[dict[str, Any]]:
    """Products with a text, a brand (not always), a colour, a category path, a price, stock and a rating count."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        kind, brand = _KINDS[number % len(_KINDS)], _BRANDS[int(random.integers(len(_BRANDS)))]
        first, second = random.choice(_QUALITIES, 2, replace=False)
        color = _COLORS[int(random.integers(len(_COLORS)))]
        made.append(
            {
                "id": f"p{number:03}",
                "title": f"{brand} {first} {second} {kind}",
                "description": f"A {first} {color} {kind} that is {second}, made by {brand}. Model {kind[:2]}-{number}",
                "brand": None if number % 11 == 3 else brand,
                "color": color,
                "category": ["Home", "Kitchen"] if kind in ("kettle", "mug") else ["Home", "Living", kind.title()],
                "price": None if number % 13 == 5 else round(float(random.uniform(5, 200)), 2),
                "stock": int(random.integers(0, 4)),
                "rating_count": int(random.integers(0, 1000)),
            }
        )
    return made


def write_catalogue(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSONL, compressed where the name says so."""
    raw = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def write_encoder(folder: Path, seed: int = 3) -> Path:
    """An encoder folder by the encoder contract: letters' embeddings → two layers → mean pooling → unit length."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    onnx.save(_model(tokenizer.get_vocab_size(), seed), str(folder / "encoder.onnx"))
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("encoder.onnx", "tokenizer.json")
    }
    description = {
        "name": f"tiny-{seed}",
        "dimension": DIMENSION,
        "max_query_tokens": 64,
        "max_product_tokens": 128,
        "query_prefix": "",
        "product_prefix": "",
        "precision": "fp32",
        "sha256": digests,
    }
    (folder / "encoder.json").write_text(json.dumps(description))
    return folder


def _tokenizer() -> Tokenizer:
    pairs = [first + second for first in _LETTERS for second in _LETTERS]
    words = ["[UNK]", *_LETTERS, *[f"##{one}" for one in _LETTERS], *pairs, *[f"##{one}" for one in pairs]]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _model(vocabulary: int, seed: int) -> onnx.ModelProto:
    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32), name)

    initial = [
        weights("table", vocabulary, _HIDDEN),
        weights("first", _HIDDEN, _HIDDEN),
        weights("second", _HIDDEN, DIMENSION),
        numpy_helper.from_array(np.array([1], np.int64), "tokens_axis"),
        numpy_helper.from_array(np.array([2], np.int64), "last_axis"),
        numpy_helper.from_array(np.float32(1e-12), "tiny"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "first"], ["layer_one"]),
        helper.make_node("Tanh", ["layer_one"], ["active"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last_axis"], ["mask3"]),
        helper.make_node("Mul", ["active", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens_axis"], ["summed"], keepdims=0),
        helper.make_node("MatMul", ["summed", "second"], ["projected"]),
        helper.make_node("ReduceL2", ["projected"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["safe"]),
        helper.make_node("Div", ["projected", "safe"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIMENSION])],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
