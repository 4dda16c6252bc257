"""Ranking metrics: by hand, against ir-measures, and by the laws they must obey."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.relevance import Evaluation, Gain, Qrels, Run, evaluate

Scenario = tuple[Qrels, Run]


def _one(
    grades: dict[str, float], order: list[str], metric: str, gain: Gain | None = None, judged_only: bool = False
) -> float:
    found = evaluate(Qrels({"q": grades}), Run.from_order({"q": order}), [metric], gain=gain, judged_only=judged_only)
    return found.mean(metric)


GRADES = {"exact": 3.0, "substitute": 2.0, "complement": 1.0, "irrelevant": 0.0, "never found": 3.0}
ORDER = ["complement", "unjudged", "exact", "substitute", "irrelevant"]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("ndcg@3", (1 / log2(2) + 0 / log2(3) + 7 / log2(4)) / (7 / log2(2) + 7 / log2(3) + 3 / log2(4))),
        ("ndcg", (1 / log2(2) + 7 / log2(4) + 3 / log2(5)) / (7 + 7 / log2(3) + 3 / log2(4) + 1 / log2(5))),
        ("mrr@2", 0.0),
        ("mrr@3", 1 / 3),
        ("mrr", 1 / 3),
        ("map", (1 / 3 + 2 / 4) / 3),
        ("map@3", (1 / 3) / 3),
        ("precision@4", 2 / 4),
        ("precision@10", 2 / 10),
        ("precision", 2 / 5),
        ("recall@3", 1 / 3),
        ("recall@100", 2 / 3),
        ("f1@4", 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)),
        ("f1@2", 0.0),
        ("judged@4", 3 / 4),
        ("judged@100", 4 / 5),
    ],
)
def test_each_metric_is_its_textbook_arithmetic(metric: str, value: float) -> None:
    """Five judged products, three of them relevant, one never retrieved, one stranger in the ranking."""
    assert _one(GRADES, ORDER, metric) == pytest.approx(value, abs=1e-12)


def test_a_linear_gain_is_the_grade_above_the_shift_and_never_negative() -> None:
    """With shift 1 a grade of 1 and an unjudged product are both worth nothing."""
    gain = Gain("linear", shift=1.0, relevant_at=2.33)
    grades = {"a": 3.0, "b": 2.33, "c": 1.0, "d": 0.0}
    value = (0 / log2(2) + 0 / log2(3) + 1.33 / log2(4) + 2.0 / log2(5)) / (2.0 / log2(2) + 1.33 / log2(3))
    assert _one(grades, ["c", "stranger", "b", "a", "d"], "ndcg@5", gain) == pytest.approx(value, abs=1e-12)


def test_a_negative_shift_does_not_pay_for_unjudged_products() -> None:
    """Judged 0 is then worth something, unjudged still nothing."""
    gain = Gain("linear", shift=-1.0, relevant_at=1.0)
    value = (0 / log2(2) + 2 / log2(3)) / (2 / log2(2) + 1 / log2(3))
    assert _one({"a": 1.0, "b": 0.0}, ["stranger", "a"], "ndcg@2", gain) == pytest.approx(value, abs=1e-12)


def test_judged_only_takes_the_unjudged_out_of_the_ranking_first() -> None:
    """The exact match moves from rank 3 to rank 2; the ideal stays that of all judged products."""
    assert _one(GRADES, ORDER, "mrr@10", judged_only=True) == 1 / 2
    value = (1 / log2(2) + 7 / log2(3)) / (7 / log2(2) + 7 / log2(3))
    assert _one(GRADES, ORDER, "ndcg@2", judged_only=True) == pytest.approx(value, abs=1e-12)


def test_queries_without_a_relevant_product_are_left_out_and_listed() -> None:
    """The mean is over the two others, one of which the run does not answer."""
    qrels = Qrels({"a": {"x": 3.0}, "b": {"x": 1.0}, "c": {"y": 2.0}})
    found = evaluate(qrels, Run.from_order({"a": ["x"], "b": ["x"], "z": ["x"]}), ["ndcg@10", "mrr@10"])
    assert found.query_ids == ("a", "c")
    assert found.values["ndcg@10"].tolist() == [1.0, 0.0]
    assert found.mean("mrr@10") == 0.5
    assert (found.without_relevant, found.unanswered, found.unjudged) == (("b",), ("c",), 1)


def test_a_segment_is_the_same_evaluation_over_fewer_queries() -> None:
    """Values stay aligned with their queries; an empty segment is an error, not nan."""
    qrels = Qrels({"a": {"x": 3.0}, "b": {"x": 1.0}, "c": {"y": 2.0}})
    segment = evaluate(qrels, Run.from_order({"a": ["x"]}), ["mrr"]).restrict(["c", "b", "elsewhere"])
    assert segment.query_ids == ("c",)
    assert segment.values["mrr"].tolist() == [0.0]
    assert segment.without_relevant == ("b",)
    with pytest.raises(ValueError, match="segment"):
        segment.restrict(["a"])


def test_tied_products_are_ranked_by_id_whatever_order_they_came_in() -> None:
    """The relevant product has the later id, so it is second among equals."""
    qrels = Qrels({"q": {"a": 0.0, "b": 3.0}})
    for pairs in ([("a", 1.0), ("b", 1.0)], [("b", 1.0), ("a", 1.0)]):
        assert evaluate(qrels, Run({"q": pairs}), ["mrr"]).mean("mrr") == 1 / 2


@pytest.mark.parametrize("metric", ["ndcg@0", "ndcg@-1", "ndcg@", "ndcg@1.5", "ndcg@²", "hits@10", "", "@10"])
def test_an_unknown_metric_or_cut_off_is_refused(metric: str) -> None:
    """A misspelt metric is not quietly another one."""
    with pytest.raises(ValueError, match=r"metric|cut-off"):
        _one(GRADES, ORDER, metric)


@pytest.mark.parametrize(
    ("kind", "shift", "relevant_at"),
    [("log", 0.0, 2.0), ("exp", 0.0, 0.0), ("linear", 2.0, 2.0), ("exp", float("nan"), 2.0)],
)
def test_a_gain_that_would_pay_nothing_for_something_relevant_is_refused(
    kind: str, shift: float, relevant_at: float
) -> None:
    """Otherwise the ideal gain could be 0, and nDCG undefined."""
    with pytest.raises(ValueError, match=r"gain kind|relevant_at"):
        Gain(kind, shift, relevant_at)  # type: ignore[arg-type]


def test_judgements_in_which_nothing_is_relevant_are_refused() -> None:
    """There is no mean over no queries."""
    with pytest.raises(ValueError, match="no query has a product of grade 2 or more"):
        _one({"a": 1.0}, ["a"], "mrr")


@pytest.mark.parametrize("judged_only", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_every_metric_agrees_with_ir_measures(
    random_scenario: Callable[[int], Scenario], seed: int, judged_only: bool
) -> None:
    """Query by query, on random runs with ties, missing queries and unjudged products."""
    ir = pytest.importorskip("ir_measures", reason="ir-measures is not installed: no outside check of the metrics")
    qrels, run = random_scenario(seed)
    only = {"judged_only": True} if judged_only else {}
    exp, rel = {**only, "gains": {0: 0, 1: 1, 2: 3, 3: 7}}, {**only, "rel": 2}
    oracles = {
        "ndcg@10": ir.nDCG(**exp) @ 10,
        "ndcg": ir.nDCG(**exp),
        "mrr": ir.RR(**rel),
        "map": ir.AP(**rel),
        "map@10": ir.AP(**rel) @ 10,
        "precision@5": ir.P(**rel) @ 5,
        "recall@10": ir.R(**rel) @ 10,
    }
    if not judged_only:
        oracles |= {"mrr@3": ir.RR(rel=2) @ 3, "judged@40": ir.Judged @ 40}
    found = evaluate(qrels, run, list(oracles), judged_only=judged_only)
    assert len(found.query_ids) > 10
    expected = _by_ir_measures(ir, qrels, run, list(oracles.values()))
    for metric, measure in oracles.items():
        theirs = [expected.get((q, str(measure)), 0.0) for q in found.query_ids]
        np.testing.assert_allclose(found.values[metric], theirs, atol=1e-9, err_msg=metric)


@pytest.mark.parametrize("seed", range(4))
def test_linear_ndcg_agrees_with_ir_measures(random_scenario: Callable[[int], Scenario], seed: int) -> None:
    """trec_eval's own gain is the grade itself."""
    ir = pytest.importorskip("ir_measures", reason="ir-measures is not installed: no outside check of the metrics")
    qrels, run = random_scenario(seed)
    found = evaluate(qrels, run, ["ndcg@10"], gain=Gain("linear", relevant_at=2.0))
    expected = _by_ir_measures(ir, qrels, run, [ir.nDCG @ 10])
    theirs = [expected.get((q, "nDCG@10"), 0.0) for q in found.query_ids]
    np.testing.assert_allclose(found.values["ndcg@10"], theirs, atol=1e-9)


