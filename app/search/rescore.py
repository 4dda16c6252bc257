"""Scores of given pairs of a query and a product of the catalogue, or a product's text: exactly what a search gives.

A query is read once, whatever number of candidates it has; its candidates come in slices, which share the reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from app.errors import AisleError, EncoderUnavailable
from app.index.analysis import normalize_text
from app.index.lexical import LexicalQuery
from app.search import features
from app.search.calibrate import Clarity
from app.search.plan import ENCODER_ERROR
from app.search.rerank import Profile, raw_scores
from app.types import TIER_LEXICAL, Floats, RescoreCandidate, RescoreResult

if TYPE_CHECKING:
    from app.search.searcher import Searcher


@dataclass(frozen=True, slots=True)
class Reading:
    """What a query is to each of its pairs. `profile` is that of the words where the encoder failed, which `degraded`
    says."""

    words: LexicalQuery
    vector: Floats | None
    clarity: Clarity
    profile: Profile
    degraded: tuple[str, ...] = ()


def read(searcher: Searcher, text: str, profile: Profile, vector: Floats | None = None) -> Reading:
    """Read a normalised query; `vector` where it is known. Raises EncoderUnavailable where the profile has no words to
    fall back to."""
    degraded: tuple[str, ...] = ()
    if profile.uses_dense and vector is None:
        try:
            vector = searcher.query_vectors([text], profile)[0]
        except EncoderUnavailable:
            if not profile.uses_words:
                raise
            profile, degraded = searcher.ranking.profiles[TIER_LEXICAL], (ENCODER_ERROR,)
    words = searcher.words.parse(text)
    vector = vector if profile.uses_dense else None
    return Reading(words, vector, searcher.clarity(words, vector, profile), profile, degraded)


@dataclass(eq=False, slots=True)
class RescoreJob:
    """A slice of one rescoring item: the candidates from `start` on. `reading` is that of an earlier slice; the first
    leaves its own there."""

    searcher: Searcher
    text: str
    profile: Profile
    candidates: Sequence[RescoreCandidate]
    start: int = 0
    vector: Floats | None = None
    reading: Reading | None = None
    results: list[RescoreResult] = field(default_factory=list)
    error: AisleError | None = None

    def run(self) -> None:
        """Score the candidates. One unknown product is that candidate's error."""
        try:
            if self.reading is None:
                self.reading = read(self.searcher, self.text, self.profile, self.vector)
        except EncoderUnavailable as error:
            self.error = error
            return
        self.results = scored(self.searcher, self.reading, self.candidates, self.start)


def scored(
    searcher: Searcher, reading: Reading, candidates: Sequence[RescoreCandidate], start: int = 0
) -> list[RescoreResult]:
    """One result a candidate, numbered from `start`."""
    rows = [None if one.id is None else searcher.catalog.row(one.id) for one in candidates]
    held = np.array([row for row in rows if row is not None], dtype=np.int32)
    found = features.of_rows(held, searcher.words, reading.words, searcher.vectors, reading.vector)
    known = iter(_probabilities(found, reading))
    texts = iter(_of_texts(searcher, reading, [one.text or "" for one in candidates if one.id is None]))
    results = []
    for index, (one, row) in enumerate(zip(candidates, rows, strict=True), start):
        if one.id is None:
            score, error = next(texts)
            missing = searcher.catalog.schema.text_roles_beyond_title() if error is None else ()
            results.append(RescoreResult(index, score=score, error=error, missing_fields=missing))
        elif row is None:
            results.append(RescoreResult(index, error="unknown product"))
        else:
            results.append(RescoreResult(index, score=next(known)))
    return results


def _of_texts(searcher: Searcher, reading: Reading, given: Sequence[str]) -> list[tuple[float | None, str | None]]:
    """(score, why there is none) of each text."""
    texts = [normalize_text(one) for one in given]
    vectors = _text_vectors(searcher, texts) if reading.vector is not None else {}
    told: list[tuple[float | None, str | None]] = []
    for text in texts:
        if not text:
            told.append((None, "empty text"))
        elif reading.vector is not None and text not in vectors:
            told.append((None, "encoder not available"))
        else:
            known = features.of_text(text, text, vectors.get(text), searcher.words, reading.words, reading.vector)
            told.append((_probabilities(known, reading)[0], None))
    return told


def _text_vectors(searcher: Searcher, texts: Sequence[str]) -> dict[str, Floats]:
    """Of those that the encoder could read; all in one run where that pays."""
    wanted = list(dict.fromkeys(text for text in texts if text))
    made: dict[str, Floats] = {}
    runs = [wanted] if wanted and searcher.encoder.batches else [[text] for text in wanted]
    for some in runs:
        try:
            made.update(zip(some, searcher.encoder.products(some), strict=True))
        except EncoderUnavailable:
            continue
    return made


def _probabilities(known: features.Features, reading: Reading) -> list[float]:
    raw = raw_scores(known, reading.profile)
    scores: list[float] = reading.profile.link.probability(raw, reading.clarity).tolist()
    return scores
