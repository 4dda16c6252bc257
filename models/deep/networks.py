"""The two networks: each gives the products of a list one number apiece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.bert import BertEncoder


class CrossEncoder(nn.Module):
    """Query and product as one text, `[CLS] query [SEP] product [SEP]` → one number."""

    def __init__(self, trunk: BertEncoder) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.config.hidden_size, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, tokens] twice → float32 [batch]."""
        hidden = self.trunk.hidden(input_ids, attention_mask)
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return cast(Tensor, self.head(mean).squeeze(1))


class LateInteraction(nn.Module):
    """Σ over query tokens of the nearest product token's cosine, over `width` numbers a token (0: the trunk's own)."""

    def __init__(self, trunk: BertEncoder, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        hidden = trunk.config.hidden_size
        self.projection = nn.Linear(hidden, width, bias=False) if width else nn.Identity()
        if width:
            nn.init.orthogonal_(cast(nn.Linear, self.projection).weight)
        self.scale = nn.Parameter(torch.tensor(10.0))

    def tokens(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Unit vectors [n, tokens, width] and their mask."""
        rows, mask = padded(ids, self.scale.device)
        return functional.normalize(self.projection(self.trunk.hidden(rows, mask)).float(), dim=2), mask

    def meet(self, queries: Sequence[list[int]], products: Sequence[list[int]]) -> Tensor:
        """Of each query with its share of the products, [queries, products / queries]."""
        asked, asked_mask = self.tokens(queries)
        held, mask = self.tokens(products)
        count = len(products) // len(queries)
        near = torch.einsum("lqd,lntd->lnqt", asked, held.view(len(queries), count, *held.shape[1:]))
        best = near.masked_fill(mask.view(len(queries), count, 1, -1) == 0, -1.0).amax(dim=3)
        mean = (best * asked_mask.unsqueeze(1)).sum(dim=2) / asked_mask.sum(dim=1).view(-1, 1)
        return mean * self.scale


Model = CrossEncoder | LateInteraction


def padded(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(one) for one in ids)
    rows = np.zeros((len(ids), longest), dtype=np.int64)
    for at, one in enumerate(ids):
        rows[at, : len(one)] = one
    lengths = np.array([len(one) for one in ids])
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(mask).to(device)