def _by_ir_measures(ir, qrels: Qrels, run: Run, measures: list) -> dict[tuple[str, str], float]:  # type: ignore[no-untyped-def, type-arg]
    """Their values by (query, measure), on our order: they break ties the other way round."""
    judged = [ir.Qrel(q, p, int(g)) for q in qrels for p, g in qrels[q].items()]
    ranked = [ir.ScoredDoc(q, p, -float(i)) for q in run for i, (p, _) in enumerate(run[q])]
    return {(m.query_id, str(m.measure)): m.value for m in ir.iter_calc(measures, judged, ranked)}


grades_lists = st.lists(st.integers(0, 3), min_size=2, max_size=12).filter(lambda grades: max(grades) >= 2)
ALL = ["ndcg@5", "ndcg", "mrr@5", "map", "map@5", "precision@5", "recall@5", "f1@5"]


def _judge(grades: list[int], order: list[int]) -> Evaluation:
    qrels = Qrels({"q": {f"p{i}": float(g) for i, g in enumerate(grades)}})
    return evaluate(qrels, Run.from_order({"q": [f"p{i}" for i in order]}), ALL)


@settings(deadline=None)
@given(grades_lists, st.randoms(use_true_random=False))
def test_exchanging_products_of_equal_grade_changes_nothing(grades: list[int], random) -> None:  # type: ignore[no-untyped-def]
    """A metric sees grades, never products."""
    order = list(range(len(grades)))
    random.shuffle(order)
    other = order.copy()
    for grade in set(grades):
        places = [i for i, product in enumerate(order) if grades[product] == grade]
        for place, product in zip(places, random.sample([order[i] for i in places], len(places)), strict=True):
            other[place] = product
    assert _values(_judge(grades, order)) == _values(_judge(grades, other))


