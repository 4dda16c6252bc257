"""What a caller sends to change products → edits, checked against the catalogue's schema as a build checks its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import BadInput
from app.index.changes import Edit
from app.index.record import RecordRefused, product_id, typed_fields
from app.index.schema import IN_STOCK, Schema, suggestion
from app.types import Product


def puts(records: Sequence[Any], schema: Schema) -> list[Edit]:
    """Whole products. Raises BadInput with an entry for each that cannot be one, by its position."""
    edits, errors = [], []
    for position, record in enumerate(records):
        try:
            edits.append(_put(record, schema))
        except BadInput as error:
            errors.append({"field": f"[{position}]", "message": error.detail})
    if errors:
        raise BadInput(f"{len(errors)} of {len(records)} products cannot be kept; none was", errors=errors[:100])
    return edits


def patch(known: tuple[Product, Schema], fields: Any) -> Edit:
    """Some fields of a product that is there; None for those to be taken away. Raises BadInput."""
    product, schema = known
    if not isinstance(fields, Mapping) or not fields:
        raise BadInput("send an object with the fields that change")
    if fields.get("id", product.id) != product.id:
        raise BadInput("a product's id cannot change: put a new product, and delete this one")
    _known_names(fields, schema)
    lost = [spec.name for spec in schema.fields if not spec.stored and "." not in spec.name]
    if lost:
        raise BadInput(f"this catalogue does not store {', '.join(lost)}: put the whole product")
    given = {name: value for name, value in fields.items() if name != "id"}
    kept = {name: value for name, value in {**product.fields, **given}.items() if value is not None}
    derived: set[str] = set()
    if schema.derives_stock() and schema.roles.stock in given and IN_STOCK not in given:
        kept.pop(IN_STOCK, None)
        derived.add(IN_STOCK)  # whatever it is here: changes that are not seen yet may say otherwise
    after = typed_fields(kept, schema)
    names = given.keys() | derived
    return Edit("patch", product.id, {name: after.get(name) for name in sorted(names)})


def _put(record: Any, schema: Schema) -> Edit:
    if not isinstance(record, Mapping):
        raise RecordRefused("wrong type", "a product is an object")
    id = product_id(record.get("id"))
    _known_names(record, schema)
    return Edit("put", id, typed_fields(record, schema))


def _known_names(record: Mapping[str, Any], schema: Schema) -> None:
    names = [spec.name for spec in schema.fields if "." not in spec.name]
    for name in record:
        if name != "id" and name not in names:
            raise BadInput(f"unknown field {name[:64]!r}{suggestion(name[:64], names)}")
