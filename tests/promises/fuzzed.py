"""One parser under a coverage-guided fuzzer (Atheris: libFuzzer with Python's own coverage).

    python -m tests.promises.fuzzed BUNDLES manifest|entry|filter|query|planted CORPUS -runs=1000000

What a parser may raise is refused input. Anything else ends the process with libFuzzer's code 77, the input and the
traceback. `planted` is the control: a parser with a fault for the fuzzer to find."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import atheris
import numpy as np
import orjson

from app.api import schemas
from app.errors import AisleError
from app.index import analysis, bundle, filters, negation
from app.index.bundle import BundleStore, Manifest
from app.search import cache_entry, normalize
from app.search.cache_entry import seal, unseal, vector_of, vector_payload
from app.search.searcher import Searcher
from app.search.versions import Encoders, load

Parser = Callable[[bytes], object]
_KEY = bytes(range(16))


def main(arguments: Sequence[str]) -> int:
    bundles, target, corpus, *options = arguments
    store = BundleStore(Path(bundles))
    version = store.current()
    assert version is not None
    searcher = load(store, version, Encoders("cpu")).searcher
    parser, seeds = _targets(store.path(version), searcher)[target]

    for module in (schemas, analysis, bundle, filters, negation, cache_entry, normalize, sys.modules[__name__]):
        _instrument(module)

    def once(data: bytes) -> None:
        try:
            parser(data)
        except AisleError:
            return

    for number, seed in enumerate(seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, corpus], once)
    atheris.Fuzz()
    return 0


def _instrument(module: ModuleType) -> None:
    """Its functions and methods, one by one: a whole package has compiled ones, which cannot be instrumented."""
    for value in vars(module).values():
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            atheris.instrument_func(value)
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for method in vars(value).values():
                inner = getattr(method, "__func__", method)
                if inspect.isfunction(inner):
                    atheris.instrument_func(inner)


def _targets(folder: Path, searcher: Searcher) -> dict[str, tuple[Parser, Sequence[bytes]]]:
    def filter_(data: bytes) -> None:
        try:
            raw = orjson.loads(data)
        except ValueError:
            return
        found = filters.parse(raw, searcher.catalog.schema)
        if found is not None:
            filters.canonical(found)

    def query(data: bytes) -> None:
        searcher.words.parse(
            searcher.query(schemas.read_json(schemas.SearchBody, data, None).request(100.0)).text or ""
        )

    def entry(data: bytes) -> None:
        payload = unseal("vector", _KEY, data)
        vector = vector_of(data if payload is None else payload)
        if vector is not None and not np.isfinite(vector).all():
            raise AssertionError("a value that is not finite came through")

    vector = vector_payload(np.arange(4, dtype=np.float32))
    return {
        "manifest": (Manifest.parse, [(folder / "manifest.json").read_bytes(), b"{}"]),
        "entry": (entry, [seal("vector", _KEY, vector), vector, b""]),
        "filter": (filter_, [orjson.dumps(one) for one in _FILTERS]),
        "query": (query, [orjson.dumps(one) for one in _QUERIES]),
        "planted": (_planted, [b"steel mug"]),
    }


_FILTERS = (
    {"field": "brand", "in": ["Acme"]},
    {"all": [{"field": "price", "gte": 20, "lt": 30}, {"not": {"field": "in_stock", "eq": True}}]},
    {"any": [{"field": "stock", "exists": True}]},
)
_QUERIES = (
    {"query": "steel mug", "k": 5},
    {"query": "blu shoes -red", "filter": {"field": "brand", "in": ["Acme"]}, "sort": ["-price"], "facets": ["brand"]},
    {"query": "m\u00fcg \u676f", "offset": 3, "prefix": True, "explain": True, "fields": ["title"]},
)


def _planted(data: bytes) -> None:
    if data[:4] == b"mug ":
        raise KeyError("the planted fault")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
