"""Which version of which collection is served: it follows CURRENT, or is told, and swaps one reference."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app import metrics
from app.errors import (
    AisleError,
    BundleError,
    Conflict,
    CorruptPart,
    EncoderUnavailable,
    IndexUnavailable,
    NotFound,
    Unavailable,
    VersionRefused,
)
from app.index import bundle
from app.index.changes import FOLDER, Edit
from app.pace import give_way
from app.runtime.aside import aside
from app.runtime.onnx import Provider
from app.runtime.watch import patience_s
from app.search.feed import ChangeFeed, Fold
from app.search.golden import Golden
from app.search.live import LiveVersion
from app.search.searcher import Searcher
from app.search.versions import Encoders, Served, load

_log = logging.getLogger("aisle.collections")
_POLL_S = 0.25
_AGAIN_S = 5.0  # until a version that could not be read is tried again


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
        self._feed = ChangeFeed(self._log, self._swap, fold=fold, after=after)
        self._provider: Provider = provider
        self._encoders = Encoders(provider, checked=True)
        self._served: dict[str, Served] = {}
        self._refused: dict[str, str] = {}
        self._follower: asyncio.Task[None] | None = None
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
        return {name: (live.built.searcher, live.built.golden) for name, live in self._feed.live.items()}

    def store(self, collection: str) -> bundle.BundleStore:
        return bundle.BundleStore(self._root, collection)

    def follow(self) -> None:
        """Watch CURRENT and the change logs from now on; a new version is served within a second of being loaded and
        warm, a change within 0.2 s and what its text takes the encoder."""
        self._follower = asyncio.create_task(self._follow())
        self._feed.follow()

    async def close(self) -> None:
        await self._feed.close()
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower

    async def keep(self, collection: str, edits: Sequence[Edit]) -> int:
        """As ChangeFeed.keep."""
        return await self._feed.keep(collection, edits)

    async def catch_up(self, collection: str) -> Served:
        """The collection with every change that its log holds by now, unless that takes long. Raises NotFound."""
        self.get(collection)
        await self._feed.catch_up(collection)
        return self.get(collection)

    def changes(self, collection: str) -> tuple[int, int]:
        """(sequence of the last change that is served, products that differ from the version as it was built)."""
        live = self._feed.live[collection]
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
                    await aside(self._load, name, published)
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
                    await aside(self._load, name, published)
            self._refused.pop(name, None)
            return before

    async def roll_back(self, name: str) -> str | None:
        """Publish and serve the version before the current one, which must prove fit before CURRENT is touched.
        Returns the version served until now.

        Raises NotFound where there is none, VersionRefused, Conflict where the folder cannot be written to."""
        async with self._turn:
            store, before = self._published(name), self._version(name)
            with self._refusals(name):
                live = await aside(self._open, name, store.earlier())
                version = await asyncio.to_thread(_publish_earlier, store)
                if version != live.built.searcher.version:  # somebody published in between
                    live = await aside(self._open, name, version)
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
        except (CorruptPart, EncoderUnavailable, IndexUnavailable) as error:
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
        built = load(store, version, self._encoders, self._provider, self._served.get(name))
        searcher = built.searcher
        searcher.encoder.watch.patience_s = searcher.scoring.patience_s = patience_s(searcher.costs.ms("default"))
        live = LiveVersion(built, store.path(version), self._log(name))
        while live.listen():
            live.step()
            give_way()
        return live

    def _serve(self, name: str, live: LiveVersion) -> None:
        self._feed.begin(name, live)
        served, version = live.served, live.served.searcher.version
        metrics.BUNDLE_LOADED.labels(name).set(served.loaded_at)
        metrics.RELOADS.labels(name, "served").inc()
        _log.info(
            "collection %s: serving version %s, %d products, encoder on %s, index %s",
            name,
            version,
            served.searcher.catalog.products,
            served.searcher.encoder.provider,
            served.searcher.vectors.kind,
        )

    def _swap(self, name: str, served: Served) -> None:
        self._served = {**self._served, name: served}
        metrics.BUNDLE.labels(name).set(served.searcher.catalog.products)


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
