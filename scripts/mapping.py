"""Which column of a catalogue file is which field: stated by a mapping file, or recognised and inferred.

A mapping file is TOML. Where it has a `[fields]` table, exactly those fields are read:

    [catalogue]                                   # how the catalogue presents itself; all optional
    title = "Garden shop"
    attribution = "Example Ltd"
    examples = ["rain barrel", "cordless hedge trimmer"]

    [fields]
    id = "sku"                                    # column of the file
    title = "product_name"
    brand = {from = "maker", type = "keyword"}    # text, keyword, number or boolean; inferred where not given
    material = {searched = true}                  # `from` defaults to the field's own name; searched: part of the text
    category = {split = ">"}                      # one text with several values
    sales = {type = "number", role = "popularity"}   # a field plays the role of its own name unless another is given
    "attrs.width" = {type = "number"}             # a member of a column that holds maps
    internal = {stored = false, facet = false}    # not given back; facet defaults to true for keyword and boolean
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import BadInput
from app.index.schema import FIELD_TYPES, IN_STOCK, ROLE_NAMES, CatalogueInfo, FieldSpec, FieldType, Roles, Schema
from app.index.schema import suggestion as near
from scripts.column_profile import ColumnProfile, Profiles

MAX_MEMBER_COLUMNS = 64

SYNONYMS: dict[str, tuple[str, ...]] = {
    "id": ("id", "product_id", "sku", "asin", "parent_asin", "item_id", "article_number", "uid", "uuid", "code"),
    "title": ("title", "product_title", "name", "product_name", "item_name"),
    "description": ("description", "product_description", "long_description", "desc", "body"),
    "bullets": ("bullets", "bullet_points", "product_bullet_point", "features", "highlights"),
    "brand": ("brand", "product_brand", "brand_name", "brands", "manufacturer", "vendor"),
    "color": ("color", "colour", "product_color", "product_colour", "colors"),
    "category": (
        "category",
        "categories",
        "category_path",
        "product_category",
        "google_product_category",
        "product_type",
    ),
    "price": ("price", "sale_price", "current_price", "price_usd", "list_price"),
    "stock": ("stock", "current_stock", "stock_quantity", "inventory", "quantity", "qty"),
    "image": ("image", "image_url", "image_link", "main_image", "thumbnail", "images"),
    "popularity": (
        "popularity",
        "rating_count",
        "ratings_count",
        "review_count",
        "reviews_count",
        "num_reviews",
        "number_of_reviews",
        "units_sold",
    ),
    "attrs": ("attrs", "attributes", "specs", "specifications"),
}
_KEYWORD_ROLES = ("brand", "color", "category")
_NUMBER_ROLES = ("price", "stock", "popularity")
_TEXT_ROLES = ("title", "description", "bullets", "image")
_OPTIONS = ("from", "type", "facet", "stored", "searched", "role", "split")


@dataclass(frozen=True, slots=True)
class MappedField:
    """A field, the column it comes from (None: a member of a map, or derived), and what divides its values."""

    spec: FieldSpec
    column: str | None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """How a raw record becomes the fields of a schema."""

    id_column: str
    fields: tuple[MappedField, ...]
    schema: Schema

    def record(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The mapped fields of a raw record, not yet typed."""
        return {
            mapped.spec.name: _divided(raw.get(mapped.column), mapped.split)
            for mapped in self.fields
            if mapped.column is not None
        }


