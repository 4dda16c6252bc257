"""Category intent: the vote, what it is worth on the shipped catalogue, and the refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.errors import CorruptPart
from app.search.classify import CategoryModel, vote
from app.search.searcher import Searcher
from models.categories import fit_categories
from tests.conftest import Client


def test_neighbours_vote_by_the_softmax_of_their_scores() -> None:
    """By hand: weights e^0, e^-1, e^-2 over their sum; several categories get a vote each; ties by name."""
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    found = dict(vote([["a"], ["b", "c"], ["a"]], scores, 0.1))
    weights = np.exp([0.0, -1.0, -2.0]) / np.exp([0.0, -1.0, -2.0]).sum()
    assert found["a"] == pytest.approx(weights[0] + weights[2], rel=1e-5)
    assert found["b"] == found["c"] == pytest.approx(weights[1], rel=1e-5)
    assert [name for name, _ in vote([["b"], ["a"]], np.array([0.5, 0.5], np.float32), 0.1)] == ["a", "b"]
    assert vote([], np.array([], np.float32), 0.1) == []


def test_a_low_temperature_believes_the_nearest_alone() -> None:
    """And a high one counts heads."""
    scores = np.array([0.9, 0.8, 0.8], np.float32)
    assert vote([["a"], ["b"], ["b"]], scores, 0.01)[0] == ("a", pytest.approx(1.0, abs=1e-3))
    assert vote([["a"], ["b"], ["b"]], scores, 10.0)[0] == ("b", pytest.approx(2 / 3, abs=0.01))


def test_titles_of_the_shipped_catalogue_find_their_category(retail: Searcher) -> None:
    """Held-out titles, classified by the other products of twenty categories: right at least five times in six, among
    the first three at least nineteen times in twenty, and as sure as they should be. Shuffled labels are found out."""
    measured = _fitted(retail)["measured"]
    assert measured["titles"] >= 250
    assert measured["accuracy"] >= 0.83 and measured["accuracy_at_3"] >= 0.95
    assert measured["calibration_error"] <= 0.06

    class Shuffled:
        """The same vectors under other rows."""

        def __init__(self) -> None:
            self._order = np.random.default_rng(1).permutation(len(retail.catalog)).astype(np.int32)

        def search(self, query: Any, depth: int, allowed: Any) -> Any:
            rows, scores = retail.vectors.search(query, depth, allowed)
            return self._order[rows], scores

    chance = fit_categories(retail.catalog, Shuffled(), retail.encoder, sample=200)  # type: ignore[arg-type]
    assert chance is not None and chance["measured"]["accuracy"] < 0.3


def _fitted(searcher: Searcher) -> dict[str, Any]:
    fitted = fit_categories(searcher.catalog, searcher.vectors, searcher.encoder)
    assert fitted is not None
    return fitted


def test_a_catalogue_without_categories_has_no_model(esci: Searcher) -> None:
    """Nothing is made up."""
    assert fit_categories(esci.catalog, esci.vectors, esci.encoder) is None
    assert esci.classifier is None


@pytest.mark.parametrize(
    "value", [{}, {"field": "category"}, {"field": "c", "temperature": 0}, [1], {"field": "c", "temperature": "x"}]
)
def test_a_model_that_cannot_be_meant_is_refused(value: Any) -> None:
    """By name of the part (control: what a build writes is read)."""
    assert CategoryModel.from_json({"field": "c", "temperature": 0.05, "measured": None}) == CategoryModel("c", 0.05)
    assert CategoryModel.from_json(None) is None
    with pytest.raises(CorruptPart, match=r"manifest\.json: categories"):
        CategoryModel.from_json(value)


async def _classify(http: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await http.post("/v1/classify", json=body)


async def test_queries_and_products_are_classified_over_http(shipped_bundles: Path, client: Client) -> None:
    """Misspelt ones as a search would read them; probabilities descend and sum to one where there is one category a
    product; the value is one that a filter takes."""
    async with client(shipped_bundles) as http:
        for query, category in (("bluetooth speaker", "electronics"), ("acoustic guitar", "instruments")):
            answer = (await _classify(http, query=query, k=100, collection="retail")).json()
            shares = [one["probability"] for one in answer["categories"]]
            assert answer["field"] == "category" and answer["corrected"] is None
            assert answer["categories"][0]["value"] == category
            assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1.0)
            narrowed = {"field": answer["field"], "in": [category]}
            found = await http.post("/v1/search", json={"query": query, "filter": narrowed, "collection": "retail"})
            assert found.json()["total"]["value"] > 0
        misspelt = (await _classify(http, query="bluetoth speakr", collection="retail")).json()
        assert misspelt["corrected"] == "bluetooth speaker"
        assert misspelt["categories"][0]["value"] == "electronics"
        text = "A six-string acoustic guitar with a spruce top. " * 40
        assert (await _classify(http, text=text, k=1, collection="retail")).json()["categories"][0][
            "value"
        ] == "instruments"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "mug"}, 422),
        ({"query": "mug", "collection": "nowhere"}, 404),
        ({"collection": "retail"}, 422),
        ({"query": "mug", "text": "mug", "collection": "retail"}, 422),
        ({"query": " ", "collection": "retail"}, 422),
        ({"text": "\u200b", "collection": "retail"}, 422),
        ({"query": "mug", "k": 0, "collection": "retail"}, 422),
        ({"query": "mug", "kk": 1, "collection": "retail"}, 422),
    ],
)
async def test_what_cannot_be_answered_is_refused(
    shipped_bundles: Path, client: Client, body: dict[str, Any], status: int
) -> None:
    """A catalogue without categories, an unknown collection, neither or both texts, and wrong shapes."""
    async with client(shipped_bundles) as http:
        response = await _classify(http, **body)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert (await _classify(http, query="mug", collection="retail")).status_code == 200
