"""From raw scores to probabilities: one link a query, whatever else is asked of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from app.search.calibrate import NO_CLARITY, Link, clarity_of
from models.relevance import fit_link


def test_clarity_is_what_the_lists_and_the_vector_say() -> None:
    """The best and the fortieth word score, the vector's length, the spread of the forty nearest; 0 where a list is
    shorter or was not asked for."""
    long, short = np.linspace(1, 0, 50, dtype=np.float32), np.array([0.7], np.float32)
    vector = np.array([0.6, 0.0, 0.8], np.float32) / 2
    expected = (1.0, pytest.approx(float(long[39])), pytest.approx(0.5), pytest.approx(float(long[:40].std())))
    assert clarity_of(long, vector, long) == expected
    assert clarity_of(short, None, short) == (pytest.approx(0.7), 0.0, 0.0, 0.0)
    assert clarity_of(short[:0], None, short[:0]) == NO_CLARITY


def test_the_clarity_of_a_query_moves_all_its_probabilities_and_never_their_order() -> None:
    """The same raw scores, two queries: other probabilities, the same order."""
    link = Link(3.0, -1.0, True, (0.5, -2.0, 1.0, 0.0))
    raw = np.linspace(-1, 2, 50)
    clear, vague = link.probability(raw, (1.0, 0.1, 0.0, 7.0)), link.probability(raw, (1.0, 0.9, 0.0, 7.0))
    assert (clear > vague).all() and (np.diff(clear) > 0).all() and (np.diff(vague) > 0).all()
    assert clear[7] == pytest.approx(1 / (1 + math.exp(-(3.0 * raw[7] - 1.0 + 0.5 - 0.2))))


def test_a_link_survives_its_json_bit_for_bit() -> None:
    """With and without the weights of clarity, which an inherited link does not have."""
    for link in (Link(3.1, -0.7, True, (0.1, -0.3, 1e-9, 0.0)), Link(2.0, 0.5, False)):
        assert Link.from_json(json.loads(json.dumps(link.to_json()))) == link
    assert "clarity" not in Link(2.0, 0.5, False).to_json()


@pytest.mark.parametrize(
    "clarity",
    [{"words_best": 1.0}, dict.fromkeys(("words_best", "words_fortieth", "agreement", "spread"), float("nan"))],
)
def test_a_link_with_half_its_weights_is_refused(clarity: dict[str, float]) -> None:
    """A weight that is missing is not a weight of 0."""
    with pytest.raises((KeyError, ValueError)):
        Link.from_json({"slope": 1, "intercept": 0, "calibrated": True, "clarity": clarity})


def test_a_fitted_link_finds_what_the_queries_bring() -> None:
    """Labels drawn from known weights: the fit comes near them, and explains more than raw scores alone."""
    random = np.random.default_rng(0)
    raw, query = random.normal(size=20_000), random.normal(size=(20_000, 2))
    labels = (random.random(20_000) < 1 / (1 + np.exp(-(2 * raw + 1.0 * query[:, 0] - 0.5)))).astype(float)
    link, plain = fit_link(raw, labels, covariates=query), fit_link(raw, labels)
    assert link.slope == pytest.approx(2, abs=0.15) and link.weights[0] == pytest.approx(1, abs=0.15)
    assert abs(link.weights[1]) < 0.08 and link.loss < plain.loss - 0.03
    assert plain.weights == ()


def test_a_constant_covariate_brings_nothing() -> None:
    """A leg that a profile does not use is 0 for every query: its weight is 0, not infinite."""
    random = np.random.default_rng(1)
    raw = random.normal(size=500)
    labels = (raw + random.normal(size=500) > 0).astype(float)
    link = fit_link(raw, labels, covariates=np.zeros((500, 1)))
    assert link.weights == (0.0,)
    assert link.slope == pytest.approx(fit_link(raw, labels).slope)
