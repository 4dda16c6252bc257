"""A service's collections, to which one version after another is offered."""

from __future__ import annotations

import logging
from types import TracebackType

from app import metrics
from app.index.bundle import BundleStore
from app.search.collections import Collections

_LOGGER = logging.getLogger("aisle.collections")


class Offered:
    """What follows CURRENT in a running service, one look at a time. As a context it hears what is refused."""

    def __init__(self, store: BundleStore) -> None:
        self.store = store
        self.collections = Collections(store.folder, "cpu")
        self.collections.open()
        self._heard = _Heard()

    def __enter__(self) -> Offered:
        _LOGGER.addHandler(self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _LOGGER.removeHandler(self._heard)

    @property
    def version(self) -> str:
        """What is served."""
        return self.collections.get(self.store.collection).searcher.version

    async def refusal(self, version: str) -> str | None:
        """Publish a version by hand and look at it: why it was refused, or None where it is served now. CURRENT names
        the served version again afterwards, so that the next offer is a new one."""
        self._heard.said.clear()
        await self._look(version)
        if self.version == version:
            return None
        await self._look(self.version)
        return self._heard.said[0] if self._heard.said else ""

    async def _look(self, version: str) -> None:
        (self.store.folder / "CURRENT").write_text(version + "\n")
        await self.collections._catch_up(self.store.collection)


def reloads(outcome: str) -> float:
    """How often a published version was "served" or "refused" in this process."""
    labels = {"collection": "default", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("aisle_bundle_reloads_total", labels) or 0.0


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage().partition("was refused: ")[2])
