"""Stage 9, on demand: the score in its parts. Their float64 sum, in the order given, is `raw` bit for bit."""

from __future__ import annotations

from typing import Any

from app.search.calibrate import Clarity
from app.search.features import NAMES
from app.search.rerank import Profile, Ranked


def explanation(ranked: Ranked, position: int, profile: Profile, clarity: Clarity) -> dict[str, Any]:
    """What each feature brought to the hit at `position`; `link` makes the score of `raw`:
    1 / (1 + exp(-(slope · raw + offset)))."""
    return {
        "raw": float(ranked.raw[position]),
        "link": {"slope": profile.link.slope, "offset": profile.link.offset(clarity)},
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
