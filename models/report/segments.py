"""The queries by kind, so that a mean does not hide for whom it is good. Each family of segments parts all queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.relevance import Comparison, Evaluation, Gain, Qrels, compare

TOO_FEW = 10  # below this an interval says more about the bootstrap than about the ranker
_WORD = re.compile(r"[\w/'’]+")
_NEGATIONS = frozenset({"no", "non", "nor", "not", "never", "without", "w/o", "except", "excluding"})


@dataclass(frozen=True)
class Segment:
    """Some of the queries, in the order given, and what they have in common."""

    family: str
    name: str
    query_ids: tuple[str, ...]


@dataclass(frozen=True)
class SegmentFigures:
    """A segment that holds queries: each run's mean, and the paired comparison over it."""

    segment: Segment
    means: Mapping[str, float]
    comparison: Comparison

    @property
    def too_few(self) -> bool:
        """Whether its interval should not be read."""
        return len(self.segment.query_ids) < TOO_FEW


def segments(query_ids: Sequence[str], texts: Mapping[str, str], qrels: Qrels, gain: Gain) -> list[Segment]:
    """Every family in turn: words, digits, (English) negation, and the number of relevant products, where the tail are
    the queries with at most the median of them."""
    lengths = {q: len(texts[q].split()) for q in query_ids}
    relevant = {q: sum(grade >= gain.relevant_at for grade in qrels[q].values()) for q in query_ids}
    median = int(np.median(list(relevant.values()))) if relevant else 0
    kinds = [
        ("Words in the query", {q: 0 if n <= 2 else 1 if n <= 4 else 2 for q, n in lengths.items()}, _LENGTHS),
        ("Digits", {q: int(not re.search(r"\d", texts[q])) for q in query_ids}, ("with digits", "without digits")),
        ("Negation", {q: int(not _negated(texts[q])) for q in query_ids}, ("with negation", "without negation")),
        (
            "Relevant products",
            {q: int(relevant[q] <= median) for q in query_ids},
            (f"head: more than {median}", f"tail: at most {median}"),
        ),
    ]
    return [
        Segment(family, name, tuple(q for q in query_ids if kind[q] == place))
        for family, kind, names in kinds
        for place, name in enumerate(names)
    ]


_LENGTHS = ("1–2 words", "3–4 words", "5 words or more")


def _negated(text: str) -> bool:
    words = _WORD.findall(text.casefold().replace("’", "'"))
    return any(word in _NEGATIONS or word.endswith("n't") for word in words)


def segment_figures(
    parts: Sequence[Segment],
    evaluations: Sequence[Evaluation],
    baseline: Evaluation,
    candidate: Evaluation,
    metric: str,
) -> list[SegmentFigures]:
    """The figures of each segment that is not empty."""
    found = []
    for part in parts:
        if part.query_ids:
            within = [evaluation.restrict(part.query_ids) for evaluation in (*evaluations, baseline, candidate)]
            means = {evaluation.name: evaluation.mean(metric) for evaluation in within}
            found.append(SegmentFigures(part, means, compare(within[-2], within[-1], metric)))
    return found
