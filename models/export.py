"""From a BERT-type checkpoint folder to the artefact that a bundle serves.

    python -m models.export CHECKPOINT_FOLDER OUT_FOLDER [--precision int8|fp32|fp16]

trace (torch → ONNX, pooling and normalisation inside) → fuse (onnxruntime's transformer kernels) → lower the
precision → check against the original → only then write `encoder.onnx`, `tokenizer.json`, `encoder.json`.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tokenizers import Tokenizer

from app.search.probes import KEY as PROBES
from app.search.probes import Probes
from models.bert import BertEncoder, weights_file
from models.graph import OPSET, ExportError, Precision, fuse, lower, trace
from models.parity import (
    PROBE_TEXTS,
    SAMPLE,
    Encode,
    Ids,
    Parity,
    Vectors,
    compare,
    encode_each,
    encode_padded,
    onnx_encoder,
    token_ids,
)

MAX_FP32_DIFFERENCE = 1e-4
MIN_OVERLAP = 0.9
MIN_MEAN_COSINE: dict[Precision, float] = {"int8": 0.98, "fp32": 0.99999, "fp16": 0.9999}
MIN_COSINE: dict[Precision, float] = {"int8": 0.95, "fp32": 0.99999, "fp16": 0.999}


@dataclass(frozen=True)
class ExportReport:
    """What was made, and how far it is from the original."""

    description: dict[str, Any]
    fp32: Parity
    parity: Parity
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The description as in `encoder.json`, and the size."""
        return {**self.description, "size_bytes": self.size_bytes}

    def __str__(self) -> str:
        lines = [f"{'':22} {'mean cosine':>12} {'lowest':>12} {'top-10':>12} {'|difference|':>12}"]
        for name, one in (("fp32 ONNX to PyTorch", self.fp32), ("exported to fp32 ONNX", self.parity)):
            figures = f"{one.mean_cosine:12.5f} {one.min_cosine:12.5f} {one.top10_overlap:12.4f}"
            lines.append(f"{name:22} {figures} {one.max_abs_difference:12.2e}")
        precision, megabytes = self.description["precision"], self.size_bytes / 1e6
        return "\n".join([*lines, f"{self.parity.texts} texts; {precision}, {megabytes:.1f} MB"])


class ParityLost(ExportError):
    """The exported encoder is further from the original than the bounds allow; `report` says how far."""

    def __init__(self, report: ExportReport, broken: Sequence[str]) -> None:
        super().__init__("; ".join(broken))
        self.report = report


def export(
    checkpoint: Path,
    out: Path,
    *,
    precision: Precision = "int8",
    max_query_tokens: int = 64,
    max_product_tokens: int = 128,
    query_prefix: str = "",
    product_prefix: str = "",
    name: str | None = None,
    sample: Sequence[str] = SAMPLE,
    keep_fp32: Path | None = None,
) -> ExportReport:
    """Exports `checkpoint` (config.json, weights, tokenizer.json, optionally base.json) to `out`.

    `sample` are the texts over which parity is measured; `keep_fp32` also keeps the fused fp32 graph. `out` is written
    only when every bound holds, and other files in it (card, licence) are left alone. Raises ParityLost, ExportError,
    OSError, ValueError.
    """
    model = BertEncoder.from_checkpoint(checkpoint)
    longest = max(max_query_tokens, max_product_tokens)
    if longest > model.config.max_position_embeddings:
        raise ValueError(f"{longest} tokens: the checkpoint has {model.config.max_position_embeddings} positions")
    if len(sample) < 2:
        raise ValueError("parity needs a sample of at least two texts")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        tokenizer = _write_tokenizer(checkpoint / "tokenizer.json", work / "tokenizer.json")
        traced = trace(model, work / "traced.onnx")
        fused = fuse(traced, work / "fp32.onnx", model.config)
        encoder = lower(fused, work / "encoder.onnx", precision)

        ids = token_ids(tokenizer, sample, longest)
        reference = encode_each(onnx_encoder(fused), ids)
        asked = token_ids(tokenizer, [query_prefix + text for text in PROBE_TEXTS], max_query_tokens)
        weights = _sha256(weights_file(checkpoint))
        probes = Probes(weights, PROBE_TEXTS, encode_each(onnx_encoder(fused), asked))
        fp32 = _against_torch(model, onnx_encoder(fused), ids, reference)
        parity = compare(encode_each(onnx_encoder(encoder), ids), reference)
        description = {
            "name": name or out.name,
            "dimension": model.config.hidden_size,
            "max_query_tokens": max_query_tokens,
            "max_product_tokens": max_product_tokens,
            "query_prefix": query_prefix,
            "product_prefix": product_prefix,
            "precision": precision,
            "base": _base(checkpoint),
            "recipe": _recipe(precision),
            "sha256": {part: _sha256(work / part) for part in ("encoder.onnx", "tokenizer.json")},
            "parity": {"fp32_to_torch": asdict(fp32), f"{precision}_to_fp32": asdict(parity)},
            PROBES: probes.to_json(),
        }
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (work / "encoder.json").write_text(text, "utf-8")
        report = ExportReport(description, fp32, parity, encoder.stat().st_size)
        if broken := broken_bounds(fp32, parity, precision):
            raise ParityLost(report, broken)
        _deliver(work, out, keep_fp32)
    return report


