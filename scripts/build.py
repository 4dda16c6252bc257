"""aisle build: a catalogue becomes a verified, published version."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import models
from app import __version__
from app.errors import BadInput, BundleError
from app.index.analysis import normalize_text
from app.index.arrays import load_array
from app.index.bundle import EMBEDDINGS, HASHES, BundleStore
from app.index.catalog import Catalog
from app.index.changes import FOLDER, ChangeLog
from app.index.dense import FaissIndex, VectorIndex
from app.index.lexical import LexicalIndex
from app.index.product_text import dense_texts, lexical_texts, text_hash
from app.index.schema import CatalogueInfo, Schema
from app.index.synonyms import NO_SYNONYMS, Synonyms
from app.search.embed import DESCRIPTION, HALF, MODEL, PRODUCT_MODEL, TOKENIZER, Encoder, product_side
from app.search.golden import GOLDEN, golden_answers
from app.search.rerank import Ranking
from app.search.searcher import Searcher
from app.search.static import StaticEncoder
from app.types import Floats, Product
from models import gate
from models.blend import default_ranking, examine, fit_fast_link, fit_ranking, with_fast
from models.categories import fit_categories
from models.encode import product_vectors
from models.journal import Digests, Journal, forget
from models.relevance import Gain, Qrels, Queries
from models.smooth import SHARE, Smoothing, smoothed
from models.static import fit_static
from scripts.judged import add_judgement_arguments, load_judgements
from scripts.output import Output
from scripts.publish import add_gate_arguments, check_gate_arguments, gate_judgements, moment, publish_through_gate
from scripts.readers import ReadReport, open_catalogue

DEFAULT_ENCODER = Path(models.__file__).parent / "weights" / "MiniLM-L2-distilled-int8"
_GOLDEN_QUERIES = 20
_PROBES = 50
Positions = npt.NDArray[np.int64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("catalogue", type=Path, help="JSONL (.jsonl, .jsonl.gz), CSV (.csv, .csv.gz) or Parquet file")
    parser.add_argument("--bundles", type=Path, required=True, help="folder of versions; made when absent")
    parser.add_argument("--collection", default="default", help="name of the collection (default: default)")
    parser.add_argument("--mapping", type=Path, help="TOML file that maps the catalogue's columns to fields and types")
    parser.add_argument(
        "--gpu", action="store_true", help="add the encoder's weights in float16, which a CUDA device serves"
    )
    parser.add_argument(
        "--encoder", type=Path, default=DEFAULT_ENCODER, help="encoder folder (default: the shipped one)"
    )
    parser.add_argument("--vectors", type=Path, help="precomputed vectors, F.npy with the ids in F.ids.txt, one a line")
    parser.add_argument(
        "--reuse", metavar="VERSION", help="take vectors of unchanged texts from this version, or 'current'"
    )
    parser.add_argument(
        "--synonyms",
        type=Path,
        help="synonyms file of Solr's format: `tv, television` or `ps5 => playstation 5` a line",
    )
    parser.add_argument(
        "--static",
        choices=("auto", "off"),
        default="auto",
        help="fit a static query encoder for the profile fast, kept where it passes its check (default: auto)",
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        metavar="SHARE",
        help="how much of a product's vector is its nearest products', 0 to 0.9 "
        f"(default: {SHARE}; 0 for vectors that are given; under 2,000 products less, in proportion)",
    )
    judged = parser.add_argument_group("judgements", "fit the ranking and the probabilities to this shop")
    add_judgement_arguments(judged, required=False)
    parser.add_argument(
        "--as-of", type=moment, help="when the catalogue was exported, ISO 8601 (default: the file's time)"
    )
    parser.add_argument(
        "--changes",
        type=Path,
        help="folder of the change logs (AISLE_CHANGES of the service); what was changed after --as-of stays",
    )
    parser.add_argument("--no-publish", action="store_true", help="make and verify the version, but do not serve it")
    add_gate_arguments(parser)


@dataclass(frozen=True, slots=True)
class _Vectors:
    values: Floats
    embedded: int
    reused: int
    given: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where a version's products come from, and what of an earlier version is kept: all of its ranking, or nothing."""

    schema: Schema
    info: CatalogueInfo
    report: Callable[[], ReadReport]  # of the latest pass over the products
    products: Callable[[], Iterable[Product]]
    inputs: Mapping[str, Any]
    synonyms: Synonyms
    judged: gate.Judgements | None
    changes: Mapping[str, Any] | None
    ranking: Ranking | None = None
    judgements: dict[str, Any] | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict)  # content of its manifest that `aisle pareto` wrote


