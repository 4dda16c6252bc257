"""Units, model numbers and names of signs: a query, a product text, and whether the words of the one are in the other.

Spellings of one measure meet (1.5L, 1.5 litre). Measures are not converted: 1500 ml is not found by "1.5 l", nor 43 cm
by "17 inch". A shop writes its sizes in the unit of its customers and rounds as it likes (17.3" is sold as 44 cm), and
a converted size would look as exact as a typed one; the encoder and the other words still bring the product.
"""

from __future__ import annotations

import pytest

from app.index.analysis import normalize_text
from app.index.lexical import LexicalIndex

MEETS = [
    ("1.5l kettle", "Steel kettle 1.5 L"),
    ("1.5 litre kettle", "Steel kettle, 1.5L"),
    ("1.5 liters kettle", "Kettle 1.5-Liter"),
    ("17 inch laptop", 'Laptop 17"'),
    ("17 in laptop", "17-Inch Laptop"),
    ('17" laptop', "Laptop (17 in.)"),
    ("17in laptop", "17 inch Laptop"),
    ("6 ft cable", "Cable 6'"),
    ("6 feet cable", "6-foot cable"),
    ("16gb ram", "16 GB RAM"),
    ("500 gram coffee", "Coffee 500g"),
    ("500 g coffee", "Coffee, 500 gr."),
    ("10000mah power bank", "Power Bank 10000 mAh"),
    ("60w bulb", "Bulb 60-Watt"),
    ("5g phone", "Phone with 5G"),
    ("2x4 lumber", "Lumber 2 x 4"),
    ("12x14 frame", "Frame 12×14"),
    ("1/2 inch pvc", 'PVC 1/2"'),
    ("1½ inch pipe", "Pipe 1 1/2 in."),
    ("ce4200", "Cleaner CE-4200"),
    ("ce-4200", "Cleaner CE4200"),
    ("ce 4200", "Cleaner CE4200"),
    ("CE-4200", "cleaner ce 4200"),
    ("wh1000xm4", "Sony WH-1000XM4"),
    ("wh-1000xm4", "Sony WH1000XM4"),
    ("usb type c cable", "Cable USB Type-C"),
    ("type-c cable", "Type C cable"),
    ("c++ primer", "C++ Primer, 5th edition"),
    ("c# in depth", "C# in Depth"),
    ("2 pack socks", "Socks (2-Pack)"),
    ("2-pack socks", "Socks, 2 pack"),
    ("women's boots", "Womens boot"),
    ("t-shirt", "T Shirt"),
    ("café crème", "Cafe creme"),
]
MEETS_NOT = [
    ("17 inch", "15 inch"),
    ("17 inch", 'Laptop 15.6"'),
    ("1.5 l", "5 l"),
    ("1.5", "Kettle 1.7 L"),
    ("1.5 l", "1500 ml"),
    ("17 inch", "43 cm"),
    ("500 g", "5G"),
    ("ce4200", "ce4300"),
    ("4200", "ce4300"),
    ("c++", "vitamin c"),
    ("c#", "c++"),
    ("1/2", "1/4"),
    ("1/2", "1 2"),
    ("2 x 4", "2.4"),
    ("16gb", "160 gb"),
]


def _shared(query: str, text: str) -> tuple[float, float]:
    """The share of the query's words that the text holds, and the lexical score."""
    normal = normalize_text(text)
    index = LexicalIndex.build([(normal, normal), ("other", "other")])
    parsed = index.parse(normalize_text(query))
    known = set(parsed.groups.tolist())
    return len(known) / len(parsed.words), index.score_text(parsed, normal, normal)[0]


@pytest.mark.parametrize(("query", "text"), MEETS)
def test_what_is_the_same_meets(query: str, text: str) -> None:
    """Every part of a measure or a number is found; a model number typed whole may be there in its parts alone."""
    shared, score = _shared(query, text)
    assert score > 0
    assert shared >= 0.5


@pytest.mark.parametrize(("query", "text"), MEETS_NOT)
def test_what_is_another_number_does_not(query: str, text: str) -> None:
    """At most the unit or the brand's letters are shared, never the number."""
    normal = normalize_text(text)
    index = LexicalIndex.build([(normal, normal), ("other", "other")])
    parsed = index.parse(normalize_text(query))
    numbers = {word for word in parsed.words if not word.isalpha()}
    held = {index.term(term) for term in parsed.terms.tolist()}
    assert numbers
    assert not numbers & held


def test_the_right_size_comes_first() -> None:
    """Among products that differ in a number alone."""
    titles = ["phone 5 g scale", "phone 5g network"]
    index = LexicalIndex.build([(title, title) for title in titles])
    assert index.search(index.parse("5g phone"), 1).rows.tolist() == [1]
    titles = ["laptop bag 15 inch", 'laptop bag 17"', "laptop bag 13-inch", "kettle 1.7 l", "kettle 1.5L", "kettle 5 l"]
    normal = [normalize_text(title) for title in titles]
    index = LexicalIndex.build([(title, title) for title in normal])
    for query, first in (("laptop bag 17 inch", 1), ("13in laptop bag", 2), ("1.5 litre kettle", 4), ("5l kettle", 5)):
        assert index.search(index.parse(normalize_text(query)), 1).rows.tolist() == [first]
