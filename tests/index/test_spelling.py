"""The nearest terms against a brute-force edit distance, and what is never corrected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.index.lexical import LexicalIndex
from app.index.spelling import Spelling
from app.index.vocabulary import Vocabulary

TEXTS = [
    "wireless headphones",
    "wireless speaker wh1000xm4",
    "headphone stand",
    "кофе в зернах",
    "café table",
    "铁锅 iron pan",
    "4k tv",
]


def distance(left: str, right: str) -> int:
    """Optimal string alignment, by its textbook recurrence over a full table."""
    table = [[max(i, j) if not i or not j else 0 for j in range(len(right) + 1)] for i in range(len(left) + 1)]
    for i in range(1, len(left) + 1):
        for j in range(1, len(right) + 1):
            same = left[i - 1] == right[j - 1]
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (not same))
            if i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


def vocabulary(random: np.random.Generator, size: int) -> list[str]:
    """Words over few letters, so that neighbours abound; some too short or too long, some with digits."""
    letters = list("aabcst")
    words = {"".join(random.choice(letters, random.integers(1, 12))) for _ in range(size)}
    return sorted(words | {"a" * 32, "a" * 33, "abc4", "4000", "铁"})


@pytest.mark.parametrize("most", [1, 2])
def test_the_near_terms_are_those_of_a_brute_force_search(most: int) -> None:
    """Every term of three letters or more within so many edits, itself or as a plural, and none besides; two edits
    away only with the same first letter."""
    random = np.random.default_rng(most)
    terms = vocabulary(random, 400)
    spelling = Spelling(Vocabulary.of(terms), np.arange(len(terms) + 1))
    asked = [word for word in vocabulary(random, 200) if len(word) >= 4 and word.isalpha() and not word.endswith("s")]
    several = 0
    for word in asked:
        found, edits = spelling.near(word, most)
        expected = {}
        for number, term in enumerate(terms):
            if 3 <= len(term) <= 32 and term.isascii() and term.isalpha() and (most == 1 or term[0] == word[0]):
                least = min(distance(word, term), distance(word, f"{term}s"))
                if least <= most:
                    expected[number] = least
        if len(word) <= 32:
            assert dict(zip(found.tolist(), edits.tolist(), strict=True)) == expected, word
            several += len(expected) > 2
    assert several > 5


def test_fewer_edits_come_before_more_products_and_those_before_the_alphabet() -> None:
    """A nearer term wins over a more frequent one; among equally near ones the frequent, then the first."""
    terms = ["camp", "clamp", "lamb", "lamp", "stamp"]
    counts = {"camp": 5, "clamp": 90, "lamb": 5, "lamp": 20, "stamp": 1000}
    spelling = Spelling(Vocabulary.of(terms), np.cumsum([0, *(counts[term] for term in terms)]))
    assert spelling.nearest("lampp", 2) == "lamp"
    assert spelling.nearest("xlamp", 1) == "clamp"
    assert Spelling(Vocabulary.of(terms), np.arange(6)).nearest("xlamp", 1) == "clamp"
    assert Spelling(Vocabulary.of(["camp", "lamp"]), np.arange(3)).nearest("damp", 1) == "camp"
    assert spelling.nearest("keyboard", 2) is None


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.build([(text, text) for text in TEXTS])


@pytest.mark.parametrize(
    ("word", "term"),
    [
        ("wirelss", "wireless"),
        ("haedphone", "headphone"),
        ("headphnes", "headphones"),
        ("headphonees", "headphones"),
        ("slippers", None),
        ("кофее", "кофе"),
        ("caffé", "cafe"),
        ("standd", "stand"),
    ],
)
def test_a_misspelt_word_finds_its_term(index: LexicalIndex, word: str, term: str | None) -> None:
    """In the number that was typed, with or without accents, in any alphabet."""
    assert index.spelling.nearest(word, 1) == term


@pytest.mark.parametrize(
    "word", ["wh1000xm5", "wh1000xm", "1000", "4k", "pam", "iro", "铁钩", "", "a" * 33, "x" * 4000]
)
def test_numbers_short_words_and_unspaced_scripts_have_no_neighbours(index: LexicalIndex, word: str) -> None:
    """A model number one digit off is another model."""
    found, _ = index.spelling.near(word, 1)
    assert len(found) == 0
    assert index.spelling.nearest(word, 2) is None


def test_an_empty_vocabulary_has_no_neighbours() -> None:
    """Nothing to propose, and nothing breaks."""
    spelling = LexicalIndex.build([("", "")]).spelling
    assert spelling.nearest("headphnes", 2) is None
    assert spelling.frequency("lamp") == 0
    assert not spelling.begins("la")


def test_a_version_spells_the_same_once_loaded_and_once_extended(index: LexicalIndex, tmp_path: Path) -> None:
    """A correction depends on word and version alone: further texts under its statistics do not change it."""
    index.save(tmp_path)
    later = index.extend([("wirelesss", "wirelesss")] * 50)
    for spelling in (index.spelling, LexicalIndex.load(tmp_path).spelling, later.spelling):
        assert spelling.nearest("wirelesss", 1) == "wireless"
        assert spelling.frequency("headphones") == 2
        assert spelling.begins("wirel") and not spelling.begins("wirelx")
