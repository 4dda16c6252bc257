"""First layer: what the version was made from. Needs no encoder and no search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.index.bundle import Manifest, file_digest
from app.index.catalog import Catalog
from app.index.schema import ROLE_NAMES, FieldSpec, Schema
from models.gate.limits import Limits
from models.gate.verdict import Check

LAYER = "inputs"
KEY = "inputs"
_SAMPLE = 5_000


def recorded(catalogue: Path, mapping: Path | None, as_of: datetime | None) -> dict[str, Any]:
    """What a manifest keeps of a build's inputs: names, digests, and when the catalogue was exported, which is the
    file's modification time unless it is given. (The encoder's digest is a part's, the judgements' stand beside.)"""
    status = catalogue.stat()
    moment = as_of or datetime.fromtimestamp(status.st_mtime, UTC)
    return {
        "catalogue": {
            "name": catalogue.name,
            "sha256": file_digest(catalogue),
            "bytes": status.st_size,
            "as_of": moment.astimezone(UTC).isoformat(timespec="seconds"),
        },
        "mapping": None if mapping is None else {"name": mapping.name, "sha256": file_digest(mapping)},
    }


def manifest_checks(
    candidate: Manifest, served: Manifest | None, earlier: Mapping[str, Manifest], limits: Limits, now: datetime
) -> Iterator[Check]:
    """Whether the catalogue is stale: older than the served version's, or the same as one that was served before and
    has been replaced since (`earlier`, by version)."""
    own = _catalogue(candidate)
    if own is None:
        yield Check.not_run(LAYER, "stale", "the version does not record its catalogue")
        return
    as_of = datetime.fromisoformat(own["as_of"])
    yield _stale(own, as_of, None if served is None else _catalogue(served), earlier)
    if limits.max_age is not None:
        age = now - as_of
        found = f"the catalogue is {age.total_seconds() / 86_400:.1f} days old"
        limit = f"at most {limits.max_age.total_seconds() / 86_400:g} days"
        yield Check.of(LAYER, "age", age <= limits.max_age, found, limit, {"age_s": round(age.total_seconds())})


def _stale(
    own: Mapping[str, Any], as_of: datetime, served: Mapping[str, Any] | None, earlier: Mapping[str, Manifest]
) -> Check:
    if served is None:
        return Check.not_run(LAYER, "stale", "no served version records a catalogue")
    figures = {"sha256": own["sha256"], "as_of": own["as_of"], "served_as_of": served["as_of"]}
    limit = "not older than the served catalogue"
    if own["sha256"] == served["sha256"]:
        return Check.of(LAYER, "stale", True, "the served version's very catalogue", limit, figures)
    for version, manifest in earlier.items():
        if (_catalogue(manifest) or {}).get("sha256") == own["sha256"]:
            found = f"the catalogue of {version}, which has been replaced since (`aisle rollback` goes back on purpose)"
            return Check.of(LAYER, "stale", False, found, limit, figures)
    older = datetime.fromisoformat(served["as_of"]) - as_of
    if older.total_seconds() > 0:
        found = f"catalogue of {own['as_of']}, the served one is of {served['as_of']}"
    else:
        found = f"catalogue of {own['as_of']}"
    return Check.of(LAYER, "stale", older.total_seconds() <= 0, found, limit, figures)


def catalog_checks(candidate: Catalog, served: Catalog | None, why: str, limits: Limits) -> Iterator[Check]:
    """Whether products or values went missing; `why` there is no served catalogue, where there is none."""
    if served is None or not len(served):
        yield Check.not_run(LAYER, "products", why or "the served version holds no products")
        yield Check.not_run(LAYER, "fields", why or "the served version holds no products")
        return
    share = len(candidate) / len(served)
    found, limit = f"{len(candidate):,} products, {share:.1%} of {len(served):,}", f"at least {limits.products:.0%}"
    figures = {"products": len(candidate), "served_products": len(served)}
    yield Check.of(LAYER, "products", share >= limits.products, found, limit, figures)
    yield _fields(candidate, served, limits)


def _fields(candidate: Catalog, served: Catalog, limits: Limits) -> Check:
    """Paired by product: of those that had a value and are still there, how many have none now? Products that came or
    went do not count, so an ordinary rebuild scores 0 whatever its size."""
    rows = np.random.default_rng(0).permutation(len(served))[:_SAMPLE]
    pairs = [(int(row), candidate.row(served.id(int(row)))) for row in rows]
    both = [(served.fields(before), candidate.fields(now)) for before, now in pairs if now is not None]
    limit = f"at most {limits.lost_values:.0%} of the products that had a value"
    shares = {}
    for spec, now in _counterparts(served.schema, candidate.schema):
        had = [new for old, new in both if _filled(spec.value(old))]
        if len(had) >= limits.least_filled:
            lost = sum(now is None or not _filled(now.value(new)) for new in had)
            shares[spec.name] = lost / len(had)
    if not shares:
        return Check.not_run(LAYER, "fields", f"{len(both)} products are in both versions: too few with values")
    broken = sorted((name for name in shares if shares[name] > limits.lost_values), key=lambda name: -shares[name])
    worst = broken or [max(shares, key=lambda name: shares[name])]
    found = ", ".join(f"{name} is gone from {shares[name]:.1%}" for name in worst)
    found += f" of the products that had it ({len(both):,} compared)"
    return Check.of(LAYER, "fields", not broken, found, limit, {f"lost_{name}": shares[name] for name in shares})


def _counterparts(served: Schema, candidate: Schema) -> Sequence[tuple[FieldSpec, FieldSpec | None]]:
    """Each served field beside the candidate's field of the same role, else of the same name."""
    roles = {getattr(served.roles, role): getattr(candidate.roles, role) for role in ROLE_NAMES}
    return [
        (spec, candidate.by_name.get(spec.name) or candidate.by_name.get(roles.get(spec.name) or ""))
        for spec in served.fields
    ]


def _filled(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _catalogue(manifest: Manifest) -> Mapping[str, Any] | None:
    """The recorded catalogue, if it is recorded in full."""
    inputs = manifest.content.get(KEY)
    value = inputs.get("catalogue") if isinstance(inputs, dict) else None
    return value if isinstance(value, dict) and {"sha256", "as_of"} <= value.keys() else None
