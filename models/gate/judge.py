"""The layers in their order, over a version and the one that is served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from app.errors import AisleError, BundleError, CorruptPart, NotFound
from app.index.bundle import BundleStore, Manifest, read_manifest
from app.search.searcher import Searcher
from app.search.versions import Encoders, Served, open_folder
from models.gate import fingerprint, inputs, recall, relevance
from models.gate.judgements import Judgements
from models.gate.limits import Limits
from models.gate.verdict import LAYERS, Check, Verdict


@dataclass(frozen=True)
class _Baseline:
    """The served version as far as it can be read; `why` says what is missing. One that cannot be opened must not keep
    its successor out."""

    version: str | None = None
    manifest: Manifest | None = None
    searcher: Searcher | None = None
    why: str = "nothing is served yet"


def judge(
    store: BundleStore,
    version: str,
    judgements: Judgements | None = None,
    limits: Limits | None = None,
    encoders: Encoders | None = None,
) -> Verdict:
    """Run every layer that can be run. Without `judgements` those that the version holds are taken, else those of the
    served one. Raises NotFound for a version that is not there."""
    limits, encoders = limits or Limits(), encoders or Encoders("auto")
    baseline = _baseline(store, encoders)
    try:
        manifest = store.verify(version)
        candidate = _opened(store, version, manifest, encoders)
        judgements = judgements or _kept(store, version, manifest, baseline)
    except BundleError as error:
        unopened = [Check.not_run(layer, layer, "the version cannot be opened") for layer in LAYERS[1:]]
        parts = Check.of(LAYERS[0], "parts", False, error.detail, "every part as in the manifest")
        return Verdict(version, baseline.version, (parts, *unopened))
    searcher, served = candidate.searcher, baseline.searcher
    made = [Check.of(LAYERS[0], "parts", True, f"{len(manifest.parts)} parts", "every part as in the manifest")]
    made += inputs.manifest_checks(
        manifest, baseline.manifest, _earlier(store, baseline.version), limits, datetime.now(UTC)
    )
    made += inputs.catalog_checks(searcher.catalog, served.catalog if served else None, baseline.why, limits)
    dense = candidate.content.get("dense") or {}
    first = baseline.version is None and bool((candidate.content.get("vectors") or {}).get("given"))
    other = served.encoder if served else None
    made += fingerprint.checks(searcher, store.path(version), dense, other, limits, strangers=first)
    texts = tuple(judgements.queries.values()) if judgements else candidate.info.examples
    made.append(recall.check(searcher, texts, limits))
    made += relevance.checks(searcher, served, judgements, limits, _flattered(judgements, manifest, baseline))
    return Verdict(version, baseline.version, tuple(made))


def _baseline(store: BundleStore, encoders: Encoders) -> _Baseline:
    version = manifest = None
    try:
        version = store.current()
        if version is None:
            return _Baseline()
        manifest = store.verify(version)
        return _Baseline(version, manifest, _opened(store, version, manifest, encoders).searcher, "")
    except AisleError as error:
        return _Baseline(version, manifest, None, f"the served version cannot be opened: {error.detail}")


def _opened(store: BundleStore, version: str, manifest: Manifest, encoders: Encoders) -> Served:
    """As the service opens it, but without its golden queries: they are a check of their own here."""
    try:
        return open_folder(store.path(version), manifest, version, encoders)
    except BundleError:
        raise
    except Exception as error:  # parts that are whole and nonsense: no loader foresees all of it
        raise CorruptPart(f"version {version} cannot be opened ({type(error).__name__})") from error


def _kept(store: BundleStore, version: str, manifest: Manifest, baseline: _Baseline) -> Judgements | None:
    own = Judgements.kept(store.path(version), manifest, "of the version")
    if own is not None or baseline.version is None or baseline.manifest is None:
        return own
    try:
        return Judgements.kept(store.path(baseline.version), baseline.manifest, "of the served version")
    except CorruptPart:
        return None


def _flattered(judgements: Judgements | None, manifest: Manifest, baseline: _Baseline) -> bool:
    """Whether the candidate alone was fitted to the judgements, which makes it look better than it is."""
    if judgements is None or baseline.manifest is None:
        return False
    return judgements.fitted_by(manifest.content) and not judgements.fitted_by(baseline.manifest.content)


def _earlier(store: BundleStore, served: str | None) -> dict[str, Manifest]:
    """Manifests of the versions that were served before, the latest first, as far as they are still there."""
    found: dict[str, Manifest] = {}
    for version in reversed(store.history()):
        if version != served and version not in found:
            try:
                found[version] = read_manifest(store.path(version))
            except (BundleError, NotFound, OSError):
                continue
    return found
