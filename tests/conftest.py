"""Shared fixtures: a tiny bundle for behaviour, the shipped catalogues for numbers, the app around both."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.index.bundle import BundleStore
from app.main import create_app
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from app.settings import Settings
from scripts.cli import main as aisle
from tests import tiny
from tests.redis_server import redis_server

__all__ = ["redis_server"]
pytest_plugins = ["tests.ledger", "tests.skips"]

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data"
# Embedding the shipped catalogues takes a minute: kept between runs, and rebuilt with whatever texts are unchanged.
BUILT = ROOT / "build" / "test-bundles"

_NEVER = 1_000_000

Client = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="module", autouse=True)
def _short_collections() -> None:
    """What the test runner itself has gathered is set aside, as the service sets aside what it has loaded: a full
    collection of it takes up to half a second, in which a service in this process answers nobody and a load sends
    nothing. What a test gathers is looked through at its module's end."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer encoder's folder."""
    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Sixty products, built and published through the command line. Do not write here: copy it first."""
    folder = tmp_path_factory.mktemp("tiny")
    catalogue = tiny.write_catalogue(folder / "products.jsonl", tiny.products())
    bundles = folder / "bundles"
    assert aisle(["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(bundles)]) == 0
    return bundles


@pytest.fixture(scope="session")
def tiny_searcher(tiny_bundles: Path) -> Searcher:
    """The tiny bundle, opened."""
    return open_current(tiny_bundles)


@pytest.fixture(scope="session")
def shipped_bundles() -> Path:
    """Both shipped catalogues as `make run` builds them: default (ESCI, with its judgements) and retail."""
    esci, retail = DATA / "esci", DATA / "retail"
    _build(esci, "default", ["--queries", str(esci / "dev.queries.tsv"), "--qrels", str(esci / "dev.qrels.tsv")])
    _build(retail, "retail", [])
    return BUILT


def _build(data: Path, collection: str, more: list[str]) -> None:
    reuse = ["--reuse", "current"] if BundleStore(BUILT, collection).current() else []
    command = ["build", str(data / "products.jsonl.gz"), "--mapping", str(data / "mapping.toml")]
    # Forced: what is kept between runs may be another branch's, which this one need not be better than.
    command += ["--bundles", str(BUILT), "--collection", collection, *more, "--force", "a fixture"]
    # A bundle made by another encoder or format cannot be reused: then everything is embedded again.
    if aisle([*command, *reuse]) != 0:
        assert aisle(command) == 0


@pytest.fixture(scope="session")
def esci(shipped_bundles: Path) -> Searcher:
    """The shipped ESCI catalogue, opened."""
    return open_current(shipped_bundles)


@pytest.fixture(scope="session")
def retail(shipped_bundles: Path) -> Searcher:
    """The shipped retail catalogue, opened."""
    return open_current(shipped_bundles, "retail")


def open_current(bundles: Path, collection: str = "default") -> Searcher:
    """Verify and open what is published."""
    store = BundleStore(bundles, collection)
    version = store.current()
    assert version is not None
    return load(store, version, Encoders("cpu")).searcher


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """`async with client(bundles, timeout_ms=50) as http:` runs the real application, start-up and all. Changes are
    kept apart from the bundles, which other tests read, too."""

    @asynccontextmanager
    async def run(bundles: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(Settings(bundles=bundles, **{"provider": "cpu", "changes": tmp_path / "changes"} | settings))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://aisle.test") as http:
                http.app = app  # type: ignore[attr-defined]
                yield http

    return run


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of larger data sets that AISLE_TEST_DATA names."""
    folder = os.environ.get("AISLE_TEST_DATA")
    if not folder:
        pytest.skip("needs AISLE_TEST_DATA")
    return Path(folder)
