"""Fourth layer: the default profile on judged queries, paired with the version that it would replace.

Non-inferiority: the candidate has to show that it is not worse by more than the margin, by the one-sided 95 % lower
bound of the mean paired difference (percentile bootstrap over queries). Only products that both versions hold are
looked at, in the rankings as in the judgements: what was discontinued or is new says nothing of how well the rest is
ranked, and how much of it there may be is the first layer's to say.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from app.index.catalog import Catalog
from app.search.rerank import Profile
from app.search.searcher import Searcher
from models.blend import examine, run_of
from models.gate.judgements import Judgements
from models.gate.limits import Limits
from models.gate.verdict import Check, Figures
from models.relevance import Evaluation, Interval, Qrels, Run, bootstrap_interval, evaluate
from models.relevance.metrics import Floats
from models.report.segments import segments

LAYER = "relevance"
METRICS = ("ndcg@10", "recall@100")
PROFILE, LEG = "default", "lexical"
_ONE_SIDED = 0.05


def checks(
    candidate: Searcher, served: Searcher | None, judgements: Judgements | None, limits: Limits, flattered: bool = False
) -> Iterator[Check]:
    """One check a metric and one over the segments; against the candidate's own lexical leg where nothing is served.
    `flattered` is said beside the figures: the candidate was fitted to these judgements and the served version not."""
    if judgements is None:
        yield Check.not_run(LAYER, METRICS[0], "no judgements: the version is ungated")
        return
    held = _held(judgements, [one.catalog for one in (candidate, served) if one is not None])
    if len(held) < limits.least_queries:
        why = f"{len(held)} judged queries with a relevant product in the catalogue, {limits.least_queries} are needed"
        yield Check.not_run(LAYER, METRICS[0], why)
        return
    if served is None:
        yield _beside_its_leg(candidate, judgements, held)
        return
    new = _evaluated(candidate, judgements, held, served.catalog)
    old = _evaluated(served, judgements, held, candidate.catalog)
    for metric in METRICS:
        yield _not_inferior(metric, old, new, judgements, limits, flattered)
    yield _segments(old, new, judgements, held, limits)


def _held(judgements: Judgements, catalogs: list[Catalog]) -> Qrels:
    """The judgements of the products that every catalogue holds, of queries with something relevant left."""
    grades = {}
    for query_id in judgements.qrels:
        if query_id in judgements.queries:
            of = judgements.qrels[query_id]
            kept = {i: grade for i, grade in of.items() if all(one.row(i) is not None for one in catalogs)}
            if any(grade >= judgements.gain.relevant_at for grade in kept.values()):
                grades[query_id] = kept
    return Qrels(grades)


def _evaluated(searcher: Searcher, judgements: Judgements, held: Qrels, other: Catalog | None) -> Evaluation:
    return _run_evaluated(_run(searcher, judgements, held, PROFILE, other), judgements, held)


def _run(searcher: Searcher, judgements: Judgements, held: Qrels, profile: str, other: Catalog | None) -> Run:
    """The profile's ranking of each judged query, without what the other catalogue lacks."""
    shape: Profile = searcher.ranking.profiles[profile]
    found = run_of(searcher, examine(searcher, judgements.queries, held, profile), held, shape, profile)
    if other is None:
        return found
    return Run({q: [pair for pair in found[q] if other.row(pair[0]) is not None] for q in found}, profile)


def _run_evaluated(run: Run, judgements: Judgements, held: Qrels) -> Evaluation:
    return evaluate(held, run, METRICS, gain=judgements.gain)


def _not_inferior(
    metric: str, old: Evaluation, new: Evaluation, judgements: Judgements, limits: Limits, flattered: bool
) -> Check:
    bounds = _bounds(new.values[metric] - old.values[metric], _ONE_SIDED)
    found = f"{new.mean(metric):.4f} after {old.mean(metric):.4f}: {_shown(bounds, bounds.low, 'at least')}"
    if flattered:
        found += " (the candidate was fitted to these judgements, the served one not)"
    figures = _figures(bounds, len(new.query_ids)) | {
        "flattered": int(flattered),
        "candidate": new.mean(metric),
        "served": old.mean(metric),
        "judgements": judgements.source,
    }
    limit = f"at least {-limits.margin:+.3f}, {len(new.query_ids)} queries"
    return Check.of(LAYER, metric, bounds.low >= -limits.margin, found, limit, figures)


def _segments(old: Evaluation, new: Evaluation, judgements: Judgements, held: Qrels, limits: Limits) -> Check:
    """Is there proof of harm in any segment? (See `Limits` for why not: no proof of its absence.)"""
    difference = dict(zip(new.query_ids, new.values[METRICS[0]] - old.values[METRICS[0]], strict=True))
    parts = [
        part
        for part in segments(new.query_ids, judgements.queries, held, judgements.gain)
        if len(part.query_ids) >= limits.segment_queries
    ]
    if not parts:
        return Check.not_run(LAYER, "segments", f"no segment has {limits.segment_queries} queries")
    bounds = {
        f"{part.family}, {part.name}": _bounds(
            np.array([difference[q] for q in part.query_ids]), _ONE_SIDED / len(parts)
        )
        for part in parts
    }
    worst = min(bounds, key=lambda name: bounds[name].high)
    found = f"{METRICS[0]}, worst in “{worst}”: {_shown(bounds[worst], bounds[worst].high, 'at most')}"
    good = bounds[worst].high >= -limits.margin
    figures: Figures = {
        **{name: one.estimate for name, one in bounds.items()},
        "worst": worst,
        "high": bounds[worst].high,
    }
    return Check.of(LAYER, "segments", good, found, f"not under {-limits.margin:+.3f} beyond doubt", figures)


def _beside_its_leg(candidate: Searcher, judgements: Judgements, held: Qrels) -> Check:
    """Nothing to be paired with: at least the profile must not be worse than the words alone, beyond doubt."""
    ranked, words = (
        _run_evaluated(_run(candidate, judgements, held, name, None), judgements, held) for name in (PROFILE, LEG)
    )
    metric = METRICS[0]
    bounds = _bounds(ranked.values[metric] - words.values[metric], _ONE_SIDED)
    figures = _figures(bounds, len(held)) | {"candidate": ranked.mean(metric), LEG: words.mean(metric)}
    found = f"{ranked.mean(metric):.4f} beside {words.mean(metric):.4f} of its words alone: "
    found += _shown(bounds, bounds.high, "at most")
    limit = f"not under +0.000 beyond doubt, {len(held)} queries"
    return Check.of(LAYER, metric, bounds.high >= 0.0, found, limit, figures)


def _bounds(difference: Floats, tail: float) -> Interval:
    return bootstrap_interval(difference, level=1.0 - 2.0 * tail)


def _shown(bounds: Interval, bound: float, word: str) -> str:
    return f"{bounds.estimate:+.4f}, {word} {bound:+.4f}"


def _figures(bounds: Interval, queries: int) -> dict[str, float | int | str | None]:
    return {"queries": queries, "difference": bounds.estimate, "low": bounds.low, "high": bounds.high}
