"""Texts through a torch encoder, in training and for evaluation: sorted by length, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from app.types import Floats

_CHUNK = 16  # on a CPU a chunk of like lengths costs less than a batch padded to its longest


class Texts:
    """Texts → ids, cut at `longest` tokens, [CLS] and [SEP] kept."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_str(tokenizer.to_str())  # cutting is a state of the object
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(longest)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """At least one token a text: an empty one is a zero, as the service has it."""
        return [one.ids or [0] for one in self._tokenizer.encode_batch(list(texts))]


def encode(
    model: nn.Module, texts: Texts, batch: Sequence[str], device: torch.device, *, bfloat16: bool = False
) -> Tensor:
    """Unit vectors float32 [batch, dimension] in the order given, with gradients where they are enabled."""
    ids = texts.ids(batch)
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    chunk = _CHUNK if device.type == "cpu" else max(len(ids), 1)
    parts = []
    for start in range(0, len(order), chunk):
        rows = [ids[at] for at in order[start : start + chunk]]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            parts.append(model(*padded(rows, device)).float())
    back = torch.empty(len(order), dtype=torch.int64)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back.to(device)]


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, mask), int64 [n, longest], zeros behind each text."""
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def vectors(
    model: nn.Module, texts: Texts, all_texts: Sequence[str], device: torch.device, *, bfloat16: bool = False
) -> Floats:
    """Unit vectors [n, dimension] without gradients or dropout; the model's mode is left as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                encode(model, texts, all_texts[start : start + 512], device, bfloat16=bfloat16).cpu().numpy()
                for start in range(0, len(all_texts), 512)
            ]
    finally:
        model.train(training)
    return np.concatenate(parts).astype(np.float32)