def _divided(value: Any, split: str | None) -> Any:
    if split is None or not isinstance(value, str) or split not in value:
        return value
    return [part.strip() for part in value.split(split)]


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A mapping file as read: `fields` is None where it leaves the fields to be recognised."""

    info: CatalogueInfo
    fields: Mapping[str, Mapping[str, Any]] | None
    name: str = "mapping"


def load_mapping(path: Path | None) -> MappingFile:
    """Read a mapping file; BadInput says what is wrong with it. None is the empty mapping."""
    if path is None:
        return MappingFile(CatalogueInfo(), None)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"mapping file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"mapping file {path} cannot be read: {error}") from error
    _known_keys(raw, ("catalogue", "fields"), path.name)
    return MappingFile(_info(raw.get("catalogue", {}), path.name), _fields(raw.get("fields"), path.name), path.name)


def _info(raw: Any, file: str) -> CatalogueInfo:
    _known_keys(raw, ("title", "attribution", "examples"), f"{file}: [catalogue]")
    examples = raw.get("examples", [])
    texts = [raw.get("title", ""), raw.get("attribution", "")]
    if not isinstance(examples, list) or not all(isinstance(item, str) for item in [*examples, *texts]):
        raise BadInput(f"{file}: [catalogue] takes a title, an attribution and a list of examples, all text")
    return CatalogueInfo.from_json(raw)


def _fields(raw: Any, file: str) -> dict[str, dict[str, Any]] | None:
    if raw is None:
        return None
    if not isinstance(raw, dict) or not raw:
        raise BadInput(f"{file}: [fields] must be a table that names at least id and title")
    return {name: _options(name, value, file) for name, value in raw.items()}


def _options(name: str, value: Any, file: str) -> dict[str, Any]:
    where = f"{file}: fields.{name}"
    options = {"from": value} if isinstance(value, str) else value
    _known_keys(options, ("from",) if name == "id" else _OPTIONS, where)
    for key, item in options.items():
        if not isinstance(item, bool if key in ("facet", "stored", "searched") else str) or item == "":
            raise BadInput(f"{where}: {key} cannot be {item!r}")
    if options.get("type", "text") not in FIELD_TYPES:
        raise BadInput(f"{where}: unknown type {options['type']!r}{near(options['type'], FIELD_TYPES)}")
    if options.get("role", "title") not in ROLE_NAMES:
        raise BadInput(f"{where}: unknown role {options['role']!r}{near(options['role'], ROLE_NAMES)}")
    return dict(options)


def _known_keys(raw: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(raw, dict):
        raise BadInput(f"{where}: must be a table")
    for key in raw:
        if key not in known:
            raise BadInput(f"{where}: unknown key {key!r}{near(key, known)}")


def resolve(mapping: MappingFile, profiles: Profiles) -> ColumnMapping:
    """Decide every field's column and type. BadInput where the id or title has no column, or a named one is absent."""
    found = _recognised(profiles) if mapping.fields is None else _stated(mapping, profiles)
    id_column, fields, roles = found
    names = {mapped.spec.name for mapped in fields}
    fields += [member for mapped in list(fields) for member in _members(mapped, profiles, names)]
    if roles.get("stock") and IN_STOCK not in names:
        fields.append(MappedField(FieldSpec(IN_STOCK, "boolean", facet=True), None))
    if "title" not in roles:
        raise BadInput(f"no column is the title{_columns_said(profiles)}: name it in a mapping file")
    schema = Schema(tuple(mapped.spec for mapped in fields), Roles(**roles))
    return ColumnMapping(id_column, tuple(fields), schema)


_Found = tuple[str, list[MappedField], dict[str, str]]


def _columns_said(profiles: Profiles) -> str:
    names = sorted(profiles.columns)
    return f" (columns: {', '.join(names[:20])}{', …' if len(names) > 20 else ''})"


def _stated(mapping: MappingFile, profiles: Profiles) -> _Found:
    stated = dict(mapping.fields or {})
    if "id" not in stated:
        raise BadInput(f"{mapping.name}: fields.id is missing: which column is the id?")
    id_column = _column(stated.pop("id").get("from", "id"), "id", mapping, profiles)
    fields = [_stated_field(name, options, mapping, profiles) for name, options in stated.items()]
    roles: dict[str, str] = {}
    for name, options in stated.items():
        role = options.get("role", name)
        if role in ROLE_NAMES:
            if role in roles:
                raise BadInput(f"{mapping.name}: fields {roles[role]!r} and {name!r} both play the role {role!r}")
            roles[role] = name
    return id_column, fields, roles