def run(arguments: argparse.Namespace, output: Output) -> int:
    if not (arguments.encoder / DESCRIPTION).is_file():
        raise BadInput(f"--encoder {arguments.encoder}: no encoder's folder (it holds no {DESCRIPTION})")
    if not arguments.gpu:
        return _build(arguments, output)
    try:
        from models.half import with_half
    except ImportError as error:
        raise BadInput("--gpu needs the package onnx: pip install onnx, or aisle's gpu extra") from error
    with TemporaryDirectory(prefix="aisle-") as folder:
        try:
            arguments.encoder = with_half(arguments.encoder, Path(folder))
        except ValueError as error:
            raise BadInput(f"--gpu: {arguments.encoder}: {error}") from error
        return _build(arguments, output)


def _build(arguments: argparse.Namespace, output: Output) -> int:
    if (arguments.queries is None) != (arguments.qrels is None):
        raise BadInput("--queries and --qrels belong together")
    if arguments.vectors and arguments.reuse:
        raise BadInput("--vectors and --reuse exclude each other")
    if arguments.smoothing is not None and not 0 <= arguments.smoothing <= 0.9:
        raise BadInput("--smoothing is a share, 0 to 0.9")
    # Before anything that takes long: a file that cannot be read is no reason to embed a catalogue in vain.
    check_gate_arguments(arguments)
    loaded = load_judgements(arguments, output) if arguments.queries else None
    judged = gate_judgements(arguments)
    reader = open_catalogue(arguments.catalogue, arguments.mapping)
    inputs = gate.recorded(arguments.catalogue, arguments.mapping, arguments.as_of)
    source = Source(
        schema=reader.schema,
        info=reader.info,
        report=lambda: reader.report,
        products=reader.products,
        inputs=inputs,
        synonyms=read_synonyms(arguments.synonyms) if arguments.synonyms else NO_SYNONYMS,
        judged=judged,
        changes=_changes_until(change_log(arguments), inputs["catalogue"]["as_of"]),
    )
    return make_version(source, arguments, output, loaded)


def make_version(
    source: Source, arguments: argparse.Namespace, output: Output, loaded: tuple[Queries, Qrels] | None = None
) -> int:
    """Read → text → vectors → indexes → ranking → golden queries → seal → verify → publish. `loaded` judgements fit the
    ranking, unless the source has one. Returns the exit code. What is killed or interrupted goes on with its vectors
    the next time; what fails leaves nothing behind, as the disk may be full."""
    try:
        return _make_version(source, arguments, output, loaded)
    except Exception:
        forget(BundleStore(arguments.bundles, arguments.collection).folder)
        raise


