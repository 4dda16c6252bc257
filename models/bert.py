"""The sentence encoder: BERT (Devlin et al. 2018), mean over the mask, unit length (Sentence-BERT, Reimers 2019).

Parameter names are those of the Hugging Face BERT files, so a checkpoint loads without a renaming table. The forward
pass is written in the plain form that `onnxruntime.transformers.optimizer` knows how to fuse.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

PREFIXES = ("bert.", "0.auto_model.", "model.", "encoder_model.")


@dataclass(frozen=True)
class BertConfig:
    """The part of a Hugging Face `config.json` that decides the network. Defaults are those of MiniLM-L6-H384."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    @classmethod
    def read(cls, path: Path) -> BertConfig:
        """Reads `config.json`; raises ValueError for a network that is not this one."""
        raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
        expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in expected.items():
            if raw.get(key, value) != value:
                raise ValueError(f"{path}: {key} is {raw[key]!r}, only {value!r} is supported")
        return cls(**{field.name: raw[field.name] for field in fields(cls) if field.name in raw})


class Embeddings(nn.Module):
    """Token, position and (constant) segment 0 embeddings, summed and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        positions = torch.arange(config.max_position_embeddings).expand(1, -1)
        self.register_buffer("position_ids", positions, persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        position_ids = cast(Tensor, self.position_ids)[:, : input_ids.shape[1]]
        summed = self.word_embeddings(input_ids) + self.token_type_embeddings(torch.zeros_like(input_ids))
        return cast(Tensor, self.dropout(self.LayerNorm(summed + self.position_embeddings(position_ids))))


class SelfAttention(nn.Module):
    """Multi-head attention without its output projection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask_bias: Tensor) -> Tensor:
        query, key, value = (self.split_heads(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.head_size)
        weights = self.dropout(nn.functional.softmax(scores + mask_bias, dim=-1))
        mixed = torch.matmul(weights, value).permute(0, 2, 1, 3).contiguous()
        return mixed.view(mixed.shape[0], mixed.shape[1], self.heads * self.head_size)


class Projection(nn.Module):
    """Linear, dropout, residual and LayerNorm: the second half of both sub-layers."""

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return cast(Tensor, self.LayerNorm(self.dropout(self.dense(x)) + residual))


class Layer(nn.Module):
    """One transformer layer: attention, then a feed-forward with the exact (erf) GELU."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": Projection(config, config.hidden_size)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = Projection(config, config.intermediate_size)

    def forward(self, x: Tensor, mask_bias: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask_bias), x)
        return cast(Tensor, self.output(nn.functional.gelu(self.intermediate["dense"](x)), x))


class BertEncoder(nn.Module):
    """Texts as token ids in, unit vectors out. Nothing else of BERT (pooler, heads) is kept."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, tokens] twice (mask: 1 = token, 0 = padding) → what the last layer makes of each token, float32
        [batch, tokens, hidden]."""
        mask_bias = (1.0 - attention_mask.unsqueeze(1).unsqueeze(2).to(torch.float32)) * -10000.0
        x = self.embeddings(input_ids)
        for layer in cast(nn.ModuleList, self.encoder["layer"]):
            x = layer(x, mask_bias)
        return cast(Tensor, x)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, tokens] twice → float32 [batch, hidden], rows of length 1."""
        x = self.hidden(input_ids, attention_mask)
        # The mean over the mask is the sum up to a factor, which the normalisation takes out again.
        summed = (x * attention_mask.unsqueeze(-1).to(x.dtype)).sum(dim=1)
        return cast(Tensor, summed / summed.norm(p=2, dim=1, keepdim=True).clamp(min=1e-12))

    @classmethod
    def from_checkpoint(cls, folder: Path) -> BertEncoder:
        """Loads `config.json` and `model.safetensors` (or `pytorch_model.bin`); the encoder is in evaluation mode.

        Raises FileNotFoundError without weights, ValueError when they are not those of a BERT of that configuration.
        """
        encoder = cls(BertConfig.read(folder / "config.json"))
        own = encoder.state_dict()
        found = {name: tensor.float() for name, tensor in read_weights(folder).items() if name in own}
        if missing := sorted(own.keys() - found.keys()):
            raise ValueError(f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}")
        try:
            encoder.load_state_dict(found)
        except RuntimeError as error:
            raise ValueError(f"{folder}: {error}") from error
        encoder.eval()
        return encoder


def weights_file(folder: Path) -> Path:
    """The file of a checkpoint folder that holds the weights; raises FileNotFoundError when there is none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: neither model.safetensors nor pytorch_model.bin")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name → tensor with wrapper prefixes ("bert.", …) removed. Never unpickles anything but tensors."""
    path = weights_file(folder)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return {_bare(name): tensor for name, tensor in state.items()}


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