def _stated_field(name: str, options: Mapping[str, Any], mapping: MappingFile, profiles: Profiles) -> MappedField:
    outer, dot, inner = name.partition(".")
    if dot and "from" not in options and name not in profiles.columns:
        source = (mapping.fields or {}).get(outer, {}).get("from", outer)
        held = profiles.columns[_column(source, name, mapping, profiles)].members.get(inner, ColumnProfile())
        return MappedField(_spec(name, options, held, profiles, stored=False), None)
    column = _column(options.get("from", name), name, mapping, profiles)
    spec = _spec(name, options, profiles.columns[column], profiles, stored=options.get("stored", True))
    return MappedField(spec, column, options.get("split"))


def _spec(
    name: str, options: Mapping[str, Any], profile: ColumnProfile, profiles: Profiles, *, stored: bool
) -> FieldSpec:
    role = options.get("role", name)
    kind: FieldType = options.get("type") or _role_type(role, profile, profiles.untyped)
    facet = options.get("facet", kind in ("keyword", "boolean"))
    return FieldSpec(name, kind, facet, stored, options.get("searched", name == "attrs"))


def _column(column: str, field: str, mapping: MappingFile, profiles: Profiles) -> str:
    if column not in profiles.columns:
        known = near(column, profiles.columns) or _columns_said(profiles)
        raise BadInput(f"{mapping.name}: fields.{field} names column {column!r}, which the catalogue lacks{known}")
    return column


def _role_type(role: str, profile: ColumnProfile, untyped: bool) -> FieldType:
    """The type of a column that plays a role or has a known name."""
    if role in _TEXT_ROLES:
        return "text"
    if role in _KEYWORD_ROLES:
        return "keyword" if profile.fits_keyword_role() else "text"
    if role in _NUMBER_ROLES and profile.fits_number_role():
        return "number"
    return profile.type(untyped)


def _recognised(profiles: Profiles) -> _Found:
    """Known columns under our names, then the remaining ones under their own."""
    by_key = {_key(column): column for column in reversed(list(profiles.columns))}
    columns: dict[str, str] = {}
    for name, synonyms in SYNONYMS.items():
        column = next((by_key[_key(item)] for item in synonyms if _key(item) in by_key), None)
        if column is not None:
            columns[name] = column
    id_column = columns.pop("id", None)
    if id_column is None:
        raise BadInput(f"no column is the id{_columns_said(profiles)}: name it in a mapping file")
    fields = [
        MappedField(_spec(name, {}, profiles.columns[column], profiles, stored=True), column, _path_split(name))
        for name, column in columns.items()
    ]
    roles = {field.spec.name: field.spec.name for field in fields if _plays_its_role(field.spec)}
    taken = {id_column, *columns.values()}
    for column, profile in profiles.columns.items():
        if column not in taken and column not in columns and column != "id":
            fields.append(MappedField(_spec(column, {"role": ""}, profile, profiles, stored=True), column))
    return id_column, fields, roles


def _path_split(name: str) -> str | None:
    return " > " if name == "category" else None  # how product feeds write a path of categories


def _plays_its_role(spec: FieldSpec) -> bool:
    return spec.name in ROLE_NAMES and (spec.name not in _NUMBER_ROLES or spec.type == "number")


def _key(column: str) -> str:
    """Case, spaces, dashes and underscores make no difference to a column's name."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


def _members(mapped: MappedField, profiles: Profiles, names: set[str]) -> Iterator[MappedField]:
    """Typed columns for the most frequent members of a field of maps, unless the mapping named some itself."""
    name, column = mapped.spec.name, mapped.column
    if column is None or mapped.spec.type != "text" or any(other.startswith(f"{name}.") for other in names):
        return
    profile = profiles.columns[column]
    ranked = sorted(profile.members.items(), key=lambda item: (-item[1].seen, item[0]))
    typed = ((member, held.type(profiles.untyped)) for member, held in ranked if held.seen)
    kept = [(member, kind) for member, kind in typed if kind != "text"][:MAX_MEMBER_COLUMNS]
    for member, kind in kept:
        spec = FieldSpec(f"{name}.{member}", kind, facet=kind != "number", stored=False)
        yield MappedField(spec, None)
