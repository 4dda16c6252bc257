"""Two encoders as one: their vectors side by side, so that a dot product is the weighted mean of both cosines.

    python -m models.ensemble FIRST SECOND OUT --share 0.2

A sentence encoder knows the language and word vectors trained on the catalogue know the shop: what the one overlooks
the other often finds. SECOND is a `words` encoder of `aisle train`, whose word pieces are some of FIRST's; pieces that
it does not have are masked out of its mean. The result is an encoder folder like any other: one graph, one tokenizer.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper
from tokenizers import Tokenizer

from models.parity import SAMPLE, encode_each, onnx_encoder, token_ids

_PREFIX = "second/"
_MOST_DIFFERENCE = 1e-4


class EnsembleError(ValueError):
    """Two encoder folders that do not go together."""


def combine(first: Path, second: Path, out: Path, *, share: float, name: str | None = None) -> dict[str, Any]:
    """Writes the encoder folder `out`, in whose cosine `second` counts `share` (0..1); returns its encoder.json.

    Raises EnsembleError where either has towers that differ, where a piece of the second is none of the first's, or
    where the graph does not give both vectors as they are; OSError.
    """
    if not 0.0 < share < 1.0:
        raise EnsembleError(f"share must lie between 0 and 1, not {share}")
    for folder in (first, second):
        if (folder / "product_encoder.onnx").exists():
            raise EnsembleError(f"{folder} has an encoder of its own for products: such towers cannot be combined")
    one, other = (json.loads((folder / "encoder.json").read_text("utf-8")) for folder in (first, second))
    if one.get("query_prefix") or one.get("product_prefix"):
        raise EnsembleError(f"{first} puts a prefix before its texts: the second would read it as words")
    tokenizers = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (first, second)]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "encoder.onnx"
        onnx.save(_joined(first, second, _places(*tokenizers), share), path)
        _check(first, second, path, tokenizers, share)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / "encoder.onnx")
    (out / "product_encoder.onnx").unlink(missing_ok=True)
    shutil.copyfile(first / "tokenizer.json", out / "tokenizer.json")
    description = {
        **one,
        "name": name or out.name,
        "dimension": one["dimension"] + other["dimension"],
        "base": {"first": one.get("base"), "second": other.get("base")},
        "recipe": f"models.ensemble, share {share:g}, of {one['name']} and {other['name']}",
        "sha256": {
            part: hashlib.sha256((out / part).read_bytes()).hexdigest() for part in ("encoder.onnx", "tokenizer.json")
        },
        "parity": {"first": one.get("parity"), "second": other.get("parity")},
    }
    (out / "encoder.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return description


def _places(first: Tokenizer, second: Tokenizer) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[pieces of the first]: the id of the same piece in the second, -1 where it has none."""
    known, pieces = first.get_vocab(), second.get_vocab()
    if lacking := sorted(pieces.keys() - known.keys()):
        raise EnsembleError(f"{len(lacking)} word pieces of the second are none of the first's, such as {lacking[0]!r}")
    places = np.full(max(known.values()) + 1, -1, dtype=np.int64)
    for piece, number in pieces.items():
        places[known[piece]] = number
    return places


def _joined(first: Path, second: Path, places: np.ndarray[Any, np.dtype[np.int64]], share: float) -> onnx.ModelProto:
    """One graph: the first's as it is, the second's behind a table of its ids, and both outputs side by side."""
    a = compose.add_prefix(onnx.load(first / "encoder.onnx"), "first/", rename_inputs=False)
    b = compose.add_prefix(onnx.load(second / "encoder.onnx"), _PREFIX)
    opsets = {one.domain: one.version for model in (b, a) for one in model.opset_import}
    if {"": opsets[""]} != {one.domain: one.version for one in b.opset_import if not one.domain}:
        raise EnsembleError("the two graphs are of different ONNX operator sets")
    tables = {"places": np.maximum(places, 0), "has": (places >= 0).astype(np.int64)}
    scales = {"first_scale": math.sqrt(1.0 - share), "second_scale": math.sqrt(share)}
    constants = [numpy_helper.from_array(value, key) for key, value in tables.items()]
    constants += [numpy_helper.from_array(np.array(value, dtype=np.float32), key) for key, value in scales.items()]
    before = [
        helper.make_node("Gather", ["places", "input_ids"], [f"{_PREFIX}input_ids"]),
        helper.make_node("Gather", ["has", "input_ids"], ["known"]),
        helper.make_node("Mul", ["known", "attention_mask"], [f"{_PREFIX}attention_mask"]),
    ]
    after = [
        helper.make_node("Mul", ["first/embedding", "first_scale"], ["first_part"]),
        helper.make_node("Mul", [f"{_PREFIX}embedding", "second_scale"], ["second_part"]),
        helper.make_node("Concat", ["first_part", "second_part"], ["embedding"], axis=1),
    ]
    output = helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", None])
    graph = helper.make_graph(
        [*a.graph.node, *before, *b.graph.node, *after],
        "ensemble",
        list(a.graph.input),
        [output],
        [*a.graph.initializer, *b.graph.initializer, *constants],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    )
    model.ir_version = max(a.ir_version, b.ir_version)
    return model


def _check(first: Path, second: Path, path: Path, tokenizers: list[Tokenizer], share: float) -> None:
    """The first part must be the first encoder's vector over the sample; the second part the second's, over texts that
    both cut alike."""
    ids = token_ids(tokenizers[0], SAMPLE, 64)
    theirs = token_ids(tokenizers[1], SAMPLE, 64)
    a, b = encode_each(onnx_encoder(first / "encoder.onnx"), ids), onnx_encoder(second / "encoder.onnx")
    both = encode_each(onnx_encoder(path), ids)
    lost = float(np.abs(both[:, : a.shape[1]] - math.sqrt(1 - share) * a).max())
    pieces = [[tokenizer.id_to_token(int(i)) for i in row[0]] for tokenizer, row in ((tokenizers[0], r) for r in ids)]
    for at, row in enumerate(theirs):
        if [tokenizers[1].id_to_token(int(i)) for i in row[0]] == pieces[at]:
            expected = math.sqrt(share) * b(row, np.ones_like(row))[0]
            lost = max(lost, float(np.abs(both[at, a.shape[1] :] - expected).max()))
    if not lost <= _MOST_DIFFERENCE:
        raise EnsembleError(f"the combined graph differs from its parts by {lost}")


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 when the two do not go together."""
    parser = argparse.ArgumentParser(prog="python -m models.ensemble", description="two encoders as one")
    parser.add_argument("first", type=Path, help="encoder folder, such as the shipped one")
    parser.add_argument("second", type=Path, help="encoder folder of kind words, trained on the catalogue")
    parser.add_argument("out", type=Path, help="encoder folder to make")
    parser.add_argument("--share", type=float, default=0.2, help="of the second in the cosine (default: 0.2)")
    parser.add_argument("--name", help="name in encoder.json (default: the output folder's)")
    options = vars(parser.parse_args(arguments))
    try:
        description = combine(options.pop("first"), options.pop("second"), options.pop("out"), **options)
    except (EnsembleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{description['name']}: {description['dimension']} dimensions, {description['recipe']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
