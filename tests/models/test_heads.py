"""Scoring heads: the additive one cannot see the query, the one with interaction can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from models.heads import HEADS, Additive, Dot, Interaction, JudgedPairs, compare, scores  # noqa: E402 - needs torch
from models.relevance import Gain  # noqa: E402

D = 24


def vectors(n: int, seed: int) -> Any:
    made = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def order(head: Any, query: Any, products: Any) -> list[int]:
    """Products best first for one query."""
    return list(np.argsort(-scores(head, np.tile(query, (len(products), 1)), products), kind="stable"))


def test_the_additive_head_gives_every_query_the_same_order() -> None:
    """That of V·c alone, whatever W and b are; with interaction, as with a dot product, orders differ."""
    torch.manual_seed(1)
    additive, products = Additive(D), vectors(40, 0)
    with torch.no_grad():
        by_product = additive.product(torch.from_numpy(products)).squeeze(1).numpy()
    expected = list(np.argsort(-by_product, kind="stable"))
    orders = [order(additive, query, products) for query in vectors(50, 1)]
    assert all(one == expected for one in orders)
    for head in (Dot(D), Interaction(D)):
        assert len({tuple(order(head, query, products)) for query in vectors(50, 1)}) == 50


def test_interaction_begins_as_the_dot_product() -> None:
    """Without a judgement it ranks as the service does."""
    products = vectors(40, 0)
    for query in vectors(5, 1):
        assert order(Interaction(D), query, products) == list(np.argsort(-(products @ query), kind="stable"))


def judged(kind: str) -> JudgedPairs:
    """Thirty queries with twelve products each. Relevance follows the first half of the dimensions alone (`match`), or
    is a property of the product that no query changes (`quality`)."""
    queries, products = vectors(30, 2), vectors(360, 3)
    groups = np.repeat(np.arange(30), 12)
    half = D // 2
    match = (queries[groups][:, :half] * products[:, :half]).sum(axis=1)
    signal = match if kind == "match" else products[:, 0]
    grades = np.digitize(signal, np.quantile(signal, [0.5, 0.7, 0.85])).astype(np.float64)
    ids = tuple(f"q{group}" for group in groups)
    return JudgedPairs(queries[groups], products, grades, ids, tuple(f"p{number}" for number in range(360)))


def test_interaction_beats_the_additive_head_on_held_out_queries() -> None:
    """Where relevance is a match, by a paired test, and it beats the plain dot product by learning what counts. The
    control: where relevance is the product's alone, the additive head is the better one of the two it can be."""
    evaluations, comparisons = compare(judged("match"), Gain())
    means = {one.name: one.mean("ndcg@10") for one in evaluations}
    assert set(means) == set(HEADS)
    against = {one.candidate: one for one in comparisons}
    assert against["interaction"].difference.low > 0 and against["interaction"].p_holm < 0.05
    assert means["interaction"] > means["dot"]
    blind = {one.name: one.mean("ndcg@10") for one in compare(judged("quality"), Gain(), names=("additive", "dot"))[0]}
    assert blind["additive"] > blind["dot"]


def test_comparing_twice_gives_the_same_figures() -> None:
    """Folds and fits are seeded."""
    first, second = (compare(judged("match"), Gain(), names=("interaction",), k=2)[0] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.values["ndcg@10"], other.values["ndcg@10"])
