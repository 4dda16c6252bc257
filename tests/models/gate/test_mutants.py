"""Seven harmful ways to build a version are refused, each by the layer that can see it; twenty harmless ones pass."""

from __future__ import annotations

import pytest

from models.gate import LAYERS, Verdict
from tests.models.gate.shop import BENIGN, HARMFUL, Shop


def _refused_by(verdict: Verdict, layer: str, check: str) -> None:
    """By this layer, and by none before it: it is this one that was needed."""
    shown = verdict.table().text()
    assert verdict.outcome == "refused", shown
    assert verdict.layers[0] == layer, shown
    assert verdict.refused[0].name == check, shown
    before = [one for one in verdict.checks if LAYERS.index(one.layer) < LAYERS.index(layer)]
    assert all(one.outcome == "passed" for one in before), shown


def _passes(verdict: Verdict) -> None:
    shown = verdict.table().text()
    print(shown)
    assert verdict.outcome == "passed", shown
    assert all(one.outcome == "passed" for one in verdict.checks), shown


def _harmed(shop: Shop, kind: str) -> None:
    make, layer, check = HARMFUL[kind]
    _passes(shop.judge(make(shop, False)))
    verdict = shop.judge(make(shop, True))
    print(verdict.table().text())
    _refused_by(verdict, layer, check)


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_harmful_version_is_refused_by_the_layer_that_sees_it(kind: str, tiny_shop: Shop) -> None:
    """The same steps without the error pass (control)."""
    _harmed(tiny_shop, kind)


# To a random encoder a title with one word more is another product altogether: that is for real products alone.
OF_ANY_ENCODER = [kind for kind in BENIGN if kind != "some titles with a new word"]


@pytest.mark.parametrize("kind", OF_ANY_ENCODER)
def test_a_harmless_version_passes(kind: str, tiny_shop: Shop) -> None:
    """Every check runs, and none is in the way of an ordinary night."""
    _passes(tiny_shop.judge(BENIGN[kind](tiny_shop)))


@pytest.mark.deep
@pytest.mark.parametrize("kind", HARMFUL)
def test_a_harmful_version_of_real_products_is_refused(kind: str, real_shop: Shop) -> None:
    """Under the shipped encoder; the same steps without the error pass (control)."""
    _harmed(real_shop, kind)


@pytest.mark.deep
@pytest.mark.parametrize("kind", BENIGN)
def test_a_harmless_version_of_real_products_passes(kind: str, real_shop: Shop) -> None:
    """Under the shipped encoder, with thirty people's judgements."""
    _passes(real_shop.judge(BENIGN[kind](real_shop)))
