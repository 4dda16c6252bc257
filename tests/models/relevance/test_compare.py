"""Intervals and paired tests: by hand, and by how often they err."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from models.relevance import (
    Evaluation,
    Gain,
    bootstrap_interval,
    compare,
    compare_all,
    holm,
    intervals,
    randomisation_p,
)


def _evaluation(name: str, values: np.ndarray, gain: Gain | None = None) -> Evaluation:
    ids = tuple(f"q{i:04d}" for i in range(len(values)))
    return Evaluation(name, ids, {"ndcg@10": np.asarray(values, dtype=float)}, gain or Gain(), False, (), (), 0)


def test_the_exact_p_counts_the_sign_patterns_that_are_as_extreme() -> None:
    """Three gains: of the 8 patterns only +++ and --- reach the observed sum, so p is 2/8."""
    assert randomisation_p([0.1, 0.2, 0.3]) == 2 / 8
    # |0.1 + 0.2 - 0.3| = 0 is reached by every pattern.
    assert randomisation_p([0.1, 0.2, -0.3]) == 1.0
    # Queries that do not differ carry no information: still 2/8.
    assert randomisation_p([0.1, 0.0, 0.2, 0.0, 0.3]) == 2 / 8


def test_the_exact_p_agrees_with_enumerating_the_patterns_by_hand() -> None:
    """On random differences, against a plain loop."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        d = rng.normal(0.3, 1.0, size=9)
        sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((-1, 1), repeat=9)]
        assert randomisation_p(d) == np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)


def test_the_sampled_p_agrees_with_the_exact_one() -> None:
    """Sixteen queries are enumerated; seventeen, the last one next to nothing, are sampled, and the p is the same."""
    d = np.random.default_rng(5).normal(0.25, 1.0, size=16)
    exact, sampled = randomisation_p(d), randomisation_p(np.append(d, 1e-9))
    assert 0.01 < exact < 0.99
    assert sampled == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 100_000))


def test_the_p_is_two_sided_repeatable_and_never_0() -> None:
    """Turning every difference round changes nothing, and 100,000 permutations cannot show less than 1/100,001."""
    d = np.random.default_rng(1).normal(2.0, 1.0, size=60)
    assert randomisation_p(d) == randomisation_p(-d) == 1 / 100_001
    weak = np.random.default_rng(1).normal(0.1, 1.0, size=60)
    assert randomisation_p(weak, seed=4) == randomisation_p(weak, seed=4)
    assert randomisation_p(np.zeros(60)) == 1.0


def test_equal_rankers_are_called_different_in_about_5_percent_of_cases() -> None:
    """Over 600 null experiments of 40 queries the false positive rate lies within four standard errors of 5 %."""
    rng = np.random.default_rng(11)
    ps = [randomisation_p(rng.normal(0, 0.3, size=40), permutations=1000, seed=i) for i in range(600)]
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 600))


def test_a_real_difference_is_found() -> None:
    """+0.05 nDCG on every one of 80 queries with noise of 0.1 is found nearly always (4.5 standard errors)."""
    rng = np.random.default_rng(12)
    ps = [randomisation_p(rng.normal(0.05, 0.1, size=80), permutations=2000, seed=i) for i in range(100)]
    assert np.mean(np.array(ps) <= 0.05) >= 0.95


def test_pairing_finds_what_two_separate_intervals_hide() -> None:
    """Queries differ by far more than the rankers: each mean is unsure, their difference is not."""
    rng = np.random.default_rng(2)
    hardness = rng.uniform(0, 0.9, size=80)
    a, b = _evaluation("a", hardness), _evaluation("b", hardness + rng.normal(0.02, 0.02, size=80))
    alone = intervals(a)["ndcg@10"]
    assert alone.low < b.mean("ndcg@10") < alone.high
    found = compare(a, b, "ndcg@10")
    assert found.difference.low > 0
    assert found.p < 0.001


def test_a_comparison_counts_wins_ties_and_losses_and_points_from_baseline_to_candidate() -> None:
    """A tie is equality up to rounding."""
    a = _evaluation("bm25", np.array([0.1, 0.5, 0.3, 0.9]))
    b = _evaluation("hybrid", np.array([0.2, 0.4, 0.1 + 0.2, 1.0]))
    found = compare(a, b, "ndcg@10")
    assert (found.baseline, found.candidate, found.n_queries) == ("bm25", "hybrid", 4)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.difference.estimate == pytest.approx((0.1 - 0.1 + 0.0 + 0.1) / 4)
    assert found.candidate_mean - found.baseline_mean == pytest.approx(found.difference.estimate)
    assert found.p_holm == found.p


def test_evaluations_that_are_not_comparable_are_refused() -> None:
    """Other queries or another gain make a difference meaningless."""
    a = _evaluation("a", np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="different queries"):
        compare(a, _evaluation("b", np.array([0.1, 0.2, 0.3])), "ndcg@10")
    with pytest.raises(ValueError, match="different rules"):
        compare(a, _evaluation("b", np.array([0.1, 0.2]), Gain("linear")), "ndcg@10")


def test_holm_multiplies_the_smallest_p_by_m_and_never_lets_the_order_turn() -> None:
    """0.01·4 = 0.04; 0.02·3 = 0.06; 0.03·2 = 0.06; 0.9·1 = 0.9, and 0.021·2 is lifted to the 0.06 before it."""
    assert holm([0.02, 0.01, 0.9, 0.03]).tolist() == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.02, 0.01, 0.9, 0.021]).tolist() == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_candidates_compared_together_are_corrected_together() -> None:
    """Each of the three p-values is corrected among the three."""
    rng = np.random.default_rng(8)
    base = rng.uniform(0, 1, size=50)
    runs = [_evaluation(f"c{i}", base + rng.normal(0.02, 0.1, size=50)) for i in range(3)]
    found = compare_all(_evaluation("base", base), runs, ["ndcg@10"])
    assert [c.candidate for c in found] == ["c0", "c1", "c2"]
    assert [c.p_holm for c in found] == pytest.approx(holm([c.p for c in found]).tolist())


def test_the_bootstrap_interval_covers_the_truth_in_about_95_percent_of_cases() -> None:
    """300 samples of 60 values around a known mean; a percentile interval runs slightly narrow."""
    rng = np.random.default_rng(21)
    covered = 0
    for i in range(300):
        found = bootstrap_interval(rng.beta(2, 1, size=60), resamples=2000, seed=i)
        covered += found.low <= 2 / 3 <= found.high
    assert 0.90 <= covered / 300 <= 0.985


def test_the_bootstrap_interval_of_a_large_sample_is_the_normal_one() -> None:
    """Mean ± 1.96 standard errors, to within the noise of 10,000 resamples."""
    values = np.random.default_rng(4).normal(0.7, 0.25, size=2000)
    found = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)
    assert found == bootstrap_interval(values)


def test_weights_make_the_mean_one_over_pairs_and_still_draw_queries() -> None:
    """Query means 0 and 1 over 1 and 3 pairs: 3/4 of the pairs; equal values have an interval of no width."""
    assert bootstrap_interval([0.0, 1.0], weights=[1, 3]).estimate == 3 / 4
    flat = bootstrap_interval([0.5, 0.5, 0.5], weights=[1, 10, 100])
    assert (flat.low, flat.high) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "weights"), [([], None), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0, 2.0], [-1, 2])]
)
def test_an_interval_of_nothing_is_refused(values: list[float], weights: list[float] | None) -> None:
    """No values, other shapes, or weights that cannot weigh."""
    with pytest.raises(ValueError, match=r"weight"):
        bootstrap_interval(values, weights)
