"""When tuning takes a step, and when it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.search.rerank import Ranking
from app.search.searcher import Searcher
from models.relevance import Gain, Qrels, Queries
from models.tuning import DEPTHS, Tuned, tune
from tests.conftest import open_current

GAIN = Gain()
_KINDS = ("headphones", "speaker", "kettle", "backpack", "lamp", "mug")


@pytest.fixture
def searcher(tiny_bundles: Path) -> Searcher:
    """A version to set a ranking on: not the one that other tests share."""
    return open_current(tiny_bundles)


def _at(searcher: Searcher, depth: int, floor: float) -> None:
    profiles = dict(searcher.ranking.profiles)
    profiles["default"] = replace(profiles["default"], depth=depth, floor=floor)
    searcher.ranking = Ranking(profiles)


def _judged(searcher: Searcher) -> tuple[Queries, Qrels]:
    """Thirty queries `colour kind`, to which every product of the kind is right."""
    texts = {
        f"{kind} {word}": f"{word} {kind}" for kind in _KINDS for word in ("black", "red", "soft", "steel", "Acme")
    }
    rows = range(len(searcher.catalog))
    grades = {
        query_id: {
            searcher.catalog.id(row): 3.0 * str(searcher.catalog.fields(row)["title"]).endswith(text.split()[1])
            for row in rows
        }
        for query_id, text in texts.items()
    }
    return Queries(texts), Qrels(grades)


def test_a_search_too_shallow_to_find_everything_is_made_deeper(searcher: Searcher) -> None:
    """Of five products a leg some of the ten right ones are missed: recall@100 gains, and the tuned depth is one of
    DEPTHS; only the default profile takes it."""
    _at(searcher, 5, 0.2)
    tuned = tune(searcher, *_judged(searcher), GAIN, fitted=False)
    assert tuned.ranking.profiles["default"].depth in DEPTHS
    assert tuned.ranking.profiles["lexical"].depth == searcher.ranking.profiles["lexical"].depth
    recall = next(one for one in tuned.comparisons if one.metric == "recall@100")
    assert recall.difference.low > 0.05 and tuned.better


def test_a_search_is_made_shallower_where_that_loses_nothing(searcher: Searcher) -> None:
    """A hundred a leg, the least depth, bring what two hundred bring where right products are ten."""
    _at(searcher, 200, 0.2)
    tuned = tune(searcher, *_judged(searcher), GAIN, fitted=False)
    assert tuned.ranking.profiles["default"].depth == 100


def test_a_search_is_not_made_shallower_where_that_loses(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same judgements, and a choice of depths that are all too shallow."""
    monkeypatch.setattr("models.tuning.DEPTHS", (5, 6, 7))
    _at(searcher, 200, 0.2)
    tuned = tune(searcher, *_judged(searcher), GAIN, fitted=False)
    assert tuned.ranking.profiles["default"].depth == 200


def test_the_tuning_of_the_same_judgements_is_the_same(searcher: Searcher) -> None:
    """No draw of the moment decides."""
    judged = _judged(searcher)
    assert tune(searcher, *judged, GAIN, fitted=False) == tune(searcher, *judged, GAIN, fitted=False)


def test_a_gain_of_one_metric_does_not_pay_for_a_loss_of_the_other(searcher: Searcher) -> None:
    """Better is: something moved, a gain beyond doubt, and no loss beyond doubt."""
    _at(searcher, 5, 0.2)
    tuned = tune(searcher, *_judged(searcher), GAIN, fitted=False)
    gained = next(one for one in tuned.comparisons if one.metric == "recall@100")
    lost = replace(
        gained,
        metric="ndcg@10",
        difference=replace(gained.difference, estimate=-0.1, low=-0.15, high=-0.05),
    )
    assert Tuned(tuned.ranking, tuned.moves, (gained,)).better
    assert not Tuned(tuned.ranking, tuned.moves, (gained, lost)).better
    assert not Tuned(tuned.ranking, (), (gained,)).better
