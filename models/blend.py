"""Learn the blend's weights and the link to a probability from judgements.

The weights are chosen on a grid by mean nDCG@10 over the training queries; the dense weight is fixed at 1, because only
ratios matter to the order. Features come from the searcher itself, over the very candidates that it would retrieve, so
nothing can differ between fitting and serving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from app.index.lexical import LexicalQuery
from app.search import features
from app.search.calibrate import Link
from app.search.features import Features
from app.search.rerank import STATIC, Profile, Ranking, rank
from app.search.searcher import Searcher
from app.types import Floats as Floats32
from app.types import Rows, SearchRequest
from models.relevance import Gain, Qrels, Queries, Run, fit_link

GRID = tuple(round(0.1 * step, 1) for step in range(16))
_CUT = 10
FAST = "fast"
Floats = npt.NDArray[np.float64]

# What a catalogue without judgements of its own inherits: both BM25 legs together at half the weight of the dense pair,
# which held on four shops' judgements; the links are those fitted on the shipped ESCI judgements.
DEFAULT_WEIGHTS = (1.0, 0.25, 0.25)
DEFAULT_DEPTH = 200
DEFAULT_FLOOR = 0.3  # of MiniLM cosines: nDCG@10 and recall@100 as at 0.1, a third fewer strays in the result set


def default_ranking() -> Ranking:
    """The ranking of a catalogue that nobody has judged: robust weights, links marked as not calibrated."""
    return _ranking(
        DEFAULT_WEIGHTS,
        {
            "default": Link(3.157, -0.595, False),
            "lexical": Link(5.159, 0.43, False),
            "dense": Link(5.295, -0.914, False),
        },
    )


@dataclass(frozen=True, slots=True)
class Examined:
    """One query's candidates (rows ascending, features [n, 3]) and its judged products likewise, with their grades."""

    rows: Rows
    features: Features
    judged_rows: Rows
    judged_features: Features
    grades: Floats


def examine(searcher: Searcher, queries: Queries, qrels: Qrels, profile: str = "default") -> dict[str, Examined]:
    """Run every judged query's retrieval once and keep what ranking needs. Judged products that the catalogue does not
    hold are left out of the judged pairs."""
    examined = {}
    for query_id, text in queries.items():
        if query_id not in qrels:
            continue
        query = searcher.query(SearchRequest(text, profile=profile))
        words = searcher.words.parse(query.text or "")
        vector = searcher.query_vectors([query.text or ""], query.profile)[0]
        rows = searcher.result_set(query, words, vector).rows
        known = [(searcher.catalog.row(i), grade) for i, grade in sorted(qrels[query_id].items())]
        pairs = sorted((row, grade) for row, grade in known if row is not None)
        judged = np.array([row for row, _ in pairs], dtype=np.int32)
        examined[query_id] = Examined(
            rows,
            _features(searcher, rows, words, vector),
            judged,
            _features(searcher, judged, words, vector),
            np.array([grade for _, grade in pairs], dtype=np.float64),
        )
    return examined


def fit_weights(
    examined: Mapping[str, Examined], query_ids: Iterable[str], qrels: Qrels, gain: Gain
) -> tuple[float, ...]:
    """The grid point with the best mean nDCG@10 over the queries, if it beats the default weights by more than the
    standard error of the paired difference; else the defaults. Between points that the queries cannot tell apart, the
    choice that held on other shops transfers better than the one that fits the noise."""
    grid = np.array([DEFAULT_WEIGHTS, *((1.0, title, text) for title in GRID for text in GRID)])
    scores = np.array([_ndcg(examined[query_id], grid, qrels[query_id], gain) for query_id in query_ids])
    best = int(np.argmax(scores.mean(axis=0).round(9)))
    difference = scores[:, best] - scores[:, 0]
    if len(difference) < 2 or difference.mean() <= difference.std(ddof=1) / np.sqrt(len(difference)):
        best = 0
    return tuple(float(weight) for weight in grid[best])