@settings(deadline=None)
@given(grades_lists, st.data())
def test_moving_a_better_product_up_never_lowers_a_metric(grades: list[int], data: st.DataObject) -> None:
    """Swapping a product with a worse one above it may only help, and helps the full nDCG strictly."""
    order = data.draw(st.permutations(range(len(grades))))
    above = data.draw(st.integers(0, len(order) - 2))
    below = data.draw(st.integers(above + 1, len(order) - 1))
    assume(grades[order[below]] > grades[order[above]])
    better = list(order)
    better[above], better[below] = better[below], better[above]
    before, after = _values(_judge(grades, list(order))), _values(_judge(grades, better))
    assert all(after[metric] >= before[metric] - 1e-12 for metric in ALL)
    assert after["ndcg"] > before["ndcg"]


@settings(deadline=None)
@given(grades_lists, st.data())
def test_every_metric_lies_between_0_and_1_and_the_ideal_order_has_ndcg_1(
    grades: list[int], data: st.DataObject
) -> None:
    """The bounds, and the one order that reaches the upper one."""
    order = data.draw(st.permutations(range(len(grades))))
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in _values(_judge(grades, list(order))).values())
    ideal = _values(_judge(grades, sorted(range(len(grades)), key=lambda i: -grades[i])))
    assert ideal["ndcg"] == pytest.approx(1.0)
    assert ideal["ndcg@5"] == pytest.approx(1.0)
    assert ideal["map"] == pytest.approx(1.0)


def _values(found: Evaluation) -> dict[str, float]:
    return {metric: float(values[0]) for metric, values in found.values.items()}
