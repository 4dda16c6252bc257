"""aisle export: an encoder folder from a BERT-type checkpoint; needs the `train` extra."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="folder with config.json, model.safetensors and tokenizer.json")
    parser.add_argument("out", type=Path, help="encoder folder to make")
    parser.add_argument("--precision", choices=("int8", "fp32", "fp16"), default="int8", help="default: int8")
    parser.add_argument("--max-query-tokens", type=int, default=64, help="longer queries are cut (default: 64)")
    parser.add_argument(
        "--max-product-tokens", type=int, default=128, help="longer product texts are cut (default: 128)"
    )
    parser.add_argument("--query-prefix", default="", help='put before queries, such as "query: " for e5 models')
    parser.add_argument("--product-prefix", default="", help='put before product texts, such as "passage: "')
    parser.add_argument("--name", help="name in the encoder's description (default: the folder's)")
    parser.add_argument("--sample", type=Path, help="texts for the parity check, one a line (default: a built-in list)")
    parser.add_argument("--keep-fp32", type=Path, help="write the fp32 ONNX here too")


def run(arguments: argparse.Namespace, output: Output) -> int:
    try:
        from models.export import export
        from models.graph import ExportError
    except ImportError as error:
        output.warn(f"export needs the train extra: pip install 'aisle[cpu,train]' ({error.name} is missing)")
        return 1
    options = {
        name: getattr(arguments, name)
        for name in (
            "precision",
            "max_query_tokens",
            "max_product_tokens",
            "query_prefix",
            "product_prefix",
            "name",
            "keep_fp32",
        )
    }
    if arguments.sample is not None:
        options["sample"] = arguments.sample.read_text(encoding="utf-8").splitlines()
    try:
        report = export(arguments.checkpoint, arguments.out, **options)
    except ExportError as error:
        output.warn(str(error))
        return 1
    output.result(report.to_json(), str(report))
    return 0
