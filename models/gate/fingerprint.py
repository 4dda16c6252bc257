"""Second layer: does the bundle still behave as its encoder and its texts say it must?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import AisleError, CorruptPart
from app.index.bundle import EMBEDDINGS, HASHES
from app.index.product_text import dense_texts, lexical_texts, text_hash
from app.index.schema import Schema
from app.search.embed import Encoder
from app.search.probes import Probes, cosines
from app.search.searcher import Searcher
from app.search.versions import warm
from app.types import Floats, Product
from models.encode import product_vectors
from models.gate.limits import Limits
from models.gate.neighbours import drawn
from models.gate.verdict import REFUSED, Check

LAYER = "fingerprint"
_PRODUCTS = 200
_SEED = 0
_WORDS_DIFFER, _WORDS_STRAYS = 0.01, 0.01  # shares of a query's bound; of the products


def checks(
    candidate: Searcher,
    folder: Path,
    dense: Mapping[str, Any],
    served: Encoder | None,
    limits: Limits,
    *,
    strangers: bool = False,
) -> Iterator[Check]:
    """Stored vectors against their texts; the index against them, where it holds others (`dense` is what the manifest
    says of it); the words against the texts; probe texts against the network's own vectors; and the golden queries.
    Vectors may be `strangers` to the encoder where they were given for a first version: whoever gives them may know
    better, and nothing is lost."""
    made: dict[str, Callable[[], Check]] = {
        "vectors": lambda: _vectors(candidate, folder, limits, strangers=strangers),
        "index": lambda: _index(candidate, folder, dense, limits),
        "words": lambda: _words(candidate),
        "probes": lambda: _probes(candidate.encoder, served, limits),
        "golden": lambda: _golden(candidate, folder),
    }
    if not (folder / EMBEDDINGS).exists():
        del made["index"]
    for name, run in made.items():
        try:
            yield run()
        except (AisleError, ValueError) as error:
            yield Check.of(LAYER, name, False, str(error), "runs")


def _vectors(candidate: Searcher, folder: Path, limits: Limits, *, strangers: bool) -> Check:
    """Random products, encoded again from their stored texts. Sees vectors that are another product's, turned round or
    another encoder's; not an encoder that is broken in itself, which agrees with its own vectors."""
    rows = np.random.default_rng(_SEED).permutation(len(candidate.catalog))[:_PRODUCTS]
    texts, kept = _texts(candidate, folder, rows.tolist())
    if not kept:
        return Check.not_run(LAYER, "vectors", "fields that were embedded are not stored: the texts cannot be rebuilt")
    again = product_vectors(candidate.encoder, texts)
    whole = (folder / EMBEDDINGS).exists()
    stored = _embeddings(candidate, folder)[kept].astype(np.float32) if whole else _indexed(candidate, kept)
    check = _agreement("vectors", "products encoded again", cosines(stored, again), limits)
    if strangers and check.outcome == REFUSED:
        return Check.not_run(LAYER, "vectors", f"given for the first version, and taken as they are ({check.found})")
    return check


def _index(candidate: Searcher, folder: Path, dense: Mapping[str, Any], limits: Limits) -> Check:
    """The index against the embeddings that it was made of, drawn to their neighbours as the manifest says."""
    embeddings = _embeddings(candidate, folder)
    rows = np.random.default_rng(_SEED).permutation(len(candidate.catalog))[:_PRODUCTS]
    wanted = drawn(embeddings, rows, int(dense.get("neighbours") or 0), float(dense.get("smoothing") or 0.0))
    found = cosines(_indexed(candidate, rows.tolist()), wanted)
    return _agreement("index", "indexed vectors made again", found, limits)


def _indexed(candidate: Searcher, rows: list[int]) -> Floats:
    return np.stack([candidate.vectors.vector(row) for row in rows])


def _embeddings(candidate: Searcher, folder: Path) -> npt.NDArray[np.float16]:
    """The vectors as they were embedded, [n, dimension]."""
    embeddings: npt.NDArray[np.float16] = np.load(folder / EMBEDDINGS, allow_pickle=False, mmap_mode="r")
    if embeddings.shape != (len(candidate.catalog), candidate.encoder.dimension):
        raise CorruptPart(f"{EMBEDDINGS}: shape {embeddings.shape}, not a vector of each product")
    return embeddings


def _agreement(name: str, what: str, found: npt.NDArray[np.float64], limits: Limits) -> Check:
    strays = int(np.count_nonzero(~(found >= limits.vector_cosine)))
    mean = float(found.mean())
    good = mean >= limits.vector_mean and strays <= limits.vector_strays * len(found)
    return Check.of(
        LAYER,
        name,
        good,
        f"{len(found)} {what}: mean cosine {mean:.4f}, {strays} under {limits.vector_cosine:g}",
        f"mean at least {limits.vector_mean:g}, at most {limits.vector_strays:.0%} under {limits.vector_cosine:g}",
        {"products": len(found), "mean_cosine": mean, "least_cosine": float(found.min()), "strays": strays},
    )


