"""One version of one collection, made ready to be served: load → verify → warm."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeGuard
from weakref import WeakValueDictionary

import numpy as np

from app.errors import AisleError, BadInput, CorruptPart, EncoderUnavailable, IndexUnavailable
from app.index import bundle
from app.index.catalog import Catalog
from app.index.dense import EXACT_SCAN_UP_TO, FaissIndex, VectorIndex
from app.index.dense_gpu import GpuIndex, gpu_is_built_in
from app.index.lexical import LexicalIndex
from app.index.schema import CatalogueInfo
from app.pace import give_way
from app.runtime.onnx import Provider
from app.runtime.onnx_cuda import DEVICE
from app.search.classify import classifier_of
from app.search.embed import DESCRIPTION, HALF, MODEL, PRODUCT_MODEL, TOKENIZER, Encoder
from app.search.golden import GOLDEN, LEAST_OVERLAP, Golden, golden_answers, overlap, read_golden
from app.search.job import SearchJob, tier_ms
from app.search.plan import WORDS, ladder
from app.search.rerank import Ranking
from app.search.rescore import RescoreJob
from app.search.searcher import Searcher
from app.search.static import StaticEncoder
from app.types import RescoreCandidate, SearchRequest

_log = logging.getLogger("aisle.versions")
_MEASURED = 16
_SEVERAL = 4  # searches: enough for the way of many


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded version."""

    searcher: Searcher
    info: CatalogueInfo
    content: Mapping[str, Any]
    loaded_at: float
    golden: Golden = field(default_factory=dict)


class Encoders:
    """Loaded encoders by digest, so that versions and collections with the same model share one session. One that no
    version uses any more is let go."""

    def __init__(self, provider: Provider, *, checked: bool = False) -> None:
        """`checked` encoders must make the vectors on this machine that their network made; the gate sees to it itself,
        and says more."""
        self._provider = provider
        self._checked = checked
        self._loaded: WeakValueDictionary[tuple[str, ...], Encoder] = WeakValueDictionary()

    def load(self, folder: Path, manifest: bundle.Manifest) -> Encoder:
        names = (MODEL, PRODUCT_MODEL, *HALF.values(), TOKENIZER, DESCRIPTION)
        key = tuple(manifest.parts[name][0] for name in names if name in manifest.parts)
        encoder = self._loaded.get(key)
        if encoder is None:
            encoder = self._loaded[key] = self._trusted(folder)
        return encoder

    def _trusted(self, folder: Path) -> Encoder:
        """An encoder that makes here what its network made, else the CPU's where a GPU strays and nobody insisted."""
        try:
            encoder = Encoder(folder, self._provider)
        except EncoderUnavailable as error:
            if self._provider != "auto":
                raise
            _log.warning("%s; the CPU takes its place", error.detail)
            encoder = Encoder(folder, "cpu")
        if self._checked and (strayed := encoder.strayed()):
            if encoder.provider == "cpu" or self._provider != "auto":
                raise CorruptPart(f"{MODEL}: {strayed}")
            _log.warning("%s; the CPU takes its place", strayed)
            return Encoder(folder, "cpu")
        return encoder


def load(
    store: bundle.BundleStore,
    version: str,
    encoders: Encoders,
    search_on: Provider = "cpu",
    before: Served | None = None,
) -> Served:
    """Verify every byte of a version, open it, warm it up on its golden queries. `search_on`: where vectors are
    searched. `before`: what is served meanwhile, whose costs a version like it begins with.

    Raises CorruptPart naming the part, NotFound, or IndexUnavailable where a GPU is insisted on and cannot."""
    manifest = store.verify(version)
    give_way()
    try:
        served = open_folder(store.path(version), manifest, version, encoders)
        served.searcher.vectors = _placed(served.searcher.vectors, search_on)
        if _alike(before, served):
            served.searcher.costs.as_of(before.searcher.costs)
        golden = warm(served.searcher, store.path(version))
    except (AisleError, OSError):
        raise
    except Exception as error:  # parts that are whole and nonsense: no loader foresees all of it
        raise CorruptPart(f"version {version} cannot be opened ({type(error).__name__})") from error
    return replace(served, golden=golden)


