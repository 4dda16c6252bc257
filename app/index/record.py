"""A raw product record → typed fields, by a schema. Files read offline and products sent online pass the same check."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from app.errors import BadInput
from app.index.schema import IN_STOCK, FieldSpec, Schema

MAX_TEXT_BYTES = 64 * 1024
MAX_ID_BYTES = 512
MAX_NESTING = 4
MAX_NUMERAL = 40

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_NUMERAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class RecordRefused(BadInput):
    """A record that cannot be a product. `reason` is one of a few fixed phrases, to count by; `detail` is the story."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def product_id(raw: Any) -> str:
    """The id as text; RecordRefused for one that is absent, no text or integer, too long, or has control characters."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    if raw is None or raw == "":
        raise RecordRefused("no id", "the record has no id")
    if not isinstance(raw, str):
        raise RecordRefused("wrong type", f"the id must be text or an integer, not {type(raw).__name__}")
    text = raw.strip()
    if not text:
        raise RecordRefused("no id", "the id is blank")
    if not text.isprintable():
        raise RecordRefused("control characters", f"the id {text[:60]!r} holds characters that cannot be printed")
    if len(text.encode()) > MAX_ID_BYTES:
        raise RecordRefused("oversize text", f"the id is longer than {MAX_ID_BYTES} bytes")
    return text


def typed_fields(raw: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The schema's fields of a record, cleaned and typed; absent and empty ones are left out.

    Numbers and booleans may come as text. RecordRefused for a missing title and for values of a wrong type, oversize
    or full of control characters.
    """
    typed: dict[str, Any] = {}
    for spec in schema.fields:
        value = raw.get(spec.name)
        if value is not None and value not in ("", [], {}):
            kept = _TYPED[spec.type](value, spec)
            if kept is not None:
                typed[spec.name] = kept
    if schema.derives_stock() and IN_STOCK not in typed and schema.roles.stock in typed:
        typed[IN_STOCK] = typed[schema.roles.stock] > 0
    _check_title(typed, schema.roles.title)
    return typed


def _check_title(typed: dict[str, Any], name: str) -> None:
    title = typed.get(name)
    if title is None:
        raise RecordRefused("no title", f"the record has no {name}")
    if isinstance(title, int | float) and not isinstance(title, bool):
        typed[name] = str(title)  # a book called 1984, from a typed table
    elif not isinstance(title, str):
        raise RecordRefused("wrong type", f"{name} must be text, not {type(title).__name__}")


def number(value: Any) -> float | int | None:
    """The finite number that a JSON value or a numeral means; None where it means none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if len(text) > MAX_NUMERAL or not _NUMERAL.fullmatch(text):
            return None
        value = float(text) if not text.lstrip("+-").isdecimal() else int(text)
    if isinstance(value, int):
        return value if -(2**53) <= value <= 2**53 else float(value) if abs(value) < 10**300 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def boolean(value: Any) -> bool | None:
    """The truth value that a JSON value or a word (true, yes, 1, false, no, 0) means; None where it means none."""
    if isinstance(value, bool):
        return value
    return _BOOLEANS.get(str(value).strip().lower()) if isinstance(value, str | int) else None


def clean(text: str, name: str) -> str:
    """The text with lone surrogates and control characters replaced, trimmed; RecordRefused where they are the rule."""
    if len(text) > MAX_TEXT_BYTES // 4 and len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise RecordRefused("oversize text", f"{name} is longer than {MAX_TEXT_BYTES} bytes")
    if not text.isprintable():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text, replaced = _CONTROLS.subn(" ", text)
        if (replaced + text.count("\ufffd")) * 10 > len(text) + 30:
            raise RecordRefused("control characters", f"more than a tenth of {name} is control characters")
    return text.strip()


def _text(value: Any, spec: FieldSpec) -> Any:
    if isinstance(value, str):
        return clean(value, spec.name) or None
    return _cleaned(value, spec.name, MAX_NESTING)


def _cleaned(value: Any, name: str, levels: int) -> Any:
    """A JSON value with every text in it cleaned."""
    if isinstance(value, str):
        return clean(value, name)
    if isinstance(value, Mapping | list | tuple):
        if levels == 0:
            raise RecordRefused("wrong type", f"{name} is nested deeper than {MAX_NESTING} levels")
        if isinstance(value, Mapping):
            return {clean(str(key), name): _cleaned(item, name, levels - 1) for key, item in value.items()}
        return [_cleaned(item, name, levels - 1) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if value != value:  # NaN, how tables write "no value"
        return None
    kept = number(value)
    if kept is None:
        raise RecordRefused("wrong type", f"{name} holds a {type(value).__name__} that JSON cannot hold")
    return kept


def _keyword(value: Any, spec: FieldSpec) -> str | list[str] | None:
    if isinstance(value, list | tuple):
        listed = [_one_keyword(item, spec) for item in value if item is not None]
        return list(dict.fromkeys(item for item in listed if item)) or None
    return _one_keyword(value, spec) or None


def _one_keyword(value: Any, spec: FieldSpec) -> str:
    if isinstance(value, str):
        return clean(value, spec.name)
    kept = number(value)
    if kept is None:
        raise RecordRefused("wrong type", f"{spec.name} must be text or a list of texts, not {type(value).__name__}")
    return str(int(kept) if float(kept).is_integer() else kept)


def _number(value: Any, spec: FieldSpec) -> float | int | None:
    if isinstance(value, float) and math.isnan(value):  # how tables write "no value"
        return None
    kept = number(value)
    if kept is None:
        raise RecordRefused("wrong type", f"{spec.name} must be a finite number, not {str(value)[:60]!r}")
    return kept


def _boolean(value: Any, spec: FieldSpec) -> bool:
    kept = boolean(value)
    if kept is None:
        raise RecordRefused("wrong type", f"{spec.name} must be true or false, not {str(value)[:60]!r}")
    return kept


_TYPED = {"text": _text, "keyword": _keyword, "number": _number, "boolean": _boolean}
