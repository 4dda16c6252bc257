"""Stage 9, on demand: the score in its parts. Their float64 sum, in the order given, is `raw` bit for bit."""

from __future__ import annotations

from typing import Any

from app.search.features import NAMES
from app.search.rerank import Profile, Ranked


def explanation(ranked: Ranked, position: int, profile: Profile) -> dict[str, Any]:
    """What each feature brought to the hit at `position`."""
    return {
        "raw": float(ranked.raw[position]),
        "contributions": [
            {
                "name": name,
                "value": float(ranked.features[position, column]),
                "weight": profile.weights[column],
                "contribution": float(ranked.contributions[position, column]),
            }
            for column, name in enumerate(NAMES)
        ],
    }
