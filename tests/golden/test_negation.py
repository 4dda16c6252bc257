"""What shoppers negate, and what only looks like it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.index.analysis import normalize_text, tokens
from app.index.negation import negated_spans, negated_terms

WORDS = [
    "chair",
    "without",
    "no",
    "not",
    "non",
    "free",
    "-",
    ",",
    "a",
    "wheels",
    "and",
    "k",
    "7",
    "-x",
    "w/o",
    "铁锅",
    "é",
]


@pytest.mark.parametrize(
    ("typed", "absent"),
    [
        ("white desk chair without wheels", "wheel"),
        ("wine glasses without stem set of 4", "stem"),
        ("wall lamp w/o a cord", "cord"),
        ("weighted blanket without beads for adults", "bead"),
        ("headphones without wire and no noise", "wire noise"),
        ("chair without arms and wheels", "arm wheel"),
        ("cat tree without carpet and with hammock", "carpet"),
        ("mens bathing suits without mesh liner", "mesh liner"),
        ("toothpaste without sodium lauryl sulfate", "sodium lauryl sulfate"),
        ("vitamin without vitamin k", "k"),
        ("gel nail polish without uv light needed", "uv light"),
        ("16 gallon shop vac no wheels", "wheel"),
        ("ice melters with no salt", "salt"),
        ("hand push lawnmower. no power", "power"),
        ("adult toothpaste not mint", "mint"),
        ("%100 silicone, not clear", "clear"),
        ("kindle not ad supported", "ad supported"),
        ("non-alcoholic beer", "alcoholic"),
        ("garden sprayer non pump", "pump"),
        ("shampoo sulfate free", "sulfate"),
        ("shampoo sulfate-free paraben-free", "sulfate paraben"),
        ("nut-free snacks", "nut"),
        ("sink drain without overflow -pop", "overflow pop"),
        ("Chair WITHOUT wheels", "wheel"),
    ],
)
def test_what_must_be_absent(typed: str, absent: str) -> None:
    """Words, as the index holds them, that a wanted product does not have."""
    assert negated_terms(normalize_text(typed)) == tuple(absent.split())


@pytest.mark.parametrize(
    "typed",
    [
        "no show socks",
        "women's socks no show",
        "non stick pan",
        "non-slip bath mat",
        "no 7 serum",
        "no. 30 cutting wheel",
        "polishing compound no 7",
        "no drill curtain rod",
        "no-bake cookies",
        "no thermostat heat trace",
        "no man's sky",
        "no trespassing sign",
        "poster without a doubt",
        "doctors without borders shirt",
        "rebel without a cause dvd",
        "life without you",
        "without remorse",
        "subtle art of not giving a fuck",
        "i will not leave the house",
        "forget me not seeds",
        "do not disturb sign",
        "whatnot shelf",
        "batteries not included toys",
        "not just for kids book",
        "watch the game not your phone",
        "earbuds not in ear",
        "free shipping",
        "hands free headset",
        "hands-free faucet",
        "duty-free perfume",
        "free standing shower",
        "nike free run",
        "baby samples free",
        "wireless headphones",
        "stainless sink",
        "gas logs for fireplace - no vented",
        "sony wh-1000xm4",
        "case - black",
        "rust -o oleum",
        "non fiction books",
        "tool cases without tools",
        "sugar free",
        "without",
        "no",
        "手机 不含 充电器",
    ],
)
def test_what_only_looks_negated(typed: str) -> None:
    """Names, numbers, compounds, sayings and sentences negate nothing, nor does a text with nothing left to want."""
    assert negated_terms(normalize_text(typed)) == ()


@given(st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_can_be_read(text: str) -> None:
    """Spans are ascending, do not overlap and hold words; negated terms are terms of the text, each once."""
    normal = normalize_text(text)
    spans = negated_spans(normal)
    assert all(start < end for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    found = negated_terms(normal)
    assert set(found) <= set(tokens(normal))
    assert len(set(found)) == len(found)


def test_a_text_of_nothing_but_cues_costs_no_more_than_a_long_one() -> None:
    """A candidate's text may have 100,000 characters: each cue is read with the words around it, so their number is
    bounded; what a real text says comes long before that."""
    assert len(negated_spans("shampoo no parabens, " * 200)) == 200
    assert len(negated_spans("shampoo no parabens, " * 5_000)) < 300
