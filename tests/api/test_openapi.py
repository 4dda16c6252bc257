"""The OpenAPI document is true: it names every route, and generated requests find no answer it does not name."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import load_all_checks
from starlette.routing import Route

from app.api import answers, keyfile, schemas
from app.api.access import SCOPES
from app.api.endpoint import Endpoint
from app.api.openapi import OPERATIONS
from tests.api.conftest import edge_app
from tests.api.stub_service import KNOWN, StubService

load_all_checks()
_APP = edge_app(StubService(), docs=True, is_open=True)
_DOCUMENT = _APP.openapi()
_KEY = keyfile.new_key()
with NamedTemporaryFile("w") as _file:
    _file.write(keyfile.line_of("all", frozenset(SCOPES), _KEY))
    _file.flush()
    _KEYED = edge_app(StubService(), docs=True, keys_file=Path(_file.name))  # whose keys stay when the file is gone
_KEYED_DOCUMENT = _KEYED.openapi()
# Bodies that the schema lets through may still be refused for what no schema can say: a version has its own fields.
_CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "413", "422"]},
            "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413", "422"]},
        }
    }
)
schema = schemathesis.openapi.from_asgi("/openapi.json", _APP, config=_CONFIG)
keyed_schema = schemathesis.openapi.from_asgi("/openapi.json", _KEYED, config=_CONFIG)


@schemathesis.serializer("application/x-ndjson")
def _lines(ctx: schemathesis.SerializationContext, value: object) -> bytes:
    return str(value).encode(errors="replace")


_UNDOCUMENTED = {"/", "/page/{name}", "/docs", "/openapi.json"}


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    """Paths and methods, both ways."""
    served = {
        (route.endpoint.path, method.lower())
        for route in _APP.routes
        if isinstance(route, Route) and isinstance(route.endpoint, Endpoint)
        for method in route.endpoint.handlers
        if method != "HEAD" and route.endpoint.path not in _UNDOCUMENTED
    }
    drawn = {(path, method) for path, methods in _DOCUMENT["paths"].items() for method in methods}
    assert drawn == served == {(operation.path, operation.method) for operation in OPERATIONS}


def test_the_examples_fulfil_their_schemas() -> None:
    """As the models read them and as the document says."""
    for operation in OPERATIONS:
        if operation.body is None:
            continue
        operation.body.model_validate_json(json.dumps(operation.example))
        whole = {"$ref": f"#/components/schemas/{operation.body.__name__}", "components": _DOCUMENT["components"]}
        Draft202012Validator(whole).validate(operation.example)


def test_every_shape_that_is_referred_to_exists() -> None:
    """No dangling reference anywhere."""

    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    names = {reference.removeprefix("#/components/schemas/") for reference in references(_DOCUMENT)}
    assert names <= set(_DOCUMENT["components"]["schemas"])
    assert {"Filter", "Problem", "SearchBody"} <= names
    assert answers.Problem.__name__ in names
    assert schemas.SearchBody.__name__ in names


@pytest.mark.promise("S1", "0 5xx, 0 answers against the document, wrong data refused; 150 cases an operation")
@schema.parametrize()
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_generated_requests_are_answered_as_documented(case: schemathesis.Case) -> None:
    """No 5xx, nothing wrong accepted, every answer of a documented status and shape; valid and invalid data alike."""
    if case.path_parameters:
        case.path_parameters.setdefault("id", KNOWN)
    case.call_and_validate()


@pytest.mark.promise(
    "S8",
    "401 without a key or with another, by every operation",
    control="the same requests with the key are answered as documented",
)
@keyed_schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_generated_requests_need_a_key_where_keys_are_asked_for(case: schemathesis.Case) -> None:
    """With a key as documented; without it, or with another, 401 by every operation that says it takes one."""
    if case.path_parameters:
        case.path_parameters.setdefault("id", KNOWN)
    case.call_and_validate(headers={"Authorization": f"Bearer {_KEY}"})
    case.headers.pop("Authorization", None)
    drawn = _KEYED_DOCUMENT["paths"][case.path].get(case.method.lower())
    if drawn is None:  # a method that the path does not have is 405, whoever asks
        return
    # No route takes a line break in an id: such a path is 404, whoever asks.
    takes_one = "security" in drawn and "%0A" not in str(case.path_parameters)
    for headers in ({}, {"Authorization": "Bearer another"}, {"X-API-Key": "another"}):
        assert (case.call(headers=headers).status_code == 401) == takes_one


@pytest.mark.promise(
    "S1", "0 5xx, 0 answers against the document, wrong data refused; 800 cases an operation, the edge alone"
)
@pytest.mark.deep
@schema.parametrize()
@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_generated_requests_are_answered_as_documented(case: schemathesis.Case) -> None:
    """The same, ten thousand times over all operations."""
    case.call_and_validate()
