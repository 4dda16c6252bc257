"""From where on each layer refuses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Limits:
    """The defaults let every ordinary rebuild pass and were chosen before the harmful ones were tried on them.

    inputs: `max_age` of the catalogue (None: any), at least `products` of the served number of products, at most
    `lost_values` of the products that had a field without it now (of at least `least_filled` that had it).
    fingerprint: stored vectors against their texts encoded again, mean cosine at least `vector_mean` and at most
    `vector_strays` of them under `vector_cosine`; probe texts, mean and lowest cosine at least `probe_mean` and
    `probe_least`, which is what an int8 export must keep of fp32 (`models.export`).
    recall: at least `recall` of the exact top 100.
    relevance: overall, the one-sided 95 % lower bound of the paired difference at least -`margin`; it needs
    `least_queries`. In a segment of at least `segment_queries` the burden of proof turns round: it is refused where
    the upper bound, corrected for the number of segments, is under -`margin`, because over a few dozen queries
    non-inferiority cannot be shown for every segment of a harmless change.
    """

    max_age: timedelta | None = None
    products: float = 0.5
    lost_values: float = 0.2
    least_filled: int = 10
    vector_mean: float = 0.95
    vector_cosine: float = 0.9
    vector_strays: float = 0.01
    probe_mean: float = 0.98
    probe_least: float = 0.95
    recall: float = 0.9
    margin: float = 0.02
    least_queries: int = 10
    segment_queries: int = 20
