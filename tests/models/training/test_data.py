"""Pairs and batches: nothing leaks from the held-out queries, and every draw depends on seed and number alone."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.data import (
    Corpus,
    Noise,
    Pair,
    Sources,
    batch_texts,
    epoch_pairs,
    hold_out,
    judged_pairs,
    same_products,
)

CORPUS = Corpus(
    ("a", "b", "c", "d"),
    ("steel mug", "wooden lamp", "steel mug", "red folding chair"),
    ("steel mug keeps coffee hot", "wooden lamp. warm light. oak", "steel mug blue one", "red folding chair"),
)


def test_judged_pairs_are_the_relevant_ones_that_the_catalogue_holds() -> None:
    """Grades below the bar, unknown products and unjudged queries give no pair."""
    queries = {"1": "  Mug ", "2": "lamp", "3": "chair"}
    qrels = {"1": {"a": 3.0, "b": 1.0, "gone": 3.0}, "2": {"b": 2.0}}
    assert judged_pairs(queries, qrels, CORPUS, 2.0) == [Pair("mug", 0, 3.0), Pair("lamp", 1, 2.0)]


def test_no_held_out_query_is_learnt_from() -> None:
    """The split is by text, so a query judged twice stays on one side; the same for the same seed only."""
    pairs = [Pair(f"q{number % 40}", number % 4) for number in range(100)]
    learn, held = hold_out(pairs, 0.25, 3)
    assert {pair.query for pair in learn}.isdisjoint(pair.query for pair in held)
    assert len({pair.query for pair in held}) == 10
    assert len(learn) + len(held) == 100
    assert hold_out(pairs, 0.25, 3) == (learn, held)
    assert hold_out(pairs, 0.25, 4)[1] != held


def test_an_epoch_holds_every_source_in_its_numbers_and_another_order_each_time() -> None:
    """Prose pairs only where there is prose."""
    judged = [Pair("mug", 0, 3.0)]
    first = epoch_pairs(CORPUS, judged, Sources(judged=2, spans=1, prose=1), 0, 0)
    assert len(first) == 2 + 4 + 3
    assert first.count(judged[0]) == 2
    assert Pair("keeps coffee hot", 0) in first
    assert first == epoch_pairs(CORPUS, judged, Sources(judged=2, spans=1, prose=1), 0, 0)
    assert first != epoch_pairs(CORPUS, judged, Sources(judged=2, spans=1, prose=1), 0, 1)


def test_a_batch_depends_on_its_step_and_not_on_the_ones_before() -> None:
    """What a resumed run sees is what an uninterrupted one sees."""
    pairs = [Pair("wooden lamp oak", 1)] * 50
    noise = Noise(typos=0.5, drops=0.5, title_only=0.5, shuffle=1.0)
    fifth = batch_texts(pairs, CORPUS, noise, 0, 5)
    batch_texts(pairs, CORPUS, noise, 0, 4)
    assert batch_texts(pairs, CORPUS, noise, 0, 5) == fifth
    assert batch_texts(pairs, CORPUS, noise, 0, 6) != fifth
    assert {"wooden lamp", "wooden lamp oak"} & set(fifth[1])
    assert any(sorted(text.replace(".", "").split()) == ["lamp", "light", "oak", "warm", "wooden"] for text in fifth[1])


def test_without_noise_a_batch_is_the_texts_themselves() -> None:
    """Positive control of the above."""
    pairs = [Pair("mug", 0), Pair("chair", 3)]
    assert batch_texts(pairs, CORPUS, Noise(title_only=0.0), 0, 0) == (
        ["mug", "chair"],
        ["steel mug keeps coffee hot", "red folding chair"],
    )


def test_false_negatives_are_known_by_product_title_query_and_judgement() -> None:
    """The rest of the batch stays negative."""
    pairs = [Pair("mug", 0), Pair("lamp", 1), Pair("mug", 2), Pair("seat", 3), Pair("light", 1)]
    known = same_products(pairs, {"seat": frozenset({3, 1})}, CORPUS.titles)
    expected = np.eye(5, dtype=bool)
    expected[0, 2] = expected[2, 0] = True  # one query, and one title
    expected[1, 4] = expected[4, 1] = True  # one product
    expected[3, 1] = expected[3, 4] = True  # judged
    np.testing.assert_array_equal(known, expected)


@pytest.mark.parametrize("sources", [{"judged": 0, "spans": 0}, {"spans": -1}])
def test_sources_without_anything_to_learn_are_refused(sources: dict[str, int]) -> None:
    """In words, before anything is read."""
    with pytest.raises(ValueError, match="pairs"):
        Sources(**sources)
