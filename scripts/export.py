"""aisle export: an encoder folder from a BERT-type checkpoint; needs the `train` extra."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="folder with config.json, model.safetensors and tokenizer.json")
    parser.add_argument("out", type=Path, help="encoder folder to make")
    parser.add_argument("--precision", choices=("int8", "fp32", "fp16"), default="int8", help="default: int8")


def run(arguments: argparse.Namespace, output: Output) -> int:
    try:
        from models.export import export
    except ImportError as error:
        output.warn(f"export needs the train extra: pip install 'aisle[train]' ({error.name} is missing)")
        return 1
    report = export(arguments.checkpoint, arguments.out, precision=arguments.precision)
    output.result(report.to_json(), str(report))
    return 0