def _make_version(
    source: Source, arguments: argparse.Namespace, output: Output, loaded: tuple[Queries, Qrels] | None
) -> int:
    started = time.perf_counter()
    store = BundleStore(arguments.bundles, arguments.collection)
    with output.progress("reading", unit="rows") as tick:
        products = []
        for product in source.products():
            products.append(product)
            tick(1)
    products.sort(key=lambda product: product.id)
    schema, report = source.schema, source.report()
    output.say(
        f"{len(products):,} products read"
        + (f", {sum(report.refused.values()):,} rows refused" if report.refused else "")
    )
    for reason, count in sorted(report.refused.items()):
        output.say(f"  refused {count:,}: {reason}")
    for line, detail in report.examples:
        output.say(f"  line {line}: {detail}")
    _warn_of_numbers_as_text(products, schema, output)

    encoder = Encoder(arguments.encoder)
    texts = [dense_texts(product, schema) for product in products]
    with Journal.opened(store.folder, product_side(encoder.description), encoder.dimension) as journal:
        vectors = _vectors(arguments, store, encoder, products, texts, output, journal)
    stored, smoothing = _smoothed(arguments, vectors.values, output)
    with store.building() as folder:
        output.say("indexing")
        catalog = Catalog.build(products, schema)
        catalog.save(folder)
        words = LexicalIndex.build((lexical_texts(product, schema) for product in products), synonyms=source.synonyms)
        words.save(folder)
        index = _as_tuned(FaissIndex.build(stored), source.tuned)
        index.save(folder)
        np.save(folder / EMBEDDINGS, vectors.values.astype(np.float16))
        np.save(folder / HASHES, _hashes(texts))
        static, checked = _static(arguments, encoder, [title for title, _ in texts], stored, output)
        if static is not None:
            static.save(folder)
        for name in (MODEL, PRODUCT_MODEL, *HALF.values(), TOKENIZER, DESCRIPTION):
            if (arguments.encoder / name).exists():
                shutil.copyfile(arguments.encoder / name, folder / name)

        def searcher(ranking: Ranking) -> Searcher:
            return Searcher(
                collection=arguments.collection,
                version="unpublished",
                catalog=catalog,
                words=words,
                vectors=index,
                encoder=encoder,
                ranking=ranking,
                static=static,
            )

        categories = fit_categories(catalog, index, encoder)
        if source.ranking is None:
            ranking, judgements = _ranking(arguments, loaded, searcher, output, fast=static is not None)
        else:
            ranking, judgements = _kept_ranking(source.ranking, static), source.judgements
        golden = golden_answers(searcher(ranking), _golden_texts(arguments, catalog, source.info.examples))
        (folder / GOLDEN).write_text(json.dumps(golden, ensure_ascii=False, indent=0), encoding="utf-8")
        content = {
            "aisle": __version__,
            "inputs": source.inputs,
            "changes": source.changes,
            "products": len(products),
            "refused": dict(report.refused),
            "catalogue": source.info.to_json(),
            "encoder": {key: encoder.description.get(key) for key in ("name", "dimension", "precision")},
            "vectors": {"embedded": vectors.embedded, "reused": vectors.reused, "given": vectors.given},
            "static": checked,
            "dense": {
                "kind": index.kind,
                "recall_at_100": _recall_probe(index, stored),
                "neighbours": smoothing.neighbours,
                "smoothing": smoothing.share,
                **index.parameters,
            },
            "serving": source.tuned.get("serving"),
            "ranking": ranking.to_json(),
            "synonyms": len(source.synonyms.rules),
            "judgements": judgements,
            "categories": categories,
            "gate": None if source.judged is None else source.judged.save(folder),
        }
        version = store.seal(folder, content)
    forget(store.folder)
    store.verify(version)
    gated = None if arguments.no_publish else publish_through_gate(store, version, arguments)
    published = gated is not None and gated.published
    seconds = time.perf_counter() - started
    value = {
        "version": version,
        "collection": arguments.collection,
        "published": published,
        "seconds": round(seconds, 1),
        "refused_examples": report.to_json()["examples"],
        **content,
    }
    text = (
        f"{'published' if published else 'built'} {version}: {len(products):,} products, {index.kind}, "
        f"{vectors.embedded:,} embedded, {vectors.reused:,} reused, {vectors.given:,} given, in {seconds:.0f} s"
    )
    if gated is not None:
        return gated.tell(output, value, text)
    output.result(value, text)
    return 0


def change_log(arguments: argparse.Namespace) -> Path:
    """Where the collection's changes are kept."""
    beside = BundleStore(arguments.bundles, arguments.collection).folder / FOLDER
    return arguments.changes / arguments.collection if arguments.changes else beside


def _changes_until(folder: Path, as_of: str) -> dict[str, Any] | None:
    """The last change that was kept by when the catalogue was exported: the export has it; later ones are taken in when
    the version is served. None where there is no log."""
    log = ChangeLog(folder)
    if log.id is None:
        return None
    moment = datetime.fromisoformat(as_of).timestamp()
    return {"log": log.id, "sequence": max((one.sequence for one in log.news() if one.at <= moment), default=0)}


def _kept_ranking(ranking: Ranking, static: StaticEncoder | None) -> Ranking:
    if static is None and any(profile.static for profile in ranking.profiles.values()):
        raise BundleError(
            "the ranking asks for a static query encoder, and none passes its check: build the version anew"
        )
    return ranking


def read_synonyms(path: Path) -> Synonyms:
    """Raises BadInput for a file that cannot be read, naming the line where one is wrong."""
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except OSError as error:
        raise BadInput(f"--synonyms {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path.name}, line {line}: not UTF-8") from error
    return Synonyms.parse(text, path.name)


def _warn_of_numbers_as_text(products: Sequence[Product], schema: Schema, output: Output) -> None:
    for name in ("price", "stock", "popularity"):
        if name in schema.by_name and schema.by_name[name].type != "number":
            held = [product.fields[name] for product in products if name in product.fields]
            text = [value for value in held if not _is_number(value)] or held
            such_as = f"such as {str(text[0])[:60]!r} ({len(text):,} of {len(held):,})" if held else "or nothing"
            output.warn(f"{name} holds text, {such_as}: no filter by range and no order by number")


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(str(value)))
    except ValueError:
        return False


