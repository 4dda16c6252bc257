"""Probe embeddings: what an encoder's network says of a few fixed texts, kept in its description at export.

They come from the fp32 network, before it is quantised, and travel in `encoder.json`. Whoever serves the encoder can
ask it the same texts: a wrong pooling, another vocabulary, weights that were clipped, or a processor on which 8-bit
products saturate change these vectors wholly, also where every product was embedded by the same broken encoder and
nothing in the bundle contradicts itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

KEY = "probes"
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Probes:
    """`vectors` [n, dimension] are what the network with these `weights` (sha256 of its weights file) says of `texts`,
    each put behind the encoder's query prefix."""

    weights: str
    texts: tuple[str, ...]
    vectors: Vectors

    def to_json(self) -> dict[str, Any]:
        """One scale for all and one signed byte a number: the cosine to the original is above 0.9999."""
        scale = float(np.abs(self.vectors).max()) / 127 or 1.0
        rows = np.rint(self.vectors / scale).astype(np.int8)
        texts = {text: base64.b64encode(row.tobytes()).decode() for text, row in zip(self.texts, rows, strict=True)}
        return {"weights": self.weights, "scale": scale, "texts": texts}

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Probes | None:
        """The probes of an encoder's description; None where it holds none. Raises ValueError for unreadable ones."""
        value = description.get(KEY)
        if value is None:
            return None
        try:
            texts = {str(text): base64.b64decode(row, validate=True) for text, row in value["texts"].items()}
            rows = np.stack([np.frombuffer(row, dtype=np.int8) for row in texts.values()])
            return cls(str(value["weights"]), tuple(texts), rows.astype(np.float32) * np.float32(value["scale"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"probes of the encoder's description: {type(error).__name__}") from error


def cosines(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Row by row, [n]; 0 where one row is zero, 1 where both are. Raises ValueError where the shapes differ."""
    if one.shape != other.shape:
        raise ValueError(f"vectors of shape {one.shape} beside {other.shape}")
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alike = np.asarray(
        ~(a.any(axis=1) | b.any(axis=1)), dtype=np.float64
    )  # texts without a token that the encoder knows
    known = lengths > 0
    alike[known] = np.sum(a * b, axis=1)[known] / lengths[known]
    return alike
