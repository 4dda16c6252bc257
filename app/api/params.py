"""Query strings, read as strictly as bodies: unknown, repeated and converted parameters are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar, cast
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.types import Scope

from app.api.schemas import invalid
from app.errors import BadInput, MalformedInput

M = TypeVar("M", bound=BaseModel)
Value = str | int | float | bool
Reader = Callable[[str], Value]

_MAX_PARAMETERS = 32
_WITHOUT: dict[type[BaseModel], BaseModel] = {}  # what a route takes whose query string is empty
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


def integer(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise ValueError("must be an integer")
    return int(text)


def number(text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("must be a number")
    return float(text)


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def text(text: str) -> str:
    return text


def read_params(
    model: type[M], scope: Scope, readers: Mapping[str, Reader], rename: Mapping[str, str] | None = None
) -> M:
    """The query string as `model`; `readers` names each parameter and how its text is read, `rename` the fields that
    are called otherwise. Raises MalformedInput for bytes that are no UTF-8, BadInput for the rest."""
    if not scope["query_string"] and model in _WITHOUT:
        return cast(M, _WITHOUT[model])
    values: dict[str, Value] = {}
    faults: list[dict[str, str]] = []
    for name, given in _pairs(scope["query_string"]):
        reader = readers.get(name)
        field = (rename or {}).get(name, name)
        try:
            if reader is None:
                raise ValueError("is not a parameter of this route")
            if field in values:
                raise ValueError("is given twice")
            values[field] = reader(given)
        except ValueError as error:
            faults.append({"field": name[:64], "message": str(error)})
    if faults:
        raise BadInput("the query string does not have the shape this route takes", errors=faults)
    try:
        read = model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None
    if not values:  # nobody can change it, so it serves all who give nothing
        _WITHOUT[model] = read
    return read


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    if not query_string:
        return []
    try:
        return parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise MalformedInput("the query string is no UTF-8") from None
    except ValueError:
        raise BadInput(f"a query string may have at most {_MAX_PARAMETERS} parameters") from None