def _vectors(
    arguments: argparse.Namespace,
    store: BundleStore,
    encoder: Encoder,
    products: Sequence[Product],
    texts: Sequence[tuple[str, str]],
    output: Output,
    journal: Journal | None,
) -> _Vectors:
    if arguments.vectors:
        values = _given(arguments.vectors, [product.id for product in products], encoder, texts, output)
        return _Vectors(values, 0, 0, len(products))
    values = np.empty((len(products), encoder.dimension), dtype=np.float32)
    hashes = _hashes(texts)
    missing = np.arange(len(products))
    if arguments.reuse:
        missing = _fill(values, hashes, missing, _old_vectors(store, arguments.reuse, encoder))
    wanted = len(missing)
    known = {} if journal is None else journal.read()
    if known:
        missing = _fill(values, hashes, missing, known)
        output.say(f"{wanted - len(missing):,} products were embedded by a build that was cut short; going on")

    def keep(start: int, made: Floats) -> None:
        if journal is not None:
            journal.keep(hashes[missing[start : start + len(made)]], made)

    with output.progress("embedding", unit="products", total=wanted) as tick:
        tick(wanted - len(missing))
        values[missing] = product_vectors(encoder, [texts[position] for position in missing.tolist()], tick, keep)
    return _Vectors(values, wanted, len(products) - wanted, 0)


def _fill(values: Floats, hashes: Digests, missing: Positions, known: Mapping[bytes, Floats]) -> Positions:
    """Set those of the missing that are known; the positions of the others."""
    left = []
    for position in missing.tolist():
        vector = known.get(hashes[position].tobytes())
        if vector is None:
            left.append(position)
        else:
            values[position] = vector
    return np.array(left, dtype=np.int64)


def _share(arguments: argparse.Namespace) -> float:
    """Vectors that are given are taken as they are, unless something else is said."""
    if arguments.smoothing is not None:
        return float(arguments.smoothing)
    return 0.0 if arguments.vectors else SHARE


def _smoothed(arguments: argparse.Namespace, vectors: Floats, output: Output) -> tuple[Floats, Smoothing]:
    with output.progress("finding neighbours", unit="products", total=len(vectors)) as tick:
        return smoothed(vectors, _share(arguments), tick)


def _old_vectors(store: BundleStore, version: str, encoder: Encoder) -> dict[bytes, Floats]:
    name = store.current() if version == "current" else version
    if name is None:
        raise BadInput("--reuse current: nothing is published yet")
    store.verify(name)
    folder = store.path(name)
    if product_side(json.loads((folder / DESCRIPTION).read_bytes())) != product_side(encoder.description):
        raise BadInput(f"--reuse {name}: its products were embedded by another encoder ({DESCRIPTION} differs)")
    embeddings = load_array(folder / EMBEDDINGS, np.float16, None, encoder.dimension)
    hashes = np.load(folder / HASHES, allow_pickle=False)
    return {bytes(digest): vector for digest, vector in zip(hashes, embeddings.astype(np.float32), strict=True)}


def _given(path: Path, ids: list[str], encoder: Encoder, texts: Sequence[tuple[str, str]], output: Output) -> Floats:
    names = path.with_suffix(".ids.txt")
    try:
        vectors = np.load(path, allow_pickle=False, mmap_mode="r")
        given_ids = names.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise BadInput(f"--vectors: {error}") from error
    if given_ids and given_ids[-1] == "":
        given_ids.pop()
    if vectors.ndim != 2 or vectors.shape != (len(given_ids), encoder.dimension):
        raise BadInput(
            f"--vectors: {path.name} has shape {vectors.shape}; {names.name} and the encoder ask for "
            f"({len(given_ids)}, {encoder.dimension})"
        )
    place = {one: position for position, one in enumerate(given_ids)}
    if len(place) != len(given_ids):
        raise BadInput(f"--vectors: {names.name} holds an id twice")
    lacking = [one for one in ids if one not in place]
    if lacking:
        raise BadInput(f"--vectors: {len(lacking):,} products have no vector, such as {lacking[0]!r}")
    values = np.asarray(vectors[[place[one] for one in ids]], dtype=np.float32)
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)  # as the index will hold them
    broken = np.flatnonzero(~np.isfinite(stored).all(axis=1) | ~stored.any(axis=1))
    if len(broken):
        raise BadInput(
            f"--vectors: {len(broken):,} vectors are zero or not finite in float16, such as that of {ids[broken[0]]!r}"
        )
    _compare(values, encoder, texts, output)
    return values


