"""Augmented texts are what a shopper could have typed, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.augment import drop_words, head_phrase, shuffle_fields, title_span, typo

TITLE = "Acme Folding Steel Water Kettle (1.7 Liter) - Quiet, Black & Silver, with Filter and Gauge, 2 Pack"


def edits(a: str, b: str) -> int:
    """Levenshtein distance in which a swap of neighbours costs one (optimal string alignment)."""
    d = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    d[:, 0], d[0, :] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return int(d[-1, -1])


def test_a_typo_is_at_most_one_edit_in_one_long_word() -> None:
    """And over many draws nearly all of them differ from the text."""
    text = "wireless headphones for tv"
    made = [typo(text, np.random.default_rng(seed)) for seed in range(300)]
    assert max(edits(text, one) for one in made) == 1
    assert sum(one != text for one in made) > 280
    assert all(one.split()[2:] == ["for", "tv"] for one in made)
    assert all(a[0] == b[0] for one in made for a, b in zip(one.split(), text.split(), strict=True))


@pytest.mark.parametrize("text", ["", "tv", "4k tv", "x1y2z3 10-pack"])
def test_a_text_without_a_long_word_gets_no_typo(text: str) -> None:
    """Model numbers and short words are left alone."""
    assert typo(text, np.random.default_rng(0)) == text


def test_dropping_keeps_order_and_at_least_one_word() -> None:
    """About the given share goes."""
    words = [f"w{number}" for number in range(1000)]
    kept = drop_words(" ".join(words), 0.2, np.random.default_rng(1)).split()
    assert 750 < len(kept) < 850
    assert kept == sorted(kept, key=words.index)
    assert drop_words("one two", 1.0, np.random.default_rng(1)) == "one two"


def test_shuffling_moves_fields_and_keeps_the_title_first() -> None:
    """No word is lost."""
    made = {shuffle_fields("title", ["a", "b", "c"], np.random.default_rng(seed)) for seed in range(50)}
    assert len(made) == 6
    assert all(one.startswith("title ") and sorted(one.split()) == ["a", "b", "c", "title"] for one in made)


def test_a_span_is_neighbouring_words_of_the_title() -> None:
    """Two to six of them, without lone punctuation."""
    bare = " ".join(word.strip("(),-&") for word in TITLE.split() if any(map(str.isalnum, word)))
    for seed in range(200):
        span = title_span(TITLE, np.random.default_rng(seed))
        assert span in bare
        assert 2 <= len(span.split()) <= 6
    assert title_span("Kettle", np.random.default_rng(0)) == "Kettle"
    assert title_span("- / !", np.random.default_rng(0)) == ""


@pytest.mark.parametrize(
    ("title", "last"),
    [
        ("acme 20v cordless drill kit, 2-pack with charger", "kit"),
        ("brazil nuts, 1 lb - raw, whole", "nuts"),
        ("weighted blanket for adults", "blanket"),
        ("kaweco clutch pencil 3 2", "pencil"),
    ],
)
def test_a_head_phrase_says_what_the_product_is(title: str, last: str) -> None:
    """It ends with the noun, before the first detail, and has at most three words, none with a digit."""
    for seed in range(30):
        words = head_phrase(title, np.random.default_rng(seed)).split()
        assert words[-1] == last
        assert 1 <= len(words) <= 3
        assert not any(any(map(str.isdigit, word)) for word in words)


def test_a_title_of_numbers_has_no_head_phrase() -> None:
    """It is then no pair."""
    assert head_phrase("1234 x99, red", np.random.default_rng(0)) == ""
