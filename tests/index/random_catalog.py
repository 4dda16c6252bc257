"""A seeded catalogue with every type of column, and an evaluation of filters that is slow and obvious."""

from __future__ import annotations

import random
from typing import Any

from app.index.schema import FieldSpec, Schema
from app.types import Product

BRANDS = ("Acme", "Borealis", "acme", "Étoile", "北方", "")
CATEGORIES = ("Home", "Kitchen", "Garden", "Toys", "Books & Maps")
SCHEMA = Schema.of(
    FieldSpec("title", "text"),
    FieldSpec("brand", "keyword", facet=True),
    FieldSpec("category", "keyword", facet=True),
    FieldSpec("price", "number"),
    FieldSpec("popularity", "number"),
    FieldSpec("fresh", "boolean", facet=True),
    FieldSpec("attrs", "text"),
    FieldSpec("attrs.size", "number", stored=False),
    FieldSpec("hidden", "keyword", stored=False),
)


def products(count: int, seed: int) -> list[Product]:
    """Products in ascending order of id, each field sometimes absent."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        fields: dict[str, Any] = {
            "title": f"thing {number}",
            "brand": rng.choice(BRANDS),
            "category": rng.sample(CATEGORIES, rng.randint(0, 3)),
            "price": rng.choice((0, 1, 2.5, -3, 10, 10.0, 99.99)),
            "popularity": rng.randint(0, 5),
            "fresh": rng.random() < 0.5,
            "attrs": {"size": rng.choice((1, 2, "large")), "note": "n"},
            "hidden": rng.choice("xyz"),
        }
        kept = {name: value for name, value in fields.items() if name == "title" or rng.random() < 0.8}
        made.append(Product(f"p{number:05}", kept))
    return made


def values(product: Product, field: str) -> list[Any]:
    """The values that the column of a field should hold for a product."""
    value = product.fields.get(field)
    if field == "attrs.size":
        value = product.fields.get("attrs", {}).get("size")
        return [value] if isinstance(value, int) else []
    if isinstance(value, list):
        return value
    return [] if value is None or value == "" else [value]


def satisfies(product: Product, raw: dict[str, Any]) -> bool:
    """Whether a product satisfies a filter in its JSON form."""
    if "all" in raw:
        return all(satisfies(product, member) for member in raw["all"])
    if "any" in raw:
        return any(satisfies(product, member) for member in raw["any"])
    if "not" in raw:
        return not satisfies(product, raw["not"])
    held = values(product, raw["field"])
    if "exists" in raw:
        return bool(held) is raw["exists"]
    if "eq" in raw:
        return raw["eq"] in held
    if "in" in raw:
        return any(value in raw["in"] for value in held)
    tests = {"gte": float.__ge__, "gt": float.__gt__, "lte": float.__le__, "lt": float.__lt__}
    bounds = [key for key in tests if key in raw]
    return any(all(tests[key](float(value), float(raw[key])) for key in bounds) for value in held)


def random_filter(rng: random.Random, levels: int = 3) -> dict[str, Any]:
    """A filter in its JSON form, over the fields of SCHEMA."""
    kind = rng.choice(("all", "any", "not", "leaf", "leaf", "leaf")) if levels else "leaf"
    if kind == "not":
        return {"not": random_filter(rng, levels - 1)}
    if kind in ("all", "any"):
        return {kind: [random_filter(rng, levels - 1) for _ in range(rng.randint(1, 3))]}
    field = rng.choice(("brand", "category", "price", "popularity", "fresh", "attrs.size", "hidden"))
    choices: dict[str, tuple[Any, ...]] = {
        "brand": (*BRANDS, "Nobody"),
        "category": CATEGORIES,
        "fresh": (True, False),
        "hidden": ("x", "y", "w"),
    }
    known = choices.get(field, (-3, 0, 1, 2, 2.5, 10, 1000))
    test = rng.choice(("in", "eq", "exists", "range"))
    if test == "in":
        return {"field": field, "in": rng.choices(known, k=rng.randint(1, 3))}
    if test == "eq" or (test == "range" and field in choices):
        return {"field": field, "eq": rng.choice(known)}
    if test == "exists":
        return {"field": field, "exists": rng.random() < 0.5}
    lower = {rng.choice(("gte", "gt")): rng.choice(known)}
    upper = {rng.choice(("lte", "lt")): rng.choice(known)}
    return {"field": field, **rng.choice((lower, upper, lower | upper))}