def _compare(values: Floats, encoder: Encoder, texts: Sequence[tuple[str, str]], output: Output) -> None:
    """Vectors are taken as given, but a mix-up (another encoder, shifted rows) is worth a word."""
    probes = np.random.default_rng(0).choice(len(texts), min(_PROBES, len(texts)), replace=False)
    own = product_vectors(encoder, [texts[probe] for probe in probes])
    norms = np.linalg.norm(values[probes], axis=1)
    agreement = float(np.mean(np.sum(own * values[probes], axis=1) / (np.linalg.norm(own, axis=1) * norms)))
    if agreement < 0.9:
        output.warn(f"the given vectors agree with this encoder's only to a mean cosine of {agreement:.2f}")
    if not 0.5 < float(norms.mean()) < 1.01:
        output.warn(f"the given vectors are {norms.mean():.3g} long: scores and the floor expect cosines (at most 1)")


def _hashes(texts: Sequence[tuple[str, str]]) -> Digests:
    """16 bytes a product, what --reuse compares."""
    return np.frombuffer(b"".join(bytes.fromhex(text_hash(one)) for one in texts), dtype="V16")


def _static(
    arguments: argparse.Namespace, encoder: Encoder, titles: Sequence[str], vectors: Floats, output: Output
) -> tuple[StaticEncoder | None, dict[str, Any]]:
    """The static query encoder, if it is wanted and passes its check, and what the manifest says of it."""
    if arguments.static == "off":
        return None, {"passed": False, "reason": "switched off"}
    with output.progress("fitting the static query encoder", unit="pieces", total=encoder.vocabulary) as tick:
        try:
            static, check = fit_static(encoder, titles, vectors, tick)
        except ValueError as error:
            output.say(f"no static query encoder: {error}")
            return None, {"passed": False, "reason": str(error)}
    if not check.passed:
        output.warn(f"no profile fast: the static query encoder failed its check, {check}")
        return None, check.to_json()
    return static, check.to_json()


def _ranking(
    arguments: argparse.Namespace,
    loaded: tuple[Queries, Qrels] | None,
    searcher: Callable[[Ranking], Searcher],
    output: Output,
    *,
    fast: bool,
) -> tuple[Ranking, dict[str, Any] | None]:
    """The ranking, fitted to judgements where there are any, and what the manifest says of those."""
    ranking = with_fast(default_ranking()) if fast else default_ranking()
    if loaded is None:
        return ranking, None
    queries, qrels = loaded
    gain = Gain(relevant_at=arguments.relevant_at)
    output.say(f"fitting the ranking to {len(queries)} judged queries")
    examined = examine(searcher(ranking), queries, qrels)
    ranking = fit_ranking(examined, queries, qrels, gain)
    if fast:
        ranking = fit_fast_link(searcher(with_fast(ranking)), queries, qrels, gain)
    about = {"queries": queries.digest, "qrels": qrels.digest, "pairs": qrels.pairs, "relevant_at": gain.relevant_at}
    return ranking, about


def _golden_texts(arguments: argparse.Namespace, catalog: Catalog, examples: Sequence[str]) -> list[str]:
    texts = list(examples)
    if arguments.queries is not None:
        texts += Queries.load(arguments.queries).values()
    else:
        step = max(1, len(catalog) // _GOLDEN_QUERIES)
        role = catalog.schema.roles.title
        texts += [str(catalog.fields(row).get(role, "")) for row in range(0, len(catalog), step)]
    return list(dict.fromkeys(text[:200] for text in texts if normalize_text(text[:200])))[:_GOLDEN_QUERIES]


def _as_tuned(index: FaissIndex, tuned: Mapping[str, Any]) -> FaissIndex:
    """Read as the version before was, where it was of the same type with as many lists."""
    dense = tuned.get("dense") or {}
    return index.read_as(dense) if dense.get("kind") == index.kind else index


def _recall_probe(index: VectorIndex, vectors: Floats) -> float:
    """`gate.found_share` over probe products' own vectors."""
    probes = np.random.default_rng(0).choice(len(vectors), min(_PROBES, len(vectors)), replace=False)
    recall = gate.found_share(index, vectors[probes])
    if recall < 0.9:
        raise BundleError(f"the index finds only {recall:.0%} of the exact top 100")
    return round(recall, 4)