def _texts(candidate: Searcher, folder: Path, rows: list[int]) -> tuple[list[tuple[str, str]], list[int]]:
    """The texts of the rows and the rows they are of. Where embedded fields are not stored, only those whose hash says
    that nothing is missing."""
    schema = candidate.catalog.schema
    hashes = np.load(folder / HASHES, allow_pickle=False)
    if len(hashes) != len(candidate.catalog):
        raise CorruptPart(f"{HASHES}: {len(hashes)} texts of {len(candidate.catalog)} products")
    whole = _stores_what_it_embeds(schema)
    texts, kept = [], []
    for row in rows:
        text = dense_texts(Product(candidate.catalog.id(row), candidate.catalog.fields(row)), schema)
        if whole or bytes(hashes[row]) == bytes.fromhex(text_hash(text)):
            texts.append(text)
            kept.append(row)
    return texts, kept


def _stores_what_it_embeds(schema: Schema) -> bool:
    roles = {schema.roles.title, *schema.text_roles_beyond_title()}
    return all(spec.stored for spec in schema.fields if spec.searched or spec.name in roles)


def _words(candidate: Searcher) -> Check:
    """Random products: their own titles, searched for by the words, against the stored texts under the same statistics.
    Sees postings that are another catalogue's, to which golden queries can be blind."""
    schema = candidate.catalog.schema
    if not _stores_what_it_embeds(schema):
        return Check.not_run(LAYER, "words", "fields that are searched are not stored: the texts cannot be rebuilt")
    rows = np.random.default_rng(_SEED).permutation(len(candidate.catalog))[:_PRODUCTS].tolist()
    strays = sum(not _same_words(candidate, row, schema) for row in rows)
    return Check.of(
        LAYER,
        "words",
        strays <= _WORDS_STRAYS * len(rows),
        f"{len(rows)} products searched for by their titles: {strays} score otherwise than their texts",
        f"at most {_WORDS_STRAYS:.0%}",
        {"products": len(rows), "strays": strays},
    )


def _same_words(candidate: Searcher, row: int, schema: Schema) -> bool:
    title, text = lexical_texts(Product(candidate.catalog.id(row), candidate.catalog.fields(row)), schema)
    query = candidate.words.parse(title)
    stored = candidate.words.scores(query, np.array([row], dtype=np.int32))[0]
    return bool(np.allclose(stored, candidate.words.score_text(query, title, text), atol=_WORDS_DIFFER))


def _probes(encoder: Encoder, served: Encoder | None, limits: Limits) -> Check:
    """The encoder's vectors of probe texts against those that its own network gave at export; and against the served
    encoder's, where both say that they hold the same weights (an export that was wrong from the start contradicts
    nobody else)."""
    references = _references(encoder.description, None if served is None else served.description)
    if not references:
        return Check.not_run(LAYER, "probes", "the encoder's description holds no probe embeddings")
    words: list[str] = []
    figures: dict[str, float] = {}
    good = True
    for source, probes in references.items():
        found = cosines(encoder.queries(probes.texts), probes.vectors)
        mean, least = float(found.mean()), float(found.min())
        good &= mean >= limits.probe_mean and least >= limits.probe_least
        words.append(f"{source} {mean:.4f}, lowest {least:.4f}")
        figures |= {f"{source}_mean_cosine": mean, f"{source}_least_cosine": least}
    limit = f"mean at least {limits.probe_mean:g}, lowest {limits.probe_least:g}"
    return Check.of(LAYER, "probes", good, "mean cosine to " + "; to ".join(words), limit, figures)


def _references(own: dict[str, Any], served: dict[str, Any] | None) -> dict[str, Probes]:
    """Whose vectors to hold the encoder to."""
    references = {}
    stated = Probes.of(own)
    if stated is not None:
        references["export"] = stated
    other = Probes.of(served) if served is not None else None
    weights = stated.weights if stated is not None else (own.get("base") or {}).get("sha256")
    prefixes = own.get("query_prefix", "") == (served or {}).get("query_prefix", "")
    if other is not None and other.weights == weights and prefixes:
        references["served"] = other
    return references


def _golden(candidate: Searcher, folder: Path) -> Check:
    """The answers that the build wrote down: parts that were exchanged afterwards, with their digests, give others."""
    try:
        warm(candidate, folder)
    except CorruptPart as error:
        return Check.of(LAYER, "golden", False, error.detail, "the service's own check at its start")
    return Check.of(LAYER, "golden", True, "golden queries answered", "the service's own check at its start")
