"""Encoders that are trained from scratch: static word vectors and LSTM towers. Ids and mask in, unit vectors out.

Both are right under padding whatever the ids of the padding are: a text alone has the vector that it has in a batch.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


def unit(vectors: Tensor) -> Tensor:
    """Rows [n, d] of length 1."""
    return cast(Tensor, vectors / vectors.norm(p=2, dim=1, keepdim=True).clamp(min=1e-12))


class WordVectors(nn.Module):
    """The weighted mean of the pieces' vectors. Each piece learns its weight besides its vector, so that "for" can
    come to count for little (compare SIF, Arora et al. 2017)."""

    def __init__(self, pieces: int, dimension: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.vectors = nn.Embedding(pieces, dimension)
        self.weights = nn.Embedding(pieces, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.vectors.weight, std=dimension**-0.5)
        nn.init.zeros_(self.weights.weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, tokens] twice → float32 [batch, dimension], rows of length 1."""
        weights = torch.exp(self.weights(input_ids)) * attention_mask.unsqueeze(-1).to(torch.float32)
        # The mean over the mask is the sum up to a factor, which the normalisation takes out again.
        return unit((self.dropout(self.vectors(input_ids)) * weights).sum(dim=1))


class LstmTower(nn.Module):
    """A bidirectional LSTM (Hochreiter and Schmidhuber 1997; Schuster and Paliwal 1997), the greatest value of each
    output over the text, and a projection to `dimension`. `words` may be shared between towers."""

    def __init__(self, words: nn.Embedding, hidden: int, dimension: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = words
        self.forwards = nn.LSTM(words.embedding_dim, hidden, batch_first=True)
        self.backwards = nn.LSTM(words.embedding_dim, hidden, batch_first=True)
        self.projection = nn.Linear(2 * hidden, dimension)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, tokens] twice (mask: ones, then zeros) → float32 [batch, dimension], rows of length 1."""
        x = self.dropout(self.words(input_ids))
        # Padding stands behind the text. Read forwards it comes too late to matter; for the other direction the text
        # itself is turned round inside its length, and its outputs back: no packing, which ONNX export does badly.
        turned = _turned(attention_mask)
        ahead, _ = self.forwards(x)
        behind, _ = self.backwards(_taken(x, turned))
        both = torch.cat([ahead, _taken(behind, turned)], dim=2)
        mask = attention_mask.unsqueeze(-1).to(both.dtype)
        greatest = (both * mask - 2.0 * (1.0 - mask)).max(dim=1).values  # an LSTM's outputs lie between -1 and 1
        return unit(self.projection(self.dropout(greatest)))


def _turned(mask: Tensor) -> Tensor:
    """[batch, tokens]: for every place the one that stands there when the text is read backwards; padding keeps its."""
    places = torch.cumsum(torch.ones_like(mask), dim=1) - 1
    lengths = mask.sum(dim=1, keepdim=True)
    return torch.where(places < lengths, lengths - 1 - places, places)


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """x [batch, tokens, d] in the order of `places`."""
    return torch.gather(x, 1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))


class Towers(nn.Module):
    """The query's and the product's encoder; the same module where they do not differ."""

    def __init__(self, query: nn.Module, product: nn.Module | None = None) -> None:
        super().__init__()
        self.query = query
        self.product = query if product is None else product

    @property
    def differ(self) -> bool:
        """Whether products have an encoder of their own."""
        return self.product is not self.query


def word_towers(pieces: int, dimension: int, dropout: float) -> Towers:
    """One bag of word vectors for both sides."""
    return Towers(WordVectors(pieces, dimension, dropout))


def lstm_towers(pieces: int, dimension: int, hidden: int, dropout: float) -> Towers:
    """Two LSTM towers over one embedding: queries and products are written in the same words, in other ways."""
    words = nn.Embedding(pieces, dimension)
    nn.init.normal_(words.weight, std=dimension**-0.5)
    return Towers(LstmTower(words, hidden, dimension, dropout), LstmTower(words, hidden, dimension, dropout))
