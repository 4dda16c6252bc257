"""Runs: their order, their file, and the random baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.relevance import Qrels, Run, RunError, evaluate, random_order


def test_a_run_is_ordered_by_score_and_ties_by_product_id() -> None:
    """The order given does not matter, as it does not in the service."""
    run = Run({"q": [("b", 1.0), ("c", 2.0), ("a", 1.0)]})
    assert run["q"] == (("c", 2.0), ("a", 1.0), ("b", 1.0))


def test_a_run_from_an_order_keeps_that_order() -> None:
    """Scores count down, so no tie can change it."""
    assert Run.from_order({"q": ["z", "a", "m"]})["q"] == (("z", 3.0), ("a", 2.0), ("m", 1.0))


def test_a_trec_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Scores are written in full, so that ties and order are the same after reading."""
    run = Run({"q1": [("a", 0.1 + 0.2), ("b", 0.3), ("c", 1e-300)], "q2": [("a", -1.5)]}, "hybrid")
    run.write_trec(tmp_path / "x.run")
    assert (tmp_path / "x.run").read_text().splitlines()[0] == "q1 Q0 a 1 0.30000000000000004 hybrid"
    back = Run.read_trec(tmp_path / "x.run")
    assert dict(back) == dict(run)
    assert back.name == "hybrid"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("q1 Q0 a 1 0.5 x\nq1 Q0 b 2\n", "x.run:2: expected"),
        ("q1 Q0 a 1 high x\n", "x.run:1: score 'high' is not a number"),
        ("q1 Q0 a 1 nan x\n", "x.run:1: score 'nan' is not finite"),
        ("q1 Q0 a 1 2 x\nq1 Q0 a 2 1 x\n", "x.run:2: product 'a' is ranked twice"),
        ("q1 Q0 a 1 2 x\nq1 Q0 b 2 1 y\n", "x.run:2: run 'y' in a file of run 'x'"),
    ],
)
def test_a_malformed_run_is_refused_with_its_file_and_line(tmp_path: Path, content: str, complaint: str) -> None:
    """A run that was cut off or put together from two is not evaluated."""
    (tmp_path / "x.run").write_text(content)
    with pytest.raises(RunError) as refusal:
        Run.read_trec(tmp_path / "x.run")
    assert complaint in str(refusal.value)


def test_a_run_without_a_clear_order_is_refused() -> None:
    """A score that is nan sorts anywhere, and a product twice would be paid twice."""
    with pytest.raises(RunError, match="not finite"):
        Run({"q": [("a", float("nan"))]})
    with pytest.raises(RunError, match="twice"):
        Run({"q": [("a", 1.0), ("a", 2.0)]})


def test_an_id_with_white_space_is_not_written_to_a_trec_file(tmp_path: Path) -> None:
    """The format separates by white space: such a line could not be read again."""
    with pytest.raises(RunError, match="white space"):
        Run({"q": [("a b", 1.0)]}).write_trec(tmp_path / "x.run")


def test_the_random_baseline_shuffles_the_judged_products_and_says_so() -> None:
    """Each judged product once, repeatable by seed, in another order for another seed."""
    qrels = Qrels({"q": {f"p{i}": 1.0 for i in range(50)}})
    run = random_order(qrels, seed=1)
    assert run.name == "random-order-judged"
    assert sorted(p for p, _ in run["q"]) == sorted(qrels["q"])
    assert run["q"] == random_order(qrels, seed=1)["q"]
    assert run["q"] != random_order(qrels, seed=2)["q"]


def test_the_random_baseline_over_a_catalogue_draws_from_all_of_it() -> None:
    """With one relevant product of 200, its expected recall at 20 is 20 / 200."""
    products = [f"p{i}" for i in range(200)]
    qrels = Qrels({f"q{i}": {products[i % 200]: 3.0} for i in range(2000)})
    run = random_order(qrels, products, seed=0, depth=20)
    assert run.name == "random-order-catalogue"
    assert all(len(ranking) == 20 for ranking in run.values())
    recall = evaluate(qrels, run, ["recall@20"]).mean("recall@20")
    assert abs(recall - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 2000)
