"""How a title answers a query, by hand and against a plain re-reading of the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.errors import CorruptPart
from app.index.analysis import normalize_text
from app.index.lexical import LexicalIndex
from app.index.titles import ENDS, FEATURES, TERMS

TITLES = [
    "Leather case for iPhone 11, black",
    "Apple iPhone 11 black",
    "Black leather iPhone wallet with strap",
    "Ceiling fan without light",
    "Ceiling fan with light, 52 inch",
    "Desk lamp",
    "",
]


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.build((text, text) for text in map(normalize_text, TITLES))


def of(index: LexicalIndex, query: str, row: int) -> dict[str, float]:
    values = index.title_features(index.parse(normalize_text(query)), np.array([row], np.int32))[0]
    return dict(zip(FEATURES, values.tolist(), strict=True))


def test_a_case_for_a_phone_is_a_case(index: LexicalIndex) -> None:
    """What stands after `for` is no head: the phone's case holds the word, and is not what was asked for."""
    assert of(index, "iphone", 0)["head"] == 0.0 and of(index, "iphone", 0)["coverage"] == 1.0
    assert of(index, "iphone", 1)["head"] == 1.0
    assert of(index, "case for iphone", 0)["head"] == 1.0
    assert of(index, "case for iphone", 1)["head"] == 0.0


def test_neighbouring_words_count_only_side_by_side_and_in_order(index: LexicalIndex) -> None:
    """`black leather` is a phrase of the wallet; in the case both words stand apart, in the other order."""
    assert of(index, "black leather", 2)["phrase"] == 1.0
    assert of(index, "black leather", 0)["phrase"] == 0.0
    assert of(index, "black leather iphone case", 2)["phrase"] == pytest.approx(2 / 3)
    assert of(index, "leather", 2)["phrase"] == of(index, "leather", 2)["coverage"] == 1.0


def test_coverage_is_weighed_by_rarity_and_little_words_weigh_nothing(index: LexicalIndex) -> None:
    """A strange word is as rare as can be; `for` and `the` neither help nor hurt."""
    assert of(index, "the lamp for desk", 5)["coverage"] == 1.0
    assert of(index, "the lamp for desk", 5)["complete"] == 1.0
    partly = of(index, "zxcv lamp", 5)
    assert 0.0 < partly["coverage"] < 0.5 and partly["complete"] == 0.0


def test_numbers_are_counted_apart(index: LexicalIndex) -> None:
    """Of the query's numbers the share that the title holds; a query without any asks for none."""
    assert of(index, "iphone 11", 1)["numbers"] == 1.0
    assert of(index, "iphone 12", 1)["numbers"] == 0.0
    assert of(index, "iphone", 1)["numbers"] == 0.0


def test_a_title_with_what_must_be_absent_is_told_from_one_that_lacks_it(index: LexicalIndex) -> None:
    """`without light` in the title is what was asked for, though the word is there."""
    assert of(index, "ceiling fan without light", 4)["excluded"] == 1.0
    assert of(index, "ceiling fan without light", 3)["excluded"] == 0.0
    assert of(index, "ceiling fan with light", 4)["excluded"] == 0.0
    assert of(index, "ceiling fan without light", 4)["coverage"] == 1.0  # of what is wanted


def test_an_empty_title_answers_nothing(index: LexicalIndex) -> None:
    """Nor does an empty list of rows."""
    assert set(of(index, "desk lamp", 6).values()) == {0.0}
    assert index.title_features(index.parse("desk"), np.zeros(0, np.int32)).shape == (0, len(FEATURES))


def test_a_pair_has_the_same_features_in_any_company(index: LexicalIndex, tmp_path: Path) -> None:
    """Alone, among others, from a file, and as a text from outside: the same bits."""
    index.save(tmp_path)
    again = LexicalIndex.load(tmp_path)
    rows = np.arange(len(TITLES), dtype=np.int32)
    for query in ("black iphone 11 case", "fan without light", "desk lamp", "unheard words", "52 in fan"):
        parsed = index.parse(normalize_text(query))
        together = index.title_features(parsed, rows)
        np.testing.assert_array_equal(together, again.title_features(again.parse(normalize_text(query)), rows))
        for row in rows:
            alone = index.title_features(parsed, rows[row : row + 1])
            outside = index.title_features_of(parsed, normalize_text(TITLES[row]))
            np.testing.assert_array_equal(together[row], alone[0])
            np.testing.assert_array_equal(together[row], outside[0])


def test_a_synonym_satisfies_its_word(index: LexicalIndex) -> None:
    """Every term of a word's group stands for it, a begun word's completions too."""
    values = index.title_features(index.parse("desk la", prefix=True), np.array([5], np.int32))[0]
    assert dict(zip(FEATURES, values.tolist(), strict=True))["complete"] == 1.0


@pytest.mark.parametrize("fault", ["term", "ends", "short", "missing"])
def test_titles_that_do_not_fit_are_refused(index: LexicalIndex, tmp_path: Path, fault: str) -> None:
    """A term beyond the vocabulary would be read as another; ends beyond the terms would be read past the file."""
    index.save(tmp_path)
    terms, ends = np.load(tmp_path / TERMS), np.load(tmp_path / ENDS)
    if fault == "term":
        terms[0] = 10_000
        np.save(tmp_path / TERMS, terms)
    elif fault == "ends":
        ends[1], ends[2] = ends[2], ends[1]
        np.save(tmp_path / ENDS, ends)
    elif fault == "short":
        np.save(tmp_path / TERMS, terms[:-1])
    else:
        (tmp_path / ENDS).unlink()
    with pytest.raises(CorruptPart):
        LexicalIndex.load(tmp_path)