def open_folder(folder: Path, manifest: bundle.Manifest, version: str, encoders: Encoders) -> Served:
    """Open the parts and check that they fit each other."""
    catalog = Catalog.load(folder)
    give_way()
    words = LexicalIndex.load(folder)
    give_way()
    vectors = FaissIndex.load(folder, manifest.content.get("dense"))
    give_way()
    encoder = encoders.load(folder, manifest)
    if not len(catalog) == len(words) == len(vectors):
        raise CorruptPart(f"catalog, lexical and dense hold {len(catalog)}, {len(words)} and {len(vectors)} products")
    if vectors.dimension != encoder.dimension:
        raise CorruptPart(f"dense.faiss has {vectors.dimension} dimensions, the encoder {encoder.dimension}")
    ranking = Ranking.from_json(manifest.content.get("ranking"))
    wanted = any(profile.static for profile in ranking.profiles.values())
    searcher = Searcher(
        collection=manifest.collection,
        version=version,
        catalog=catalog,
        words=words,
        vectors=vectors,
        encoder=encoder,
        ranking=ranking,
        static=StaticEncoder.load(folder, encoder) if wanted else None,
        classifier=classifier_of(catalog, vectors, encoder, manifest.content),
    )
    return Served(searcher, _info(manifest.content), manifest.content, time.time())


def _placed(vectors: VectorIndex, provider: Provider) -> VectorIndex:
    """The index on a GPU where one is wanted and can, and is large enough to gain by it: the CPU scans a few thousand
    vectors sooner than a device is asked. Raises IndexUnavailable where it was insisted on and cannot."""
    if not isinstance(vectors, FaissIndex) or provider == "cpu" or (provider == "auto" and not gpu_is_built_in()):
        return vectors
    if len(vectors) <= EXACT_SCAN_UP_TO and (provider == "auto" or gpu_is_built_in()):
        return vectors
    try:
        return GpuIndex(vectors, DEVICE)
    except IndexUnavailable as error:
        if provider == "cuda":
            raise IndexUnavailable(f"AISLE_PROVIDER=cuda, but {error.detail}") from error
        _log.warning("%s; vectors are searched on the CPU", error.detail)
        return vectors


def _alike(before: Served | None, after: Served) -> TypeGuard[Served]:
    """Whether a search of one costs about what one of the other does."""
    if before is None or before.searcher.encoder is not after.searcher.encoder:
        return False
    sizes = sorted((before.searcher.catalog.products, after.searcher.catalog.products))
    return sizes[1] <= 2 * sizes[0]


def _info(content: Mapping[str, Any]) -> CatalogueInfo:
    try:
        return CatalogueInfo.from_json(content.get("catalogue") or {})
    except (AttributeError, TypeError) as error:
        raise CorruptPart(f"{bundle.MANIFEST}: catalogue ({error})") from error


def warm(searcher: Searcher, folder: Path) -> Golden:
    """Run the golden queries until every stage is warm, and return them. Raises CorruptPart when they no longer give
    their answers."""
    expected = read_golden(folder)
    try:
        answers = golden_answers(searcher, list(expected))
    except BadInput as error:
        raise CorruptPart(f"{GOLDEN}: unreadable ({type(error).__name__})") from error
    searcher.encoder.warm()
    found = overlap(expected, {one["query"]: one["ids"] for one in answers})
    if found is not None and found < LEAST_OVERLAP:
        raise CorruptPart(f"{GOLDEN}: only {found:.0%} of the expected top ten are found again")
    _warm_beside(searcher, next(iter(expected), "warm"))
    _measure(searcher, list(expected) or ["warm"])
    return expected


def _warm_beside(searcher: Searcher, text: str) -> None:
    """What golden queries do not come to: a misspelt word, a vector from the cache (read-only, so another compiled
    kernel), several searches at once, a product's text, an answer's bytes. Compiling takes some 0.3 s, which the first
    such request would wait for."""
    searcher.words.spelling.nearest("warmth", 1)
    query = searcher.query(SearchRequest(text, explain=True))
    vector = searcher.query_vectors([query.text or ""], query.profile)[0]
    vector.flags.writeable = False
    searcher.search([SearchJob(searcher, query, perf_counter(), vector=vector)])
    searcher.vectors.search_many(np.stack([vector] * _SEVERAL), query.profile.depth)
    RescoreJob(searcher, query.text or "", query.profile, [RescoreCandidate(text=text)]).run()


def _measure(searcher: Searcher, texts: list[str]) -> None:
    """What each tier costs on this machine, for the plans of searches that have little time, unless that is known."""
    for profile in ladder(searcher.ranking.profiles["default"], searcher.ranking):
        if searcher.costs.ms(profile.name):
            continue
        spent: list[float] = []
        words: list[float] = []
        for number in range(_MEASURED + 1):
            request = SearchRequest(texts[number % len(texts)], profile=profile.name)
            job = SearchJob(searcher, searcher.query(request), perf_counter())
            searcher.search([job])
            give_way()
            if number and (cost := tier_ms(job)) is not None:
                spent.append(cost)
                words += [timing.ms for timing in job.timings if timing.stage == "lexical"]
        if spent:
            searcher.costs.begin(profile.name, spent)
        if words:
            searcher.costs.begin(WORDS, words)
