"""Learn the reranker's weights and the link to a probability from judgements.

The weights are moved one at a time, by mean nDCG@10 over the training queries (coordinate ascent on the metric itself:
Metzler and Croft 2007); the dense weight is fixed at 1, because only ratios matter to the order. Features come from the
searcher itself, over the very candidates that it would retrieve, so nothing can differ between fitting and serving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from app.index.lexical import LexicalQuery
from app.search import features
from app.search.calibrate import NO_CLARITY, Clarity, Link
from app.search.features import Features
from app.search.rerank import Profile, Ranking, rank
from app.search.searcher import Searcher
from app.types import Floats as Floats32
from app.types import Rows, SearchRequest
from models.relevance import Gain, Qrels, Queries, Run, fit_link

FAST = "fast"
STATIC_SHARE = 0.35
"""Between none and a half little can be told apart; see docs/decisions/reranker.md."""
_CUT = 10
Floats = npt.NDArray[np.float64]

# What a catalogue without judgements of its own inherits. The legs at weights that held on four shops' judgements; of
# what the title says, the parts that helped on each of them, at weights too small to do harm (docs/decisions/
# reranker.md); the others wait for a shop's own judgements. The links are those fitted on the shipped ESCI judgements.
DEFAULT_WEIGHTS = (1.0, 0.25, 0.25, 0.0, 0.0, 0.04, 0.04, 0.0, -0.1)
DEFAULT_DEPTH = 200
DEFAULT_FLOOR = 0.2  # of MiniLM cosines with smoothed vectors: at 0.3 recall@100 is a point lower, at 0.1 no higher
# One weight is moved at a time, by one of these, and only for a gain beyond doubt: of some fifty moves that change
# nothing the best gains two standard errors by luck alone, and hardly ever three (0.05 / 50, one-sided).
_STEPS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
_DOUBT = 3.0
_MOST_MOVES = 12
_LEAST_QUERIES = 30


def default_ranking() -> Ranking:
    """The ranking of a catalogue that nobody has judged: robust weights, links marked as not calibrated."""
    return _ranking(
        DEFAULT_WEIGHTS,
        {
            "default": Link(3.506, -0.866, False),
            "lexical": Link(5.472, 0.32, False),
            "dense": Link(5.886, -1.202, False),
        },
    )


@dataclass(frozen=True, slots=True)
class Examined:
    """One query's candidates (rows ascending, features [n, len(NAMES)]) and its judged products likewise, with their
    grades."""

    rows: Rows
    features: Features
    judged_rows: Rows
    judged_features: Features
    grades: Floats
    clarity: Clarity


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
            searcher.clarity(words, vector, query.profile, needed=True),
        )
    return examined


def fit_weights(
    examined: Mapping[str, Examined], query_ids: Iterable[str], qrels: Qrels, gain: Gain
) -> tuple[float, ...]:
    """Weights with a better mean nDCG@10 over the queries than the defaults, one move after the other from there.

    A move must gain more than three standard errors of the paired difference. Between points that the queries cannot
    tell apart, the one that held on other shops transfers better than the one that fits the noise."""
    judged = [_Judged(examined[query_id], qrels[query_id], gain) for query_id in query_ids]
    weights = np.array(DEFAULT_WEIGHTS)
    scores = np.array([one.ndcg(weights[None])[0] for one in judged])
    for _ in range(_MOST_MOVES):
        tried = _moves(weights)
        gains = np.array([one.ndcg(tried) for one in judged]) - scores[:, None]
        best = int(np.argmax(gains.mean(axis=0).round(9)))
        if not _beyond_doubt(gains[:, best]):
            break
        weights, scores = tried[best], scores + gains[:, best]
    return tuple(float(weight) for weight in weights.round(6))


def _moves(weights: Floats) -> Floats:
    """The weights with one of them changed, [moves, features]; a leg never counts against a product."""
    tried = []
    for feature in range(1, len(weights)):
        for step in _STEPS:
            moved = weights.copy()
            moved[feature] = round(moved[feature] + step, 6)
            if feature >= features.LEGS or moved[feature] >= 0:
                tried.append(moved)
    return np.array(tried)


def _beyond_doubt(difference: Floats) -> bool:
    if len(difference) < 2:
        return False
    return bool(difference.mean() > _DOUBT * difference.std(ddof=1) / np.sqrt(len(difference)))


class _Judged:
    """One query's candidates with what each is worth; nDCG@10 under any weights."""

    def __init__(self, one: Examined, grades: Mapping[str, float], gain: Gain) -> None:
        self._features = one.features
        self._ideal = _dcg(np.sort(gain.of(np.array(list(grades.values()))))[::-1][:_CUT])
        self._gains = np.zeros(len(one.rows))
        if len(one.rows):
            at = np.minimum(np.searchsorted(one.rows, one.judged_rows), len(one.rows) - 1)
            held = one.rows[at] == one.judged_rows
            self._gains[at[held]] = gain.of(one.grades[held])

    def ndcg(self, weights: Floats) -> Floats:
        """For each row of weights, [points]; 0 where nothing is relevant. Rows ascend: a stable sort leaves ties so."""
        if self._ideal == 0 or not self._gains.any():
            return np.zeros(len(weights))
        raw = self._features @ weights.T
        order = np.argsort(-raw, axis=0, kind="stable")[:_CUT]
        discounts = 1.0 / np.log2(np.arange(2, len(order) + 2))
        result: Floats = (discounts @ self._gains[order]) / self._ideal
        return result


