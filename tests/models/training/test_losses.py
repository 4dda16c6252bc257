"""Losses by hand, and that following them does what they are for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from models.training import losses  # noqa: E402 - needs torch

NONE = torch.zeros(2, 2, dtype=torch.bool)


def test_the_in_batch_softmax_by_hand() -> None:
    """Two pairs at right angles, temperature 1: log(1 + e^-1) each way."""
    vectors = torch.eye(2)
    expected = math.log(1 + math.exp(-1))
    for symmetric in (False, True):
        loss = losses.in_batch_softmax(vectors, vectors, NONE, temperature=1.0, symmetric=symmetric)
        assert float(loss) == pytest.approx(expected)


def test_a_false_negative_costs_nothing_and_a_real_one_does() -> None:
    """Two queries with the same product: masked, nothing is left to lose; unmasked, each can only guess."""
    queries, products = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    unmasked = losses.in_batch_softmax(queries, products, NONE)
    masked = losses.in_batch_softmax(queries, products, ~NONE)
    near = losses.in_batch_softmax(queries, products, NONE, duplicate_cosine=0.99)
    assert float(unmasked) == pytest.approx(math.log(2))
    assert float(masked) == pytest.approx(0.0) and float(near) == pytest.approx(0.0)


def test_masking_leaves_the_mask_of_the_caller_alone() -> None:
    """It is used again for the other losses of the step."""
    known = NONE.clone()
    losses.in_batch_softmax(torch.eye(2), torch.eye(2), known, duplicate_cosine=0.0)
    assert not known.any()


def test_a_mined_negative_is_pushed_away() -> None:
    """It raises the loss the more the nearer it is, and its gradient leads away from the query."""
    queries = torch.eye(2)
    near, far = torch.tensor([[0.9, 0.1]], requires_grad=True), torch.tensor([[-1.0, 0.0]])
    hard = losses.in_batch_softmax(queries, queries, NONE, negatives=near)
    assert float(hard.detach()) > float(losses.in_batch_softmax(queries, queries, NONE, negatives=far).detach())
    hard.backward()
    assert near.grad is not None and float(near.grad[0, 0]) > 0


def test_a_student_with_the_teachers_scores_has_nothing_to_learn() -> None:
    """Up to a constant a query, which no ranking sees."""
    teacher = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.3, 0.8]])
    same = losses.listwise_distillation(teacher + 5, teacher, temperature=0.1, teacher_temperature=0.1)
    other = losses.listwise_distillation(-teacher, teacher, temperature=0.1, teacher_temperature=0.1)
    assert float(same) == pytest.approx(0.0, abs=1e-6) and float(other) > 1.0


def test_embedding_distillation_is_the_lost_cosine() -> None:
    """0 for the same vectors, 1 at right angles."""
    assert float(losses.embedding_distillation(torch.eye(3), torch.eye(3))) == 0.0
    assert float(losses.embedding_distillation(torch.eye(3), torch.eye(3).roll(1, 0))) == 1.0


def test_margin_mse_copies_margins_not_levels() -> None:
    """A constant on either side changes nothing; half a margin costs its square."""
    positive, negative = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 0.5])
    assert float(losses.margin_mse(positive, negative, positive + 7, negative + 7)) == 0.0
    assert float(losses.margin_mse(positive, negative, positive + 0.5, negative)) == pytest.approx(0.25)


GRADES = torch.tensor([3.0, 2.0, 0.0, 3.0, 0.0])
GROUPS = torch.tensor([0, 0, 0, 1, 1])


@pytest.mark.parametrize("loss", [losses.cosent, losses.graded_margin], ids=["cosent", "margin"])
def test_a_graded_loss_sorts_products_within_their_query(loss: Callable[..., Any]) -> None:
    """Descending it from a wrong order ends in the right one; products of different queries are not compared."""
    scores = torch.tensor([0.0, 0.5, 0.9, 0.1, 0.8], requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=0.1)
    before = float(loss(scores.detach(), GRADES, GROUPS))
    for _ in range(300):
        optimizer.zero_grad()
        loss(scores, GRADES, GROUPS).backward()
        optimizer.step()
    found = scores.detach()
    assert float(loss(found, GRADES, GROUPS)) < before / 2
    assert found[0] > found[1] > found[2] and found[3] > found[4]
    moved = found.clone()
    moved[GROUPS == 1] += 100.0
    assert float(loss(moved, GRADES, GROUPS)) == pytest.approx(float(loss(found, GRADES, GROUPS)), abs=1e-4)


@pytest.mark.parametrize("loss", [losses.cosent, losses.graded_margin], ids=["cosent", "margin"])
def test_equal_grades_ask_for_nothing(loss: Callable[..., Any]) -> None:
    """And still give a gradient, of 0."""
    scores = torch.tensor([0.1, 0.9], requires_grad=True)
    value = loss(scores, torch.tensor([2.0, 2.0]), torch.tensor([0, 0]))
    value.backward()
    assert float(value) == 0.0


def test_class_weights_make_a_rare_class_count_as_much() -> None:
    """One relevant pair among nine: unweighted, the best constant is its rate; weighted, one half."""
    labels = torch.tensor([1.0] + [0.0] * 9)

    def best(weight: float | None) -> float:
        levels = torch.linspace(-4, 4, 801)
        values = [float(losses.weighted_bce(level.expand(10), labels, weight)) for level in levels]
        return float(torch.sigmoid(levels[values.index(min(values))]))

    assert best(1.0) == pytest.approx(0.1, abs=0.01)
    assert best(None) == pytest.approx(0.5, abs=0.01)
