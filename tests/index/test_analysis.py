"""The normal form of texts, and the lexical tokens of one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.index.analysis import BIGRAM_WEIGHT, last_word, normalize_text, token_weight, tokens

TEXTS = st.text(max_size=40) | st.text(alphabet="0123456789 .,/-x'\"inchftlgmwv½ÉßİΣ™", max_size=25)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17-inch", "17 inch"),
        ('17" Monitor', "17 inch monitor"),
        ("17 in. monitor", "17 inch monitor"),
        ("17in", "17 inch"),
        ("24 in W x 24 in D", "24 inch w x 24 inch d"),
        ('12"x14" frame', "12 inch x 14 inch frame"),
        ("2x4x8 lumber", "2 x 4 x 8 lumber"),
        ("7'6\" rug", "7 ft 6 inch rug"),
        ("1.5L", "1.5 l"),
        ("1.5 litre", "1.5 l"),
        ("500ml", "500 ml"),
        ("60-Watt", "60 watt"),
        ("18V 16GB", "18 volt 16 gb"),
        ("1½ in", "1 1/2 inch"),
        ("ALSO™ mug", "also mug"),
        ("two\u200bparts\x00and\ttab", "twoparts and tab"),
    ],
)
def test_spellings_of_a_measure_share_one_form(text: str, expected: str) -> None:
    """A size reads the same however a shop or a customer writes it."""
    assert normalize_text(text) == expected


@pytest.mark.parametrize(
    "text", ["2-in-1 laptop", "3 in 1", "5g phone", "usb type-c without case", "c++ and c#", "levi's 501", "1990's"]
)
def test_what_only_looks_like_a_measure_is_left_alone(text: str) -> None:
    """No word that changes the meaning is rewritten or dropped."""
    assert normalize_text(text) == text


@given(TEXTS)
@example("1½\"x2'")
@example("5' 5''")
@example("0V.")
@example("5\". 5'.")
def test_normalising_twice_changes_nothing(text: str) -> None:
    """The normal form is its own normal form."""
    once = normalize_text(text)
    assert normalize_text(once) == once


@given(TEXTS)
def test_composed_and_decomposed_input_are_one(text: str) -> None:
    """Two encodings of the same letters are the same text."""
    assert normalize_text(unicodedata.normalize("NFC", text)) == normalize_text(unicodedata.normalize("NFD", text))


@given(TEXTS)
def test_every_token_can_be_stored(text: str) -> None:
    """Tokens hold no white space and survive UTF-8, whatever the input."""
    for token in tokens(normalize_text(text)):
        assert token.split() == [token]
        assert token.encode().decode() == token


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("women's womens shoes", ["women", "women", "shoe"]),
        ("dresses watches boxes batteries ties glass", ["dress", "watch", "box", "battery", "tie", "glass"]),
        ("1.5 l 1/2 inch", ["1.5", "l", "1/2", "inch"]),
        ("ce4200", ["ce4200", "ce", "4200"]),
        ("c++ c# type-c", ["c++", "c#", "type", "c"]),
        ("crème brûlée", ["creme", "brulee"]),
        ("铁锅a60", ["铁", "锅", "铁锅", "a60", "a", "60"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    """Plurals and accents are folded, numbers and model numbers kept, ideographs taken singly and in pairs."""
    assert tokens(text) == expected


def test_only_pairs_of_ideographs_weigh_less() -> None:
    """A pair supports its two characters; it does not outvote them."""
    assert [token_weight(token) for token in ("铁", "铁锅", "ce", "42")] == [1.0, BIGRAM_WEIGHT, 1.0, 1.0]


def test_the_last_word_is_given_as_typed() -> None:
    """A prefix is not folded: "dres" must find "dress"."""
    assert [last_word(text) for text in ("red dres", "red shoes", "brulé", "铁锅", "c++", "")] == [
        "dres", "shoes", "brule", "", "", "",
    ]  # fmt: skip
