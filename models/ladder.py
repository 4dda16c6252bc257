"""What each part of the ranking brings: the tiers from the cheapest up, the field's fixed blends, and one part less.

Everything is over the same queries and out-of-fold where something is fitted to them, so any two rows compare paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
import numpy.typing as npt

from app.index.dense import FaissIndex
from app.search.features import LEGS, NAMES
from app.search.job import SearchJob
from app.search.rerank import Profile
from app.search.searcher import Searcher
from app.types import Floats, SearchRequest
from models.blend import FAST, examine, run_of
from models.out_of_fold import folded, run_over
from models.relevance import Gain, Qrels, Queries, Run
from models.variant import variant

DENSE_OWN, DENSE_FULL = "dense, query encoder alone", "dense, full encoder alone"
FULL = "full encoder"
"""The default with its queries by the encoder that a distilled one was taught to follow, where there is one."""
TIERS = ("lexical", FAST, "default")
"""From the cheapest up. The profile `dense`, a leg by itself, is no tier of a search."""
RRF_K = 60
_BLENDED = 1_000  # the depth that min-max is taken over, and of the fused list
_ROUNDS = 5
Numbers = npt.NDArray[np.float64]


def tiers(
    searcher: Searcher, queries: Queries, qrels: Qrels, gain: Gain, *, fitted: bool, judged_only: bool = False
) -> dict[str, Run]:
    """The run of each tier that the version has, and of the dense leg; out-of-fold where it was `fitted` to these
    judgements."""
    runs = {
        name: _run(searcher, queries, qrels, gain, name, fitted=fitted, judged_only=judged_only)
        for name in ("dense", *TIERS)
        if name in searcher.ranking.profiles
    }
    if teacher := with_teacher(searcher):
        for version, profile, name in (
            (alone(searcher), "dense", DENSE_OWN),
            (alone(teacher), "dense", DENSE_FULL),
            (teacher, "default", FULL),
        ):
            runs[name] = _run(version, queries, qrels, gain, profile, fitted=fitted, judged_only=judged_only)
            runs[name].name = name
    return runs


def alone(searcher: Searcher) -> Searcher:
    """The version without its static encoder: every query's vector is computed."""
    version = variant(searcher)
    version.static = None
    return version


def with_teacher(searcher: Searcher) -> Searcher | None:
    """The version with queries by the full encoder, where its own query encoder is distilled from it."""
    if "distilled" not in searcher.encoder.description:
        return None
    return variant(searcher, encoder=searcher.encoder.as_teacher())


def _run(
    searcher: Searcher, queries: Queries, qrels: Qrels, gain: Gain, name: str, *, fitted: bool, judged_only: bool
) -> Run:
    examined = examine(searcher, queries, qrels, name)
    rankings = folded(examined, queries, qrels, gain) if fitted else [(searcher.ranking, tuple(queries))]
    return run_over(searcher, examined, rankings, name, judged_only=judged_only)


def fixed_blends(
    searcher: Searcher, embeddings: Floats, queries: Queries, qrels: Qrels, *, judged_only: bool = False
) -> dict[str, Run]:
    """What people write without learning anything: BM25 over all text and the cosine of the whole catalogue, fused by
    reciprocal ranks (Cormack et al. 2009) or by min-max scores at each weight of the dense leg. `embeddings` [n,
    dimension] are the products' own vectors, not drawn to any neighbour; queries are by the full encoder."""
    encoder = (with_teacher(searcher) or searcher).encoder
    rows = np.arange(len(searcher.catalog), dtype=np.int32)
    blends: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for query_id in qrels:
        text = searcher.query(SearchRequest(queries[query_id])).text or ""
        words = searcher.words.scores(searcher.words.parse(text), rows)[:, 1].astype(np.float64)
        judged = [row for row in map(searcher.catalog.row, qrels[query_id]) if row is not None]
        dense = (embeddings @ encoder.queries([text])[0]).astype(np.float64)
        for name, scores in _fused(words, dense):
            best = np.lexsort((rows, -scores))
            best = best[np.isin(best, judged)] if judged_only else best[:_BLENDED]
            ranked = [(searcher.catalog.id(int(row)), float(len(best) - place)) for place, row in enumerate(best)]
            blends.setdefault(name, {})[query_id] = ranked
    return {name: Run(ranked, name) for name, ranked in blends.items()}