def fit_profile_link(examined: Mapping[str, Examined], query_ids: Iterable[str], profile: Profile, gain: Gain) -> Link:
    """Platt's link over the judged pairs of the queries, each pair weighing the same; of a query's clarity it is shown
    what the profile's own legs will show it. Raises ValueError where nothing is judged, or everything alike."""
    shown = (profile.uses_words, profile.uses_words, profile.uses_dense, profile.uses_dense)
    raws, labels, clarity = [], [], []
    for query_id in query_ids:
        one = examined[query_id]
        if len(one.judged_rows):
            raws.append(one.judged_features @ np.array(profile.weights))
            labels.append(one.grades >= gain.relevant_at)
            clarity += [np.array(one.clarity) * shown] * len(one.grades)
    if not raws:
        raise ValueError("none of the judged products is in this catalogue: are the product ids the same?")
    known = np.concatenate(labels)
    if known.all() or not known.any():
        which = "relevant" if known.any() else "irrelevant"
        raise ValueError(f"all {len(known):,} judged pairs are {which} (grade {gain.relevant_at:g} on): nothing to fit")
    # Too few queries cannot tell what a hard query looks like.
    queries = np.array(clarity) if len(raws) >= _LEAST_QUERIES else None
    link = fit_link(np.concatenate(raws), known.astype(float), covariates=queries)
    return Link(link.slope, link.intercept, True, link.weights or NO_CLARITY)


def fit_ranking(examined: Mapping[str, Examined], query_ids: Iterable[str], qrels: Qrels, gain: Gain) -> Ranking:
    """Weights of the default profile and the links of all profiles, from the given queries alone."""
    ids = [query_id for query_id in query_ids if query_id in examined]
    return ranking_of(fit_weights(examined, ids, qrels, gain), examined, ids, gain)


def ranking_of(
    weights: tuple[float, ...], examined: Mapping[str, Examined], query_ids: Iterable[str], gain: Gain
) -> Ranking:
    """The profiles that these weights of the default give, each with its link fitted to the queries."""
    ids = list(query_ids)
    shaped = _ranking(weights, default_ranking_links())
    return Ranking(
        {name: replace(one, link=fit_profile_link(examined, ids, one, gain)) for name, one in shaped.profiles.items()}
    )


def with_fast(ranking: Ranking) -> Ranking:
    """The ranking with the static encoder at work: part of each query's vector, and in a profile `fast` all of it."""
    fast = replace(ranking.profiles["default"], name=FAST, static=1.0)
    both = {
        name: replace(one, static=STATIC_SHARE if one.uses_dense else 0.0) for name, one in ranking.profiles.items()
    }
    return Ranking({**both, FAST: fast})


def fit_fast_link(searcher: Searcher, queries: Queries, qrels: Qrels, gain: Gain) -> Ranking:
    """The searcher's ranking with the link of `fast` fitted to what its own encoder makes of the judged queries."""
    profiles = searcher.ranking.profiles
    examined = examine(searcher, queries, qrels, FAST)
    link = fit_profile_link(examined, examined, profiles[FAST], gain)
    return Ranking({**profiles, FAST: replace(profiles[FAST], link=link)})


def default_ranking_links() -> dict[str, Link]:
    """The shipped links by profile."""
    return {name: one.link for name, one in default_ranking().profiles.items()}


def run_of(
    searcher: Searcher,
    examined: Mapping[str, Examined],
    query_ids: Iterable[str],
    profile: Profile,
    name: str,
    *,
    judged_only: bool = False,
) -> Run:
    """The ranking that `profile` gives the examined candidates. For a profile of one leg, candidates that only the
    other leg brought score by this leg alone, as its own search would rank them. With `judged_only` the judged products
    are ranked instead, all of them, as rescoring would: which of them a search would have met is another question."""
    ranked = {}
    for query_id in query_ids:
        one = examined[query_id]
        rows, known = (one.judged_rows, one.judged_features) if judged_only else (one.rows, one.features)
        ids = [searcher.catalog.id(int(row)) for row in rank(rows, known, profile).rows]
        ranked[query_id] = [(product, float(len(ids) - place)) for place, product in enumerate(ids)]
    return Run(ranked, name)


def _ranking(weights: tuple[float, ...], links: Mapping[str, Link]) -> Ranking:
    legs = weights[1 : features.LEGS]
    words = weights[1:] if any(legs) else (*(0.5 for _ in legs), *weights[features.LEGS :])
    shapes = {"default": weights, "lexical": (0.0, *words), "dense": (1.0, *(0.0 for _ in words))}
    return Ranking(
        {name: Profile(name, DEFAULT_DEPTH, DEFAULT_FLOOR, shape, links[name]) for name, shape in shapes.items()}
    )


def _features(searcher: Searcher, rows: Rows, words: LexicalQuery, vector: Floats32) -> Features:
    return features.of_rows(rows, searcher.words, words, searcher.vectors, vector)


def _dcg(gains: Floats) -> float:
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))
