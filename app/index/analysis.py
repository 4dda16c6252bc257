"""Text analysis: one conservative normal form for queries and products, and the lexical tokens of a normalised text.

`normalize_text` comes before everything, the encoder included, so it never drops a word. `tokens` is for BM25 alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

BIGRAM_WEIGHT = 0.3
"""Query weight of a pair of neighbouring ideographs beside the single ones (see docs/decisions/bm25-engine.md)."""

# Written scripts without spaces between words: kana, ideographs, hangul, and the ideographs beyond the first plane.
UNSPACED = "\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"

_LEGAL_SIGNS = re.compile("[\u2122\u00ae\u00a9\u2120]")  # else NFKC would glue "tm" to the brand
_BEFORE_FRACTION = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e])")  # 1½ is not 11/2
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PUNCTUATION = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201b": "'", "\u2032": "'", "\u02bc": "'", "\u00b4": "'",
        "\u201c": '"', "\u201d": '"', "\u201f": '"', "\u2033": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2015": "-", "\u2212": "-",
        "\u2044": "/", "\u00d7": "x",
    }
)  # fmt: skip

_UNIT_NAMES = {
    "inch": "inch inches",
    "ft": "ft foot feet",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "cl": "cl centiliter centiliters centilitre centilitres",
    "l": "liter liters litre litres",
    "mg": "mg milligram milligrams",
    "g": "gr gram grams gramme grammes",
    "kg": "kg kgs kilo kilos kilogram kilograms",
    "oz": "oz ounce ounces",
    "lb": "lb lbs pound pounds",
    "gallon": "gal gallon gallons",
    "quart": "qt quart quarts",
    "yard": "yd yds yard yards",
    "gb": "gb gigabyte gigabytes",
    "tb": "tb terabyte terabytes",
    "mb": "mb megabyte megabytes",
    "mah": "mah",
    "hz": "hz hertz",
    "mhz": "mhz",
    "ghz": "ghz",
    "watt": "watt watts",
    "volt": "volt volts",
    "amp": "amp amps",
}
# One letter is a unit only when it touches its number: "5 m" may be anything, "5m" is a length.
_TOUCHING = {"l": "l", "g": "g", "m": "m", "w": "watt", "v": "volt", "in": "inch", '"': "inch", "''": "inch", "'": "ft"}
_UNITS = {name: unit for unit, names in _UNIT_NAMES.items() for name in names.split()} | _TOUCHING
_LONG_NAMES = "|".join(sorted(_UNITS.keys() - _TOUCHING.keys(), key=len, reverse=True))
_NUMBER = "[0-9]+(?:[.,/][0-9]+)*"
_MEASURE = re.compile(
    rf"""(?<![\w."])(?P<number>{_NUMBER})
    (?: [ -]?(?P<name>{_LONG_NAMES})\.?(?!\w)
      | -?(?P<letter>[lgmwv])(?!\w)(?:\.(?!\w))?
      | (?P<mark>''|"|')(?!['"]|s\b|[a-z]{{2}})(?:\.(?!\w))?
      | -?(?P<touching>in)(?![\w]|[ -]*[0-9])\.?
      | [ ](?P<spaced>in)(?:\.(?!\w)|(?=[ ]*(?:$|[,;)/]|x[ ]*[0-9]|[whdl]\b))) )""",
    re.VERBOSE,
)
_DIMENSIONS = re.compile(rf"(?<![\w.]){_NUMBER}['\"]{{0,2}}(?: ?x ?{_NUMBER}['\"]{{0,2}})+(?!\w)")
_TIMES = re.compile(" ?x ?")
_GENERATIONS = frozenset("23456")  # 5g is a network, not five grams


def normalize_text(text: str) -> str:
    """The normal form of a query or a product text: NFKC, lower case, single spaces, measures as "number unit".

    `17-inch`, `17"` and `17 in.` become `17 inch`; `1.5L` and `1.5 litre` become `1.5 l`; `12"x14"` becomes `12 inch x
    14 inch`. No word is dropped. Idempotent, and the same for composed and decomposed input.
    """
    if not text.isascii():
        text = _unified(text)
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)  # lower-casing can leave a letter decomposed
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text)
    text = " ".join(text.split())
    if _HAS_DIGIT(text):
        text = _MEASURE.sub(_measure, _DIMENSIONS.sub(_dimensions, text))
    return text


_HAS_DIGIT = re.compile("[0-9]").search


def _unified(text: str) -> str:
    text = _BEFORE_FRACTION.sub(" ", _LEGAL_SIGNS.sub(" ", text)).translate(_PUNCTUATION)
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).translate(_PUNCTUATION))


def _dimensions(match: re.Match[str]) -> str:
    return _TIMES.sub(" x ", match[0])


def _measure(match: re.Match[str]) -> str:
    number, kind = match["number"], match.lastgroup
    assert kind is not None
    if kind == "letter" and match[kind] == "g" and number in _GENERATIONS:
        return match[0]
    glued = match.string[match.end() : match.end() + 1].isalnum()
    return f"{number} {_UNITS[match[kind]]}{' ' if glued else ''}"


_ASCII_WORD = re.compile(r"[0-9]+(?:[.,/][0-9]+)+(?![a-z0-9])|[a-z](?:\+\+|\#)|'s\b|[a-z0-9]+")
_WORD = re.compile(rf"[0-9]+(?:[.,/][0-9]+)+(?![^\W_])|[a-z](?:\+\+|\#)|'s\b|[{UNSPACED}]+|[^\W_{UNSPACED}]+")
_LAST_WORD = re.compile(rf"[^\W_{UNSPACED}]+$")
_IDEOGRAPHS = re.compile(f"[{UNSPACED}]+")
_PART = re.compile(r"[0-9]+|[^\W0-9_]+")
_ACCENTS = re.compile("[\u0300-\u036f]")
_REMEMBERED = 8192  # words, of 250 bytes: eight times as many make a build no quicker, and ever new queries fill them


def tokens(normalized: str) -> list[str]:
    """Lexical terms of a normalised text, in order, repeats kept.

    Words with their English plural folded and accents removed; numbers with their decimals; a model number whole and in
    parts (`ce4200` → `ce4200`, `ce`, `4200`); unspaced scripts as single characters and pairs (weigh a pair by
    `token_weight`). `c++` and `c#` survive; a possessive `'s` does not.
    """
    found = _ASCII_WORD.findall(normalized) if normalized.isascii() else _WORD.findall(_without_accents(normalized))
    terms: list[str] = []
    for word in found:
        terms.extend(_terms(word))
    return terms


def is_unit(word: str) -> bool:
    """Whether a word of a normalised text names a unit of measure."""
    return word in _UNITS


def units(normalized: str) -> Iterator[tuple[str, int, int]]:
    """The words of a normalised text one by one, folded as `tokens` folds them, and single unspaced characters: each
    with its [start, end) in the text without accents (`without_accents`)."""
    plain = without_accents(normalized)
    for match in _WORD.finditer(plain):
        word, start = match[0], match.start()
        if _IDEOGRAPHS.fullmatch(word):
            yield from ((letter, start + at, start + at + 1) for at, letter in enumerate(word))
        elif word != "'s":
            yield _terms(word)[0], start, match.end()


def without_accents(normalized: str) -> str:
    """The text as the lexical terms are taken from it: accents removed."""
    return normalized if normalized.isascii() else _without_accents(normalized)


def fold(word: str) -> str:
    """The lexical term of one normalised word of letters, as `tokens` gives it."""
    if not word.isascii():
        word = _without_accents(word)
    return _singular(word) if word.isalpha() and word.isascii() else _terms(word)[0]


def token_weight(token: str) -> float:
    """How much a term of a query counts: pairs of unspaced characters less than everything else."""
    return BIGRAM_WEIGHT if len(token) == 2 and is_unspaced(token) else 1.0


def is_unspaced(token: str) -> bool:
    """Whether a token is of a script without spaces between words."""
    return _IDEOGRAPHS.fullmatch(token) is not None


def last_word(normalized: str) -> str:
    """The word that a query ends in, as typed, for matching as a prefix; empty where it ends in a space, a sign or an
    unspaced script (whose single characters match already)."""
    match = _LAST_WORD.search(normalized if normalized.isascii() else _without_accents(normalized))
    return match[0] if match else ""


def _without_accents(text: str) -> str:
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


@lru_cache(_REMEMBERED)
def _terms(word: str) -> tuple[str, ...]:
    if word.isalpha() and word.isascii():
        return (_singular(word),)
    if word == "'s":
        return ()
    if _IDEOGRAPHS.fullmatch(word):
        return (*word, *(word[at : at + 2] for at in range(len(word) - 1)))
    if word.isalnum() and not word.isalpha() and not word.isdigit():
        return (word, *_PART.findall(word))
    return (word,)


def _singular(word: str) -> str:
    """Harman's S-stemmer (1991), with -sses, -shes, -ches, -xes and -zes folded onto their singular."""
    if len(word) < 4 or word[-1] != "s":
        return word
    if word.endswith("ies") and word[-4] not in "ea":
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    return word if word[-2] in "us" else word[:-1]
