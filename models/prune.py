"""A smaller BERT checkpoint: without the word pieces that a catalogue never uses, or without some of its layers.

    python -m models.prune CHECKPOINT OUT [--texts FILE] [--layers 0,1,2,4,5]

Without unused pieces every text of the catalogue keeps its vector to the bit (in fp32); a query's word of a dropped
piece falls into smaller ones. Dropped layers cost quality, to be won back by training (Sajjad et al. 2023). Both are
measured after `aisle export`, like any checkpoint.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from models.bert import BertConfig, read_weights
from models.training.vocabulary import prune

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
_TABLE = "embeddings.word_embeddings.weight"


def smaller(
    checkpoint: Path, out: Path, *, texts: Iterable[str] | None = None, layers: Sequence[int] | None = None
) -> BertConfig:
    """Writes the checkpoint folder `out`: with `texts`, only the word pieces that they use; with `layers`, only those
    layers, in the order given. Returns its configuration. Raises ValueError for a layer that is not there or given
    twice, OSError."""
    weights = read_weights(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    tokenizer: Tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    if layers is not None:
        count = int(config["num_hidden_layers"])
        if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(count)):
            raise ValueError(f"layers must be different ones of 0 to {count - 1}, not {list(layers)}")
        weights = _with_layers(weights, layers)
        config["num_hidden_layers"] = len(layers)
    if texts is not None:
        tokenizer, old = prune(tokenizer, texts)
        weights[_TABLE] = weights[_TABLE][torch.tensor(old)]
        config["vocab_size"] = len(old)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    (out / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    if (checkpoint / "base.json").is_file():
        shutil.copyfile(checkpoint / "base.json", out / "base.json")
    return BertConfig.read(out / "config.json")


def _with_layers(weights: dict[str, torch.Tensor], layers: Sequence[int]) -> dict[str, torch.Tensor]:
    place = {layer: at for at, layer in enumerate(layers)}
    kept = {}
    for name, tensor in weights.items():
        found = _LAYER.match(name)
        if found is None:
            kept[name] = tensor
        elif (layer := int(found[1])) in place:
            kept[name.replace(f"layer.{layer}.", f"layer.{place[layer]}.", 1)] = tensor
    return kept


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 when the checkpoint cannot be cut down so."""
    parser = argparse.ArgumentParser(prog="python -m models.prune", description="a smaller BERT checkpoint")
    parser.add_argument("checkpoint", type=Path, help="folder with config.json, weights, tokenizer.json")
    parser.add_argument("out", type=Path, help="checkpoint folder to make")
    parser.add_argument("--texts", type=Path, help="keep only the word pieces of these texts, one a line")
    parser.add_argument("--layers", help="keep these layers alone, such as 0,1,3,5")
    options = parser.parse_args(arguments)
    try:
        texts = options.texts.read_text("utf-8").splitlines() if options.texts else None
        layers = [int(one) for one in options.layers.split(",")] if options.layers else None
        config = smaller(options.checkpoint, options.out, texts=texts, layers=layers)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {config.num_hidden_layers} layers, {config.vocab_size:,} word pieces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