def broken_bounds(fp32: Parity, parity: Parity, precision: Precision) -> tuple[str, ...]:
    """The bounds that do not hold, in words; not-a-number breaks every one."""
    checks = (
        (fp32.max_abs_difference <= MAX_FP32_DIFFERENCE, f"fp32 differs from PyTorch by {fp32.max_abs_difference}"),
        (parity.mean_cosine >= MIN_MEAN_COSINE[precision], f"mean cosine to fp32 is {parity.mean_cosine}"),
        (parity.min_cosine >= MIN_COSINE[precision], f"lowest cosine to fp32 is {parity.min_cosine}"),
        (parity.top10_overlap >= MIN_OVERLAP, f"top-10 overlap with fp32 is {parity.top10_overlap}"),
    )
    return tuple(failure for holds, failure in checks if not holds)


def _against_torch(model: BertEncoder, fp32: Encode, ids: Sequence[Ids], alone: Vectors) -> Parity:
    """fp32 ONNX to PyTorch, the worse of: each text alone, and all in one padded batch."""

    def encode(input_ids: Ids, attention_mask: Ids) -> Vectors:
        with torch.no_grad():
            vectors = model(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
        return np.asarray(vectors.numpy(), dtype=np.float32)

    reference = encode_each(encode, ids)
    sides = (compare(alone, reference), compare(encode_padded(fp32, ids), reference))
    return max(sides, key=lambda side: side.max_abs_difference)


def _write_tokenizer(source: Path, path: Path) -> Tokenizer:
    """Copies the tokenizer without padding and truncation: both belong to the caller, and a file that has them on
    would cut or pad whatever a caller forgets to set."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    path.write_text(tokenizer.to_str(), "utf-8")
    return tokenizer


def _base(checkpoint: Path) -> dict[str, str]:
    stated = checkpoint / "base.json"
    if stated.is_file():
        base: dict[str, str] = json.loads(stated.read_text("utf-8"))
        return base
    return {"name": checkpoint.name, "licence": "unknown", "sha256": _sha256(weights_file(checkpoint))}


def _recipe(precision: Precision) -> str:
    last = {
        "int8": "quantize_dynamic(QInt8, per_channel)",
        "fp16": "convert_float_to_float16(keep_io_types)",
        "fp32": "as is",
    }
    steps = (f"torch.onnx.export(opset {OPSET})", "onnxruntime.transformers.optimizer(bert)", last[precision])
    return " -> ".join(steps)


def _deliver(work: Path, out: Path, keep_fp32: Path | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for part in ("encoder.onnx", "tokenizer.json", "encoder.json"):
        shutil.copyfile(work / part, out / part)
    if keep_fp32 is not None:
        keep_fp32.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / "fp32.onnx", keep_fp32)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 when the checkpoint cannot be exported or a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m models.export", description="encoder from a checkpoint")
    parser.add_argument("checkpoint", type=Path, help="folder with config.json, model.safetensors, tokenizer.json")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--max-query-tokens", type=int, default=64)
    parser.add_argument("--max-product-tokens", type=int, default=128)
    parser.add_argument("--query-prefix", default="")
    parser.add_argument("--product-prefix", default="")
    parser.add_argument("--name", help="name in encoder.json (default: the output folder's)")
    parser.add_argument("--sample", type=Path, help="texts for the parity check, one a line")
    parser.add_argument("--keep-fp32", type=Path, help="also keep the fused fp32 graph here")
    options = vars(parser.parse_args(arguments))
    if (sample := options.pop("sample")) is not None:
        options["sample"] = [line for line in sample.read_text("utf-8").splitlines() if line.strip()]
    try:
        report = export(options.pop("checkpoint"), options.pop("out"), **options)
    except ParityLost as error:
        print(f"{error.report}\nerror: {error}", file=sys.stderr)
        return 1
    except (ExportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
