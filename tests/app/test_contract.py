"""The OpenAPI document against the running service: generated requests over a socket, and its own examples."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from app.api.openapi import OPERATIONS
from tests.app.server import Served, served
from tests.conftest import Client
from tests.ledger import Promise
from tests.promises.forms import forms

_CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "413", "422"]},
            "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413", "422"]},
        }
    }
)


@pytest.fixture(scope="module")
def service(tiny_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The real service over a copy of the tiny bundle, in a process of its own; what changes versions is open, too."""
    bundles = tmp_path_factory.mktemp("contract") / "bundles"
    shutil.copytree(tiny_bundles, bundles)
    with served(bundles, AISLE_DOCS="1", AISLE_OPEN="1") as running:
        yield running


@pytest.mark.parametrize("size", forms((25, 300), (700, 10_000)))
def test_generated_requests_find_no_server_error(service: Served, promise: Promise, size: tuple[int, int]) -> None:
    """No 5xx and no answer that the document does not name, from the real service, for every operation; the service's
    own count agrees. (Two thousand more go to the edge alone: tests/api/test_openapi.py.)"""
    examples, least = size
    with promise("S1", f"≥ {least:,} generated cases: 0 5xx, 0 answers against the document") as found:
        before = sum(_counted(service).values())
        tried = _all_operations(service, examples)
        counted = _counted(service)
        statuses = Counter(re.findall(r'status="(\d)', "".join(counted)))
        found.figure = f"{tried:,} generated cases over every operation, 0 against the document, 0 5xx"
        found.control = f"valid and invalid data; series by kind of status: {dict(sorted(statuses.items()))}"
        found.metric = f"aisle_http_requests_total +{sum(counted.values()) - before:.0f}"
        assert tried >= least
        assert sum(counted.values()) - before >= tried
        assert statuses["2"] and statuses["4"] and not statuses["5"]


def _counted(service: Served) -> dict[str, float]:
    lines = httpx.get(f"{service.address}/metrics").text.splitlines()
    return {line: float(line.rpartition(" ")[2]) for line in lines if line.startswith("aisle_http_requests_total{")}


def _all_operations(service: Served, examples: int) -> int:
    schema = schemathesis.openapi.from_url(f"{service.address}/openapi.json", config=_CONFIG)
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            tried += _generated(operation, mode, examples)
    return tried


def _generated(operation: Any, mode: GenerationMode, examples: int) -> int:
    """Number of requests tried; an operation that cannot be asked wrongly has none of that mode."""
    tried = 0

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        if case.path_parameters:
            case.path_parameters.setdefault("id", "p001")
        _leave_time(case.body)
        _leave_time(case.query)
        case.call_and_validate()

    try:
        ask()
    except Unsatisfiable:
        return tried
    return tried


def _leave_time(asked: Any) -> None:
    """A deadline of a few milliseconds may well end in a 504, which is as it should be and not what is tested here. One
    that is out of range stays so: it is to be refused."""
    if not isinstance(asked, dict):
        return
    given = str(asked.get("timeout_ms", ""))
    if given.isascii() and given.replace(".", "", 1).isdigit() and 1 <= float(given) <= 60_000:
        asked["timeout_ms"] = 60_000 if not isinstance(asked["timeout_ms"], str) else "60000"


async def test_the_examples_of_the_document_are_answered(shipped_bundles: Path, client: Client) -> None:
    """Each with 200, by the shipped catalogue."""
    tried = 0
    async with client(shipped_bundles, open=True) as http:
        for operation in OPERATIONS:
            if operation.body is None or operation.path.startswith("/v1/versions/"):
                continue  # without a body, or it would change the catalogue that all tests share
            path = operation.path.replace("{id}", "B07CXG6C9W")
            response = await http.request(operation.method.upper(), path, json=operation.example)
            assert response.status_code == 200, f"{operation.path}: {json.dumps(operation.example)}\n{response.text}"
            tried += 1
    assert tried >= 5