def _ndcg(one: Examined, grid: Floats, grades: Mapping[str, float], gain: Gain) -> Floats:
    """nDCG@10 of one query under each row of weights, [points]; 0 where nothing is relevant."""
    ideal = _dcg(np.sort(gain.of(np.array(list(grades.values()))))[::-1][:_CUT])
    if ideal == 0 or not len(one.rows):
        return np.zeros(len(grid))
    gains = np.zeros(len(one.rows))
    at = np.minimum(np.searchsorted(one.rows, one.judged_rows), len(one.rows) - 1)
    held = one.rows[at] == one.judged_rows
    gains[at[held]] = gain.of(one.grades[held])
    raw = one.features @ grid.T
    return np.array([_dcg(gains[np.lexsort((one.rows, -raw[:, point]))[:_CUT]]) for point in range(len(grid))]) / ideal


def fit_profile_link(
    examined: Mapping[str, Examined], query_ids: Iterable[str], weights: Sequence[float], gain: Gain
) -> Link:
    """Platt's link over the judged pairs of the queries, each pair weighing the same. Raises ValueError where nothing
    is judged, or everything alike."""
    raws, labels = [], []
    for query_id in query_ids:
        one = examined[query_id]
        if len(one.judged_rows):
            raws.append(one.judged_features @ np.array(weights))
            labels.append(one.grades >= gain.relevant_at)
    if not raws:
        raise ValueError("none of the judged products is in this catalogue: are the product ids the same?")
    known = np.concatenate(labels)
    if known.all() or not known.any():
        which = "relevant" if known.any() else "irrelevant"
        raise ValueError(f"all {len(known):,} judged pairs are {which} (grade {gain.relevant_at:g} on): nothing to fit")
    link = fit_link(np.concatenate(raws), known.astype(float))
    return Link(link.slope, link.intercept, True)


def fit_ranking(examined: Mapping[str, Examined], query_ids: Iterable[str], qrels: Qrels, gain: Gain) -> Ranking:
    """Weights of the default profile and the links of all profiles, from the given queries alone."""
    ids = [query_id for query_id in query_ids if query_id in examined]
    weights = fit_weights(examined, ids, qrels, gain)
    shaped = _ranking(weights, default_ranking_links())
    return Ranking(
        {
            name: replace(one, link=fit_profile_link(examined, ids, one.weights, gain))
            for name, one in shaped.profiles.items()
        }
    )


def with_fast(ranking: Ranking) -> Ranking:
    """The ranking and a profile `fast`: the default one with queries by the static encoder."""
    fast = replace(ranking.profiles["default"], name=FAST, encoder=STATIC)
    return Ranking({**ranking.profiles, FAST: fast})


def fit_fast_link(searcher: Searcher, queries: Queries, qrels: Qrels, gain: Gain) -> Ranking:
    """The searcher's ranking with the link of `fast` fitted to what its own encoder makes of the judged queries."""
    profiles = searcher.ranking.profiles
    examined = examine(searcher, queries, qrels, FAST)
    link = fit_profile_link(examined, examined, profiles[FAST].weights, gain)
    return Ranking({**profiles, FAST: replace(profiles[FAST], link=link)})


def default_ranking_links() -> dict[str, Link]:
    """The shipped links by profile."""
    return {name: one.link for name, one in default_ranking().profiles.items()}


def run_of(
    searcher: Searcher, examined: Mapping[str, Examined], query_ids: Iterable[str], profile: Profile, name: str
) -> Run:
    """The ranking that `profile` gives the examined candidates. For a profile of one leg, candidates that only the
    other leg brought score by this leg alone, as its own search would rank them."""
    ranked = {}
    for query_id in query_ids:
        one = examined[query_id]
        order = rank(one.rows, one.features, profile)
        ids = [searcher.catalog.id(int(row)) for row in order.rows]
        ranked[query_id] = [(product, float(len(ids) - place)) for place, product in enumerate(ids)]
    return Run(ranked, name)


def _ranking(weights: tuple[float, ...], links: Mapping[str, Link]) -> Ranking:
    dense, title, text = weights
    words = (title, text) if title or text else (0.5, 0.5)
    shapes = {"default": (dense, title, text), "lexical": (0.0, *words), "dense": (1.0, 0.0, 0.0)}
    return Ranking(
        {name: Profile(name, DEFAULT_DEPTH, DEFAULT_FLOOR, shape, links[name]) for name, shape in shapes.items()}
    )


def _features(searcher: Searcher, rows: Rows, words: LexicalQuery, vector: Floats32) -> Features:
    return features.of_rows(rows, searcher.words, words, searcher.vectors, vector)


def _dcg(gains: Floats) -> float:
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))
