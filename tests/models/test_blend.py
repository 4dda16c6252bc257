"""What is learned from judgements, and when nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.blend import DEFAULT_WEIGHTS, examine, fit_ranking, fit_weights
from models.relevance import Gain, Qrels, Queries
from tests.conftest import open_current

GAIN = Gain()


def test_one_query_never_moves_the_weights(tiny_bundles: Path) -> None:
    """There is no telling a better weight from luck in a single query, whatever it prefers."""
    searcher = open_current(tiny_bundles)
    queries = Queries({"q": "bright mug"})
    for row in range(0, 60, 7):
        qrels = Qrels({"q": {searcher.catalog.id(row): 3.0}})
        assert fit_weights(examine(searcher, queries, qrels), ["q"], qrels, GAIN) == DEFAULT_WEIGHTS


@pytest.mark.parametrize(
    ("grades", "said"),
    [
        ({"nobody": 3.0}, "none of the judged products is in this catalogue"),
        ({"p001": 3.0, "p002": 2.0}, "all 4 judged pairs are relevant"),
        ({"p001": 0.0, "p002": 1.0}, "all 4 judged pairs are irrelevant"),
    ],
)
def test_judgements_that_teach_nothing_are_refused_by_name(
    tiny_bundles: Path, grades: dict[str, float], said: str
) -> None:
    """Foreign ids and clicks alone cannot give a probability, and the message says which of them it is."""
    searcher = open_current(tiny_bundles)
    queries, qrels = Queries({"q": "mug", "r": "lamp"}), Qrels({"q": grades, "r": grades})
    with pytest.raises(ValueError, match=said):
        fit_ranking(examine(searcher, queries, qrels), list(queries), qrels, GAIN)
