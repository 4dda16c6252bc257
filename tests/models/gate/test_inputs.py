"""The first layer: what a version was made from."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.index.bundle import Manifest
from app.index.catalog import Catalog
from app.index.schema import FieldSpec, Roles, Schema
from app.types import Product
from models.gate import Check, Limits, recorded
from models.gate.inputs import catalog_checks, manifest_checks

NOW = datetime(2026, 3, 10, tzinfo=UTC)
TITLE, BRAND = FieldSpec("title", "text"), FieldSpec("brand", "keyword")


def _manifest(digest: str, as_of: datetime) -> Manifest:
    return Manifest("default", "", {}, {"inputs": {"catalogue": {"sha256": digest, "as_of": as_of.isoformat()}}}, "")


def _stale(candidate: Manifest, served: Manifest | None, earlier: dict[str, Manifest] | None = None) -> Check:
    (check,) = manifest_checks(candidate, served, earlier or {}, Limits(), NOW)
    return check


def test_an_older_export_than_the_served_one_is_stale() -> None:
    """A newer one is not (control), nor is the served export itself, whatever its file's date."""
    served = _manifest("b", NOW)
    assert _stale(_manifest("a", NOW - timedelta(hours=1)), served).outcome == "refused"
    assert _stale(_manifest("c", NOW + timedelta(hours=1)), served).outcome == "passed"
    assert _stale(_manifest("b", NOW - timedelta(days=9)), served).outcome == "passed"


def test_an_old_export_is_known_again_by_its_digest_whatever_its_date() -> None:
    """Copying a file makes it new; what was served before and has been replaced is stale all the same."""
    check = _stale(_manifest("a", NOW), _manifest("b", NOW), {"20260301-00000000": _manifest("a", NOW)})
    assert check.outcome == "refused" and "20260301-00000000" in check.found
    unknown = {"20260301-00000000": _manifest("z", NOW)}
    assert _stale(_manifest("a", NOW), _manifest("b", NOW), unknown).outcome == "passed"


def test_a_version_that_recorded_nothing_is_not_judged_by_it() -> None:
    """Versions of before the gate, on either side."""
    bare = Manifest("default", "", {}, {}, "")
    assert _stale(bare, _manifest("a", NOW)).outcome == "not run"
    assert _stale(_manifest("a", NOW), bare).outcome == "not run"
    assert _stale(_manifest("a", NOW), None).outcome == "not run"


@pytest.mark.parametrize(("days", "outcome"), [(2, "passed"), (4, "refused")])
def test_a_catalogue_beyond_the_age_that_is_asked_for_is_refused(days: float, outcome: str) -> None:
    """Whatever is served."""
    manifest = _manifest("a", NOW - timedelta(days=days))
    checks = manifest_checks(manifest, None, {}, Limits(max_age=timedelta(days=3)), NOW)
    assert {check.name: check.outcome for check in checks}["age"] == outcome


def test_a_build_records_digests_and_the_files_time(tmp_path: Path) -> None:
    """Unless the time of the export is given, which then counts."""
    (tmp_path / "p.jsonl").write_bytes(b"{}")
    os.utime(tmp_path / "p.jsonl", (0, 86_400))
    value = recorded(tmp_path / "p.jsonl", None, None)
    assert value["catalogue"]["as_of"] == "1970-01-02T00:00:00+00:00"
    assert value["catalogue"]["sha256"].startswith("44136fa355b3678a")
    assert recorded(tmp_path / "p.jsonl", None, NOW)["catalogue"]["as_of"] == NOW.isoformat()
    assert recorded(tmp_path / "p.jsonl", tmp_path / "p.jsonl", None)["mapping"]["name"] == "p.jsonl"


def _catalog(count: int, schema: Schema, **fields: object) -> Catalog:
    return Catalog.build([Product(f"p{n:03}", {"title": f"product {n}", **fields}) for n in range(count)], schema)


def _checks(candidate: Catalog, served: Catalog) -> dict[str, str]:
    return {check.name: check.outcome for check in catalog_checks(candidate, served, "", Limits())}


@pytest.mark.parametrize(("count", "outcome"), [(100, "passed"), (51, "passed"), (49, "refused"), (0, "refused")])
def test_a_catalogue_that_lost_half_of_its_products_is_refused(count: int, outcome: str) -> None:
    """Growing is no offence."""
    schema = Schema.of(TITLE)
    assert _checks(_catalog(count, schema), _catalog(100, schema))["products"] == outcome


def test_a_field_is_lost_where_products_that_had_it_have_it_no_more() -> None:
    """Empty, or no longer in the schema; products that are new without it do not count (control)."""
    both, bare = Schema.of(TITLE, BRAND), Schema.of(TITLE)
    served = _catalog(50, both, brand="Acme")
    assert _checks(_catalog(50, both, brand=""), served)["fields"] == "refused"
    assert _checks(_catalog(50, both), served)["fields"] == "refused"
    assert _checks(_catalog(50, bare), served)["fields"] == "refused"
    with_new = [Product(f"p{n:03}", {"title": "x", **({"brand": "Acme"} if n < 50 else {})}) for n in range(90)]
    assert _checks(Catalog.build(with_new, both), served)["fields"] == "passed"


def test_a_field_that_plays_the_same_part_under_another_name_is_not_lost() -> None:
    """`brand` becomes `maker`; without the role it would be lost (control)."""
    served = _catalog(50, Schema.of(TITLE, BRAND), brand="Acme")
    maker = FieldSpec("maker", "keyword")
    renamed = Schema((TITLE, maker), Roles(brand="maker"))
    assert _checks(_catalog(50, renamed, maker="Acme"), served)["fields"] == "passed"
    assert _checks(_catalog(50, Schema.of(TITLE, maker), maker="Acme"), served)["fields"] == "refused"
