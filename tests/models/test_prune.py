"""A smaller checkpoint is the same network with less in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

torch = pytest.importorskip("torch", reason="needs the train extra")

from safetensors.torch import save_file  # noqa: E402 - needs torch

from models.bert import BertConfig, BertEncoder  # noqa: E402
from models.prune import main, smaller  # noqa: E402
from tests import tiny  # noqa: E402

TEXTS = ("steel mug", "wooden lamp of oak")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A three-layer BERT with seeded random weights over the tiny tokenizer."""
    folder = tiny.write_encoder(tmp_path / "tiny").rename(tmp_path / "checkpoint")
    sizes = {
        "vocab_size": Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(), "hidden_size": 16,
        "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu", **sizes}))
    torch.manual_seed(7)
    save_file(
        {f"bert.{name}": tensor for name, tensor in BertEncoder(BertConfig(**sizes)).state_dict().items()},
        folder / "model.safetensors",
    )
    return folder


def vectors(folder: Path, texts: tuple[str, ...]) -> Any:
    """Each text alone through the checkpoint."""
    encoder, tokenizer = BertEncoder.from_checkpoint(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids])
            rows.append(encoder(ids, torch.ones_like(ids)).numpy()[0])
    return np.stack(rows)


def test_without_unused_pieces_the_catalogue_keeps_its_vectors(checkpoint: Path, tmp_path: Path) -> None:
    """To the bit, from a smaller table; a text of other pieces has another vector, yet has one."""
    config = smaller(checkpoint, tmp_path / "out", texts=TEXTS)
    assert config.vocab_size < 200 < BertConfig.read(checkpoint / "config.json").vocab_size
    np.testing.assert_array_equal(vectors(tmp_path / "out", TEXTS), vectors(checkpoint, TEXTS))
    other = ("zzyzx",)
    assert np.abs(vectors(tmp_path / "out", other) - vectors(checkpoint, other)).max() > 1e-3


def test_layers_are_kept_in_the_order_given(checkpoint: Path, tmp_path: Path) -> None:
    """All of them change nothing; without one the vectors are others."""
    assert smaller(checkpoint, tmp_path / "all", layers=[0, 1, 2]).num_hidden_layers == 3
    np.testing.assert_array_equal(vectors(tmp_path / "all", TEXTS), vectors(checkpoint, TEXTS))
    assert smaller(checkpoint, tmp_path / "two", layers=[0, 2]).num_hidden_layers == 2
    whole, two = BertEncoder.from_checkpoint(checkpoint), BertEncoder.from_checkpoint(tmp_path / "two")
    for name, tensor in two.encoder["layer"][1].state_dict().items():
        assert torch.equal(tensor, whole.encoder["layer"][2].state_dict()[name])
    assert np.abs(vectors(tmp_path / "two", TEXTS) - vectors(checkpoint, TEXTS)).max() > 1e-4


@pytest.mark.parametrize("layers", ["7", "1,1", "x"])
def test_layers_that_are_not_there_are_refused(checkpoint: Path, tmp_path: Path, layers: str) -> None:
    """Nothing is written; the same command with layers that are there does its work."""
    assert main([str(checkpoint), str(tmp_path / "out"), "--layers", layers]) == 1
    assert not (tmp_path / "out").exists()
    assert main([str(checkpoint), str(tmp_path / "out"), "--layers", "0,1"]) == 0