def _fused(words: Numbers, dense: Numbers) -> Iterator[tuple[str, Numbers]]:
    yield "BM25", words
    yield "zero-shot", dense
    yield "RRF", _reciprocal(words) + _reciprocal(dense)
    for tenth in range(1, 10):
        share = tenth / 10
        yield f"min-max {share:.1f}", share * _min_max(dense) + (1 - share) * _min_max(words)


def _reciprocal(scores: Numbers) -> Numbers:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return np.where(scores > 0, 1 / (RRF_K + ranks), 0.0)


def _min_max(scores: Numbers) -> Numbers:
    best = np.sort(scores)[::-1][:_BLENDED]
    scaled: Numbers = (scores - best[-1]) / max(best[0] - best[-1], 1e-12)
    return scaled


def ablations(
    searcher: Searcher,
    embeddings: Floats,
    queries: Queries,
    qrels: Qrels,
    gain: Gain,
    *,
    fitted: bool,
    judged_only: bool = False,
) -> dict[str, Run]:
    """The default profile with one part less, at the default's weights otherwise."""
    default = searcher.ranking.profiles["default"]
    words = [name for name, weight in zip(NAMES[LEGS:], default.weights[LEGS:], strict=True) if weight]
    runs = {}
    without: dict[str, Callable[[], Run]] = {
        "without smoothing": lambda: _run(
            variant(searcher, vectors=FaissIndex.build(embeddings)),
            queries,
            qrels,
            gain,
            "default",
            fitted=fitted,
            judged_only=judged_only,
        ),
        "without mending of spelling": lambda: _as_typed(searcher, queries, qrels, default, judged_only),
    }
    for name in words:
        less = {name: 0.0}
        without[f"without {name}"] = partial(_reweighted, searcher, queries, qrels, default, less, judged_only)
    none = dict.fromkeys(words, 0.0)
    without["legs alone"] = partial(_reweighted, searcher, queries, qrels, default, none, judged_only)
    for label, make in without.items():
        run = make()
        run.name = label
        runs[label] = run
    return runs


def _reweighted(
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels,
    profile: Profile,
    changed: Mapping[str, float],
    judged_only: bool,
) -> Run:
    weights = tuple(changed.get(name, weight) for name, weight in zip(NAMES, profile.weights, strict=True))
    examined = examine(searcher, queries, qrels, profile.name)
    shape = replace(profile, weights=weights)
    return run_of(searcher, examined, examined, shape, profile.name, judged_only=judged_only)


def _as_typed(searcher: Searcher, queries: Queries, qrels: Qrels, profile: Profile, judged_only: bool) -> Run:
    plain = variant(searcher)
    plain.correct = lambda text, prefix: text
    examined = examine(plain, queries, qrels, profile.name)
    return run_of(plain, examined, examined, profile, profile.name, judged_only=judged_only)


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall milliseconds of one search in the searcher: no socket, no queue, one thread."""

    p50: float
    p99: float


def latencies(searcher: Searcher, queries: Sequence[str], names: Sequence[str]) -> dict[str, Latency]:
    """Of each tier, and of the encoders where a dense leg is by one alone, interleaved query by query, so that whatever
    else the machine does meets all of them alike."""
    teacher = with_teacher(searcher)
    calls: dict[str, Callable[[str], object]] = {}
    for name in names:
        version = teacher if teacher and name in (FULL, DENSE_FULL) else searcher
        if name in (DENSE_OWN, DENSE_FULL):
            calls[name] = partial(_encode, version)
        else:
            calls[name] = partial(_search, version, "default" if name == FULL else name)
    spent: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(_ROUNDS + 1):
        for text in queries:
            for name, call in calls.items():
                started = perf_counter()
                call(text)
                if round_:  # the first warms everything up
                    spent[name].append((perf_counter() - started) * 1e3)
    return {name: Latency(*np.percentile(times, (50, 99)).tolist()) for name, times in spent.items()}


def _search(searcher: Searcher, profile: str, text: str) -> None:
    query = searcher.query(SearchRequest(text, profile=profile))
    searcher.search([SearchJob(searcher, query, perf_counter())])


def _encode(searcher: Searcher, text: str) -> None:
    searcher.encoder.queries([text])
