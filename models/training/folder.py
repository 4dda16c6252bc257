"""Trained towers → an encoder folder that `aisle build --encoder` takes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from models.bert import BertEncoder
from models.export import broken_bounds, export
from models.graph import ExportError, lower, trace
from models.parity import SAMPLE, Ids, Parity, Vectors, compare, encode_each, encode_padded, onnx_encoder, token_ids
from models.towers import Towers
from models.training.recipe import Recipe


def write_towers(towers: Towers, tokenizer: Tokenizer, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Traces, lowers and checks each tower, then writes `encoder.onnx` (and `product_encoder.onnx` where the towers
    differ), `tokenizer.json` and `encoder.json`; returns the last. Raises ExportError, OSError."""
    sides = {"encoder.onnx": towers.query} | ({"product_encoder.onnx": towers.product} if towers.differ else {})
    network = recipe.network
    longest = max(network.max_query_tokens, network.max_product_tokens)
    ids = token_ids(tokenizer, SAMPLE, longest)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        parities: dict[str, Any] = {}
        for name, tower in sides.items():
            parities[name] = _write(tower.cpu().eval(), ids, work / name, recipe)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        (work / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
        names = [*sides, "tokenizer.json"]
        description = {
            "name": recipe.name,
            "dimension": network.dimension,
            "max_query_tokens": network.max_query_tokens,
            "max_product_tokens": network.max_product_tokens,
            "query_prefix": "",
            "product_prefix": "",
            "precision": recipe.precision,
            "base": {"name": f"none: {recipe.kind} trained from scratch", "recipe": recipe.digest},
            "recipe": f"aisle train, kind {recipe.kind}, seed {recipe.seed}",
            "sha256": {name: hashlib.sha256((work / name).read_bytes()).hexdigest() for name in names},
            "parity": parities,
        }
        (work / "encoder.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8")
        out.mkdir(parents=True, exist_ok=True)
        (out / "product_encoder.onnx").unlink(missing_ok=True)
        for name in [*names, "encoder.json"]:
            shutil.copyfile(work / name, out / name)
    return description


def _write(tower: nn.Module, ids: list[Ids], path: Path, recipe: Recipe) -> dict[str, Any]:
    """One graph at `path`; returns how far it is from the tower. Raises ExportError beyond the bounds of an export."""
    traced = trace(tower, path.with_suffix(".traced"))
    lower(traced, path, recipe.precision)

    def of_torch(input_ids: Ids, attention_mask: Ids) -> Vectors:
        with torch.no_grad():
            vectors = tower(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
        return np.asarray(vectors.numpy(), dtype=np.float32)

    reference = encode_each(of_torch, ids)
    plain = onnx_encoder(traced)
    alone = encode_each(plain, ids)
    sides = (compare(alone, reference), compare(encode_padded(plain, ids), reference))
    fp32: Parity = max(sides, key=lambda side: side.max_abs_difference)
    parity = compare(encode_each(onnx_encoder(path), ids), alone)
    if broken := broken_bounds(fp32, parity, recipe.precision):
        raise ExportError("; ".join(broken))
    return {"fp32_to_torch": asdict(fp32), f"{recipe.precision}_to_fp32": asdict(parity)}


def write_bert(
    encoder: BertEncoder, tokenizer: Tokenizer, recipe: Recipe, base: dict[str, str], checkpoint: Path, out: Path
) -> dict[str, Any]:
    """A checkpoint folder that models.bert reads, and its export in `out`; returns encoder.json's content."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, checkpoint / "model.safetensors")
    config = {"model_type": "bert", "hidden_act": "gelu", **asdict(encoder.config)}
    (checkpoint / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (checkpoint / "base.json").write_text(json.dumps({**base, "recipe": recipe.digest}, indent=2) + "\n", "utf-8")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    (checkpoint / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    network = recipe.network
    report = export(
        checkpoint,
        out,
        precision=recipe.precision,
        max_query_tokens=network.max_query_tokens,
        max_product_tokens=network.max_product_tokens,
        name=recipe.name,
    )
    return report.description
