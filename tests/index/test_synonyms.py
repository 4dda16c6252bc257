"""The synonyms file, and what it does to the words of a query."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadInput, CorruptPart
from app.index.analysis import normalize_text
from app.index.lexical import SYNONYM_WEIGHT, LexicalIndex
from app.index.synonyms import NO_SYNONYMS, Expansion, Synonyms

SHOP = Path(__file__).with_name("shop_synonyms.txt").read_text("utf-8")
TITLES = [
    "red couch",
    "red sofa",
    "red carpet",
    "samsung 40 inch television",
    "lg flat screen",
    "flat shoes",
    "big screen cleaner",
    "playstation 5 console",
    "dyson vacuum cleaner",
    "carpet sweeper",
    "steel water boiler",
    "steel kettle",
    "美的电饭锅 3 l",
    "不锈钢锅",
    "grey chair without wheels",
    "grey chair with castors",
    "cover for tv",
    "oak tv stand for corners",
]


def _index(rules: str = SHOP, titles: list[str] = TITLES) -> LexicalIndex:
    normal = [normalize_text(title) for title in titles]
    return LexicalIndex.build([(title, title) for title in normal], synonyms=Synonyms.parse(rules))


def _found(index: LexicalIndex, query: str, titles: list[str] = TITLES) -> list[str]:
    return [titles[row] for row in index.search(index.parse(normalize_text(query)), 500).rows]


def test_a_shop_file_is_read_as_its_team_means_it() -> None:
    """Equivalents both ways, arrows one way, comments, several words, escapes, any case and number."""
    rules = Synonyms.parse(SHOP).rules
    assert rules["sofa",] == Expansion(("couch", "settee"), True)
    assert rules["flat", "screen"] == Expansion(("tv", "television"), True)
    assert rules["kettle",] == Expansion(("water boiler",), True)
    assert rules["ps5",] == Expansion(("playstation 5",), False)
    assert rules["hoover",] == Expansion(("vacuum cleaner", "carpet sweeper"), False)
    assert rules["1,5", "l"] == Expansion(("1.5 l bottle",), True)
    assert rules["t", "shirt"] == Expansion(("tee",), True)
    assert "playstation" not in str(list(rules))
    assert Synonyms.parse("Couches, SOFA").rules == Synonyms.parse("\ufeff  couch ,sofas  \n").rules | {
        ("sofa",): Expansion(("couches",), True),
        ("couch",): Expansion(("sofa",), True),
    }


def test_rules_for_one_word_add_up() -> None:
    """As where a file has grown over the years."""
    rules = Synonyms.parse("tv, telly\ntv => television\ntv, telly").rules
    assert rules["tv",] == Expansion(("telly", "television"), True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("couch", "stands alone"),
        ("couch,", "an entry is empty"),
        ("=> sofa", "an entry is empty"),
        ("couch =>", "an entry is empty"),
        ("a => b => c", "more than one =>"),
        ("couch, !!!", "holds no word"),
        ("couch, " + "very " * 9 + "sofa", "at most 8"),
        ("s(100000001,1,'abandon',v,1,0).", "WordNet"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(line: str, reason: str) -> None:
    """So that a mistake in a long file is found; a file without it is read (control)."""
    good = "# words\ncouch, sofa\n\n"
    assert len(Synonyms.parse(good).rules) == 2
    with pytest.raises(BadInput, match=r"shop\.txt, line 4: ") as refused:
        Synonyms.parse(good + line, "shop.txt")
    assert reason in refused.value.detail


def test_a_synonym_finds_what_the_word_finds_below_the_word_itself() -> None:
    """Either way, and only what belongs to the rest of the query."""
    index = _index()
    assert _found(index, "red couch")[:2] == ["red couch", "red sofa"]
    assert _found(index, "red sofas")[:2] == ["red sofa", "red couch"]
    plain = _index("x, y")
    assert "red sofa" not in _found(plain, "couch") and "red sofa" in _found(index, "couch")


def test_an_entry_of_several_words_counts_only_where_all_of_them_follow_each_other() -> None:
    """Flat shoes and a big screen are no television; a flat screen is, and finds televisions."""
    index = _index()
    assert set(_found(index, "tv")) == {
        "cover for tv",
        "oak tv stand for corners",
        "samsung 40 inch television",
        "lg flat screen",
    }
    assert set(_found(index, "flat screen")[:5]) >= {
        "lg flat screen",
        "samsung 40 inch television",
        "oak tv stand for corners",
    }
    assert _found(index, "flat screen")[0] == "lg flat screen"


def test_an_arrow_replaces_what_was_typed() -> None:
    """By words, each of which counts, or by any of several phrases; a left side that is also on the right stays."""
    titles = [*TITLES, "hoover t-shirt"]
    index = _index(titles=titles)
    assert _found(index, "ps5", titles) == ["playstation 5 console"]
    assert set(_found(index, "hoover", titles)) == {"dyson vacuum cleaner", "carpet sweeper"}
    assert _found(index, "steel kettle", titles) == ["steel kettle", "steel water boiler"]
    assert "steel kettle" not in _found(index, "water boiler", titles)


def test_replaced_words_stand_where_the_word_stood() -> None:
    """What a query is for, and its head, are read from the order of its words."""
    parsed = _index().parse("controller for ps5 2 m")
    assert parsed.words == ("controller", "for", "playstation", "5", "2", "m")


def test_unspaced_words_have_synonyms() -> None:
    """A rice cooker by its other name, in the middle of a text without spaces."""
    assert _found(_index(), "买电饭煲")[0] == "美的电饭锅 3 l"


def test_what_must_be_absent_has_synonyms() -> None:
    """A chair without castors is one without wheels, kept or replaced."""
    for rule in ("castors, wheels", "castors => wheels"):
        assert _found(_index(rule), "grey chair without castors")[0] == "grey chair without wheels"


def test_a_rare_synonym_counts_no_more_than_the_word() -> None:
    """Its weight falls by the ratio of their idf: one settee among a hundred sofas does not come first."""
    titles = ["sofa"] * 100 + ["settee"] + ["lamp"] * 100
    index = _index("sofa, settee", titles)
    parsed = index.parse("sofa")
    assert parsed.weights[0] == 1.0 and 0 < parsed.weights[1] < SYNONYM_WEIGHT / 2
    assert _found(index, "sofa", titles)[:100] == ["sofa"] * 100


def test_scores_are_the_same_wherever_they_are_computed(tmp_path: Path) -> None:
    """Search, pair, text alone, further texts and a saved index give the same bits, between 0 and 1."""
    index = _index()
    rows = np.arange(len(TITLES), dtype=np.int32)
    index.save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.synonyms == index.synonyms
    normal = [normalize_text(title) for title in TITLES]
    later = index.extend([(title, title) for title in normal])
    for text in ("red couch tv", "hoover", "flat screen", "1.5 l kettle", "买电饭煲", "chair without castors"):
        parsed = index.parse(normalize_text(text))
        every = index.scores(parsed, rows)
        assert every.min() >= 0.0 and every.max() <= 1.0
        for other in (loaded, later):
            assert other.scores(other.parse(normalize_text(text)), rows).tobytes() == every.tobytes()
        for row, title in enumerate(normal):
            assert index.score_text(parsed, title, title) == tuple(every[row].tolist())
        hits = index.search(parsed, 50)
        combined = (every[:, 0] + every[:, 1]) * np.float32(0.5)
        assert hits.scores.tobytes() == combined[hits.rows].tobytes()


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    """No part is written, and queries parse as they did."""
    plain = LexicalIndex.build([(title, title) for title in TITLES])
    plain.save(tmp_path)
    assert not list(tmp_path.glob("*synonyms*"))
    assert LexicalIndex.load(tmp_path).synonyms == NO_SYNONYMS
    assert plain.parse("red couch").weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("damage", ["{}", '[["a", ["b"], 1]]', '[["a", [2], true]]', "[[]]", "nonsense"])
def test_a_damaged_part_is_refused(tmp_path: Path, damage: str) -> None:
    """With the index it belongs to; untouched, the same files load (control)."""
    _index().save(tmp_path)
    assert LexicalIndex.load(tmp_path).synonyms.rules
    (tmp_path / "lexical.synonyms.json").write_text(damage if damage != "{}" else '{"a": 1}')
    with pytest.raises(CorruptPart):
        LexicalIndex.load(tmp_path)


@given(st.text(st.sampled_from("ab ,=>\\#\n铁锅'é1\""), max_size=40))
def test_any_file_is_read_or_refused(text: str) -> None:
    """And what is read survives being written, and applies to any text."""
    try:
        synonyms = Synonyms.parse(text)
    except BadInput:
        return
    assert Synonyms.from_json(json.loads(json.dumps(synonyms.to_json()))) == synonyms
    normal = normalize_text(text)
    index = LexicalIndex.build([(normal, normal)], synonyms=synonyms)
    index.search(index.parse(normal), 5)
