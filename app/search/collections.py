"""Which version of which collection is served: load → verify → warm → serve, and follow CURRENT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any
from weakref import WeakValueDictionary

from app import metrics
from app.errors import (
    AisleError,
    BadInput,
    BundleError,
    Conflict,
    CorruptPart,
    EncoderUnavailable,
    NotFound,
    Unavailable,
    VersionRefused,
)
from app.index import bundle
from app.index.catalog import Catalog
from app.index.changes import FOLDER, Edit
from app.index.dense import FaissIndex
from app.index.lexical import LexicalIndex
from app.index.schema import CatalogueInfo
from app.runtime.onnx import Provider
from app.runtime.watch import patience_s
from app.search.classify import classifier_of
from app.search.embed import DESCRIPTION, HALF, MODEL, PRODUCT_MODEL, TOKENIZER, Encoder
from app.search.golden import GOLDEN, LEAST_OVERLAP, Golden, golden_answers, overlap, read_golden
from app.search.live import LiveVersion
from app.search.plan import WORDS, ladder
from app.search.rerank import Ranking
from app.search.searcher import RescoreJob, Searcher, SearchJob, tier_ms
from app.search.static import StaticEncoder
from app.search.writes import ChangeWriter
from app.types import RescoreCandidate, SearchRequest

_log = logging.getLogger("aisle.collections")
_POLL_S = 0.25
_CHANGES_POLL_S = 0.1
_CATCH_UP_S = 0.5
_FOLD_AGAIN_S = 600.0
Fold = Callable[[str], Coroutine[Any, Any, None]]
_AGAIN_S = 5.0  # until a version that could not be read is tried again
_MEASURED = 16


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


def load(store: bundle.BundleStore, version: str, encoders: Encoders) -> Served:
    """Verify every byte of a version, open it, warm it up on its golden queries.

    Raises CorruptPart naming the part, or NotFound."""
    manifest = store.verify(version)
    try:
        served = open_folder(store.path(version), manifest, version, encoders)
        golden = warm(served.searcher, store.path(version))
    except (AisleError, OSError):
        raise
    except Exception as error:  # parts that are whole and nonsense: no loader foresees all of it
        raise CorruptPart(f"version {version} cannot be opened ({type(error).__name__})") from error
    return replace(served, golden=golden)


def open_folder(folder: Path, manifest: bundle.Manifest, version: str, encoders: Encoders) -> Served:
    """Open the parts and check that they fit each other."""
    catalog = Catalog.load(folder)
    words = LexicalIndex.load(folder)
    vectors = FaissIndex.load(folder)
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
    kernel), a product's text, an answer's bytes. Compiling takes some 0.3 s, which the first such request would wait
    for."""
    searcher.words.spelling.nearest("warmth", 1)
    query = searcher.query(SearchRequest(text, explain=True))
    vector = searcher.query_vectors([query.text or ""], query.profile)[0]
    vector.flags.writeable = False
    searcher.search([SearchJob(searcher, query, perf_counter(), vector=vector)])
    searcher.rescore(RescoreJob(searcher, query.text or "", query.profile, [RescoreCandidate(text=text)]))


def _measure(searcher: Searcher, texts: list[str]) -> None:
    """What each tier costs on this machine, for the plans of searches that have little time."""
    for profile in ladder(searcher.ranking.profiles["default"], searcher.ranking):
        spent: list[float] = []
        words: list[float] = []
        for number in range(_MEASURED + 1):
            request = SearchRequest(texts[number % len(texts)], profile=profile.name)
            job = SearchJob(searcher, searcher.query(request), perf_counter())
            searcher.search([job])
            if number and (cost := tier_ms(job)) is not None:
                spent.append(cost)
                words += [timing.ms for timing in job.timings if timing.stage == "lexical"]
        if spent:
            searcher.costs.begin(profile.name, spent)
        if words:
            searcher.costs.begin(WORDS, words)


def _may_pass(error: BaseException) -> bool:
    """Whether a version was not there or could not be read (no descriptors, no memory, a disk or a network that fails),
    rather than read and found wrong."""
    cause = error.__cause__
    could_not_read = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return could_not_read or isinstance(error, (NotFound, OSError, MemoryError)) or isinstance(cause, MemoryError)


