"""What a catalogue's fields are called, how they are typed, and which of them play a part in ranking."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from app.errors import BadInput

FieldType = Literal["text", "keyword", "number", "boolean"]
FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)
IN_STOCK = "in_stock"
SHOWN_CHARACTERS = 64  # of a name that is not known, in what is said of it; comparing a megabyte would take 0.1 s


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'brand'?` for a near miss, `; known: …` for a short list, else the empty string."""
    names = sorted(known)
    name = name[:SHOWN_CHARACTERS]
    lowered = {item.lower(): item for item in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {lowered[near[0]]!r}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field. `text` is stored and perhaps searched; the other types have a column to filter, sort and count by.

    A dotted name (`attrs.width`) looks into a field that holds a map and has no stored value of its own. `searched`
    adds the field to the searched text; fields with a text role are searched in any case.
    """

    name: str
    type: FieldType
    facet: bool = False
    stored: bool = True
    searched: bool = False

    def value(self, product: Mapping[str, Any]) -> Any:
        """The field's value in a product's fields, or None."""
        if self.name in product:
            return product[self.name]
        outer, dot, inner = self.name.partition(".")
        if not dot:
            return None
        held = product.get(outer)
        return held.get(inner) if isinstance(held, Mapping) else None


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of the fields that play a part; None where the catalogue has no such field."""

    title: str = "title"
    description: str | None = None
    bullets: str | None = None
    brand: str | None = None
    color: str | None = None
    category: str | None = None
    popularity: str | None = None
    stock: str | None = None


ROLE_NAMES: tuple[str, ...] = tuple(item.name for item in fields(Roles))
_NUMBER_ROLES = ("popularity", "stock")


@dataclass(frozen=True)
class Schema:
    """The fields of a catalogue in their order, and their roles. Inconsistent schemas are refused with BadInput."""

    fields: tuple[FieldSpec, ...]
    roles: Roles = field(default_factory=Roles)

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.fields]
        for spec in self.fields:
            if not spec.name or spec.name == "id":
                raise BadInput(f"a field cannot be called {spec.name!r}")
            if spec.type not in FIELD_TYPES:
                near = suggestion(spec.type, FIELD_TYPES)
                raise BadInput(f"field {spec.name!r} has unknown type {spec.type!r}{near}")
            if spec.facet and spec.type not in ("keyword", "boolean"):
                raise BadInput(f"field {spec.name!r} of type {spec.type} cannot be a facet")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise BadInput(f"field {repeated[0]!r} is defined twice")
        self._check_roles()

    def _check_roles(self) -> None:
        for role in ROLE_NAMES:
            name = getattr(self.roles, role)
            if name is None:
                continue
            spec = self.by_name.get(name)
            if spec is None:
                raise BadInput(f"role {role!r} names unknown field {name!r}{suggestion(name, self.by_name)}")
            if role in _NUMBER_ROLES and spec.type != "number":
                raise BadInput(f"role {role!r} needs a number field, but {name!r} is {spec.type}")
            if role not in _NUMBER_ROLES and spec.type not in ("text", "keyword"):
                raise BadInput(f"role {role!r} needs a text or keyword field, but {name!r} is {spec.type}")

    @classmethod
    def of(cls, *specs: FieldSpec) -> Schema:
        """A schema whose roles are played by the fields of the same names."""
        names = {spec.name for spec in specs}
        return cls(specs, Roles(**{role: role for role in ROLE_NAMES if role in names}))

    @cached_property
    def by_name(self) -> dict[str, FieldSpec]:
        return {spec.name: spec for spec in self.fields}

    @cached_property
    def stored_names(self) -> tuple[str, ...]:
        """Names of the fields that a document holds, in order."""
        return tuple(spec.name for spec in self.fields if spec.stored)

    def named(self, name: str) -> FieldSpec:
        """The field of that name; BadInput with the nearest name for an unknown one."""
        spec = self.by_name.get(name)
        if spec is None:
            raise BadInput(f"unknown field {name[:SHOWN_CHARACTERS]!r}{suggestion(name, self.by_name)}")
        return spec

    def text_roles_beyond_title(self) -> tuple[str, ...]:
        """Names of the fields that describe a product beside its title: what a candidate given as text may lack."""
        roles = self.roles
        names = (roles.description, roles.bullets, roles.brand, roles.color, roles.category)
        return tuple(name for name in names if name is not None)

    def derives_stock(self) -> bool:
        """Whether the boolean `in_stock` follows from the stock count where a product does not state it."""
        spec = self.by_name.get(IN_STOCK)
        return self.roles.stock is not None and spec is not None and spec.type == "boolean"

    def to_json(self) -> dict[str, Any]:
        return {"fields": [asdict(spec) for spec in self.fields], "roles": asdict(self.roles)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schema:
        """Read what `to_json` gave; BadInput where it is not of that form."""
        try:
            return cls(tuple(FieldSpec(**item) for item in value["fields"]), Roles(**value["roles"]))
        except (TypeError, KeyError) as error:
            raise BadInput(f"not a schema: {error}") from error


@dataclass(frozen=True, slots=True)
class CatalogueInfo:
    """How a catalogue presents itself: its title, whose work it is, and queries worth trying first."""

    title: str = ""
    attribution: str = ""
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "attribution": self.attribution, "examples": list(self.examples)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CatalogueInfo:
        """Read what `to_json` gave; absent members are empty."""
        examples = tuple(str(item) for item in value.get("examples", ()))
        return cls(str(value.get("title", "")), str(value.get("attribution", "")), examples)
