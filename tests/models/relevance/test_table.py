"""Tables of figures."""

from __future__ import annotations

import json

import pytest

from models.relevance import (
    Interval,
    Qrels,
    Run,
    Table,
    compare_all,
    comparison_table,
    evaluate,
    evaluation_table,
)

TABLE = Table(("run", "queries", "ndcg@10"), (("bm25", 84, 0.6612), ("a|b", 7, float("nan")), ("x", None, None)))


def test_a_text_table_is_aligned_with_numbers_to_the_right() -> None:
    """Every line by hand; what is undefined is a dash."""
    assert TABLE.text().splitlines() == [
        "run   queries  ndcg@10",
        "----  -------  -------",
        "bm25       84    0.661",
        "a|b         7        -",
        "x           -        -",
    ]


def test_a_markdown_table_escapes_its_own_separator() -> None:
    """A run named with a bar stays in its cell."""
    assert TABLE.markdown().splitlines() == [
        "| run | queries | ndcg@10 |",
        "| --- | ---: | ---: |",
        "| bm25 | 84 | 0.661 |",
        "| a\\|b | 7 | - |",
        "| x | - | - |",
    ]


def test_json_keeps_the_figures_in_full_and_is_valid() -> None:
    """No rounding, nan as null, an interval as its three numbers."""
    table = Table(("run", "mean"), (("a", Interval(1 / 3, 0.0, 1.0)), ("b", float("nan"))))
    assert json.loads(table.json()) == [
        {"run": "a", "mean": {"estimate": 1 / 3, "low": 0.0, "high": 1.0}},
        {"run": "b", "mean": None},
    ]


def test_a_row_of_another_length_is_refused() -> None:
    """A shifted row would put figures under the wrong heading."""
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table(("a", "b"), (("x",),))


def test_evaluations_and_comparisons_become_tables_with_their_uncertainty() -> None:
    """A mean is shown with its interval, a difference with its test."""
    qrels = Qrels({f"q{i}": {"a": 3.0, "b": 0.0} for i in range(5)} | {"q9": {"a": 0.0}})
    good = evaluate(qrels, Run.from_order({q: ["a", "b"] for q in qrels}, "good"), ["mrr"])
    poor = evaluate(qrels, Run.from_order({q: ["b", "a"] for q in qrels}, "poor"), ["mrr"])
    shown = evaluation_table([poor, good]).text()
    assert "poor        5        1  0.500 [0.500, 0.500]" in shown
    rows = json.loads(comparison_table(compare_all(poor, [good], ["mrr"])).json())
    assert rows == [
        {
            "candidate": "good",
            "baseline": "poor",
            "metric": "mrr",
            "queries": 5,
            "candidate mean": 1.0,
            "baseline mean": 0.5,
            "difference": {"estimate": 0.5, "low": 0.5, "high": 0.5},
            "p (Holm)": 2 / 2**5,
            "wins": 5,
            "ties": 0,
            "losses": 0,
        }
    ]


def test_evaluations_on_other_metrics_do_not_share_a_table() -> None:
    """Columns would not mean the same."""
    qrels, run = Qrels({"q": {"a": 3.0}}), Run.from_order({"q": ["a"]})
    with pytest.raises(ValueError, match="other metrics"):
        evaluation_table([evaluate(qrels, run, ["mrr"]), evaluate(qrels, run, ["map"])])
    with pytest.raises(ValueError, match="nothing to show"):
        evaluation_table([])