class Collections:
    """The served version of every collection under one folder; swapped by one reference."""

    def __init__(
        self, root: Path, provider: Provider, changes: Path | None = None, *, fold: Fold | None = None, after: int = 0
    ) -> None:
        """`changes`: folder of the change logs, where they shall not lie beside the versions. `fold` makes and
        publishes a version of a collection and its changes, once there are so many."""
        self._root = root
        self._changes = changes
        self._fold, self._fold_after = fold, after
        self._folds: dict[str, asyncio.Task[None]] = {}
        self._fold_at: dict[str, float] = {}
        self._encoders = Encoders(provider, checked=True)
        self._served: dict[str, Served] = {}
        self._live: dict[str, LiveVersion] = {}
        self._writers: dict[str, ChangeWriter] = {}
        self._swapping = Lock()
        self._stepping: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refused: dict[str, str] = {}
        self._unread: dict[str, str] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._again: dict[str, float] = {}  # when a refused version is tried again, where that may help
        self._turn = asyncio.Lock()  # one change at a time: following and being told to may meet

    def open(self) -> None:
        """Load every published collection. Raises BundleError when there is none, or one cannot be trusted."""
        names = bundle.collections_in(self._root)
        if not names:
            raise BundleError(
                f"nothing is published in {self._root}; `aisle build CATALOGUE --bundles DIR` makes a version"
            )
        for name in names:
            self._load(name, self.store(name).current() or "")

    def get(self, collection: str) -> Served:
        """Raises NotFound for a collection that is not served."""
        served = self._served.get(collection)
        if served is None:
            if not self._served:
                raise Unavailable("no version is loaded yet")
            raise NotFound(f"no collection {collection[:64]!r}; there are {', '.join(self._served)}")
        return served

    def all(self) -> Mapping[str, Served]:
        return self._served

    def golden(self) -> Mapping[str, tuple[Searcher, Golden]]:
        """What is served, with what it answered when it was built."""
        return {name: (live.built.searcher, live.built.golden) for name, live in self._live.items()}

    def store(self, collection: str) -> bundle.BundleStore:
        return bundle.BundleStore(self._root, collection)

    def follow(self) -> None:
        """Watch CURRENT and the change logs from now on; a new version is served within a second of being loaded and
        warm, a change within 0.2 s and what its text takes the encoder."""
        self._followers = [asyncio.create_task(self._follow()), asyncio.create_task(self._follow_changes())]

    async def close(self) -> None:
        for writer in self._writers.values():
            await writer.close()
        for follower in [*self._followers, *self._folds.values()]:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower

    async def keep(self, collection: str, edits: Sequence[Edit]) -> int:
        """Write edits to the collection's log, durably; the sequence of the last. Raises Unavailable, Overloaded."""
        writer = self._writers.get(collection)
        if writer is None:
            writer = self._writers[collection] = ChangeWriter(self._log(collection))
        sequence = await writer.keep(edits)
        for edit in edits:
            metrics.CHANGES.labels(collection, edit.op).inc()
        return sequence

    async def catch_up(self, collection: str) -> Served:
        """The collection with every change that its log holds by now, unless that takes long. Raises NotFound."""
        self.get(collection)
        live = self._live[collection]
        if live.behind:  # never given up half way: two threads would step at once
            await asyncio.wait({asyncio.create_task(self._take_in(collection, live))}, timeout=_CATCH_UP_S)
        return self.get(collection)

    def changes(self, collection: str) -> tuple[int, int]:
        """(sequence of the last change that is served, products that differ from the version as it was built)."""
        live = self._live[collection]
        return live.sequence, live.changed

    async def _follow(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                names = bundle.collections_in(self._root)
            except BundleError as error:
                if error.detail != told:
                    _log.warning("cannot look for published versions: %s", error.detail)
                told = error.detail
                continue
            told = ""
            for name in names:
                await self._catch_up(name)

    async def _follow_changes(self) -> None:
        while True:
            await asyncio.sleep(_CHANGES_POLL_S)
            for name, live in list(self._live.items()):
                if live.behind:
                    await self._take_in(name, live)
                metrics.CHANGES_LAG.labels(name).set(live.lag_s)
                if self._fold is not None and live.changed >= self._fold_after:
                    self._begin_fold(name, self._fold)

    def _begin_fold(self, name: str, fold: Fold) -> None:
        """One at a time, and not again at once: the gate may have refused what came of it."""
        now = time.monotonic()
        if name not in self._folds and now >= self._fold_at.get(name, 0.0):
            self._fold_at[name] = now + _FOLD_AGAIN_S
            task = self._folds[name] = asyncio.create_task(fold(name))
            task.add_done_callback(lambda _: self._folds.pop(name, None))

    async def _take_in(self, name: str, live: LiveVersion) -> None:
        try:
            async with self._stepping[name]:
                await asyncio.to_thread(self._step, name, live)
            self._unread.pop(name, None)
        except Exception as error:  # noqa: BLE001  (what was served goes on being served, and the lag tells)
            if self._unread.get(name) != str(error):
                self._unread[name] = str(error)
                known = isinstance(error, AisleError)
                _log.error("collection %s: changes cannot be taken in: %s", name, error, exc_info=not known)

    def _step(self, name: str, live: LiveVersion) -> None:
        """Some of what waits; each step is served at once."""
        until = perf_counter() + _CATCH_UP_S
        while perf_counter() < until and live.listen():
            live.step()
            metrics.CHANGES_LAG.labels(name).set(live.lag_s)
            with self._swapping:
                if self._live.get(name) is not live:  # a new version has taken its place, with these changes
                    return
                self._served = {**self._served, name: live.served}
            metrics.CHANGED.labels(name).set(live.changed)
            metrics.BUNDLE.labels(name).set(live.served.searcher.catalog.products)

    def _log(self, name: str) -> Path:
        return (self._changes / name) if self._changes else self.store(name).folder / FOLDER

    async def _catch_up(self, name: str) -> None:
        """Serve what CURRENT names, where that is another version than now."""
        published = ""  # stands for a CURRENT that names none
        async with self._turn:
            try:
                published = self.store(name).current() or ""
                if not published or self._version(name) == published:
                    self._refused.pop(name, None)
                elif self._refused.get(name) != published or time.monotonic() >= self._again.get(name, math.inf):
                    await asyncio.to_thread(self._load, name, published)
                    self._refused.pop(name, None)
            except Exception as error:  # noqa: BLE001  (whatever one version does, the next must still be looked for)
                # The old version goes on being served; this one is not tried again until CURRENT names another, or for
                # a while where the fault may be the machine's: else one process of several would stay behind for ever.
                self._again[name] = time.monotonic() + _AGAIN_S if _may_pass(error) else math.inf
                if self._refused.get(name) != published:
                    self._refused[name] = published
                    _note_refusal(name, error)

    async def reload(self, name: str) -> str | None:
        """Serve what CURRENT names now, also where it was refused before. Returns the version served until now.

        Raises NotFound for a collection that is not published, VersionRefused with the part that is at fault, Conflict
        where the folder cannot be read."""
        async with self._turn:
            store, before = self._published(name), self._version(name)
            with self._refusals(name):
                published = store.current()
                if published is None:
                    raise NotFound(f"nothing is published in collection {name!r} any more")
                if published != before:
                    self._refused[name] = published  # until it is served: then it is not tried again by itself
                    await asyncio.to_thread(self._load, name, published)
            self._refused.pop(name, None)
            return before

    async def roll_back(self, name: str) -> str | None:
        """Publish and serve the version before the current one, which must prove fit before CURRENT is touched.
        Returns the version served until now.

        Raises NotFound where there is none, VersionRefused, Conflict where the folder cannot be written to."""
        async with self._turn:
            store, before = self._published(name), self._version(name)
            with self._refusals(name):
                live = await asyncio.to_thread(self._open, name, store.earlier())
                version = await asyncio.to_thread(_publish_earlier, store)
                if version != live.built.searcher.version:  # somebody published in between
                    live = await asyncio.to_thread(self._open, name, version)
            self._serve(name, live)
            self._refused.pop(name, None)
            return before

    def _published(self, name: str) -> bundle.BundleStore:
        """The store of a collection that is there. Raises NotFound."""
        with self._refusals(name):
            if name not in self._served and name not in bundle.collections_in(self._root):
                raise NotFound(f"no collection {name[:64]!r} is published")
            return self.store(name)

    @contextlib.contextmanager
    def _refusals(self, name: str) -> Iterator[None]:
        """What keeps a version from being served, as whoever asked for it is to be told: the part, and no path."""
        try:
            yield
        except (CorruptPart, EncoderUnavailable) as error:
            _note_refusal(name, error)
            raise VersionRefused(f"{error.detail}; what was served goes on being served") from error
        except (BundleError, OSError) as error:
            _log.error("collection %s: no version could be read: %s", name, error)
            raise Conflict("the folder of versions cannot be read; what was served goes on being served") from error

    def _version(self, name: str) -> str | None:
        served = self._served.get(name)
        return served.searcher.version if served else None

    def _load(self, name: str, version: str) -> None:
        self._serve(name, self._open(name, version))

    def _open(self, name: str, version: str) -> LiveVersion:
        """A version, warm, with every change that was kept so far."""
        store = self.store(name)
        built = load(store, version, self._encoders)
        searcher = built.searcher
        searcher.encoder.watch.patience_s = searcher.scoring.patience_s = patience_s(searcher.costs.ms("default"))
        live = LiveVersion(built, store.path(version), self._log(name))
        while live.listen():
            live.step()
        return live

    def _serve(self, name: str, live: LiveVersion) -> None:
        served, version = live.served, live.served.searcher.version
        with self._swapping:
            self._live[name] = live
            self._served = {**self._served, name: served}
        metrics.CHANGED.labels(name).set(live.changed)
        metrics.CHANGES_LAG.labels(name).set(0.0)
        metrics.BUNDLE.labels(name).set(served.searcher.catalog.products)
        metrics.BUNDLE_LOADED.labels(name).set(served.loaded_at)
        metrics.RELOADS.labels(name, "served").inc()
        _log.info(
            "collection %s: serving version %s, %d products, encoder on %s",
            name,
            version,
            served.searcher.catalog.products,
            served.searcher.encoder.provider,
        )


def _publish_earlier(store: bundle.BundleStore) -> str:
    try:
        return store.roll_back()
    except OSError as error:
        raise Conflict(
            f"the folder of versions cannot be written to from here ({error.strerror}): `aisle rollback` where it can, "
            "and every process follows"
        ) from error


def _note_refusal(name: str, error: Exception) -> None:
    metrics.RELOADS.labels(name, "refused").inc()
    known = isinstance(error, AisleError)
    _log.error("collection %s: the published version was refused: %s", name, error, exc_info=not known)
