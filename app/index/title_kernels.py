"""The compiled kernel of the title features: one walk over the terms of each title."""

from __future__ import annotations

from functools import partial

import numpy as np

from app.index.kernels import Array, compiled


@compiled
def _any(values: Array, wanted: int) -> bool:
    for value in values:  # noqa: SIM110  (numba compiles no generators)
        if value == wanted:
            return True
    return False


@compiled
def _marked(terms: Array) -> np.uint64:
    """A bit for each term, of 64; what has none of them is none of the terms."""
    marks = np.uint64(0)
    for term in terms:
        marks |= np.uint64(1) << np.uint64(term & 63)
    return marks


@compiled
def _excluded(titles: Array, start: int, end: int, denied: Array) -> float:
    """Share of the words that must be absent which a title has without saying that it lacks them."""
    held = 0
    for at in range(len(denied)):
        title = titles[start:end]
        if _any(title, denied[at, 0]) and not (denied[at, 1] >= 0 and _any(title, denied[at, 1])):
            held += 1
    return held / len(denied) if len(denied) else 0.0


@partial(compiled, nogil=False)
def features(
    titles: Array,
    ends: Array,
    rows: Array,
    separators: Array,
    terms: Array,
    places: Array,
    idf: Array,
    head: int,
    numbers: Array,
    denied: Array,
) -> Array:
    """float32 [rows, 6]: coverage, complete, phrase, head, numbers, excluded; see app/index/titles.py."""
    count = len(idf)
    result = np.zeros((len(rows), 6), np.float32)
    total = 0.0
    asked = 0
    for place in range(count):
        total += idf[place]
        asked += numbers[place]
    ends_head = _marked(separators)
    wanted = _marked(terms)
    held = np.zeros(count, np.bool_)
    beside = np.zeros(count, np.bool_)
    for i in range(len(rows)):
        start = ends[rows[i]]
        end = ends[rows[i] + 1]
        held[:] = False
        beside[:] = False
        main = True
        named = 0.0
        for at in range(start, end):
            term = titles[at]
            mark = np.uint64(1) << np.uint64(term & 63)
            if main and at > start and mark & ends_head and _any(separators, term):
                main = False
            if not mark & wanted:  # so it is with most words of a title
                continue
            for one in range(len(terms)):
                if terms[one] != term:
                    continue
                place = places[one]
                held[place] = True
                if main and place == head:
                    named = 1.0
                if at + 1 < end and place + 1 < count:
                    for other in range(len(terms)):
                        if places[other] == place + 1 and terms[other] == titles[at + 1]:
                            beside[place] = True
        covered = 0.0
        complete = 1.0 if count else 0.0
        pairs = 0
        digits = 0
        for place in range(count):
            if held[place]:
                covered += idf[place]
                digits += numbers[place]
            elif idf[place] > 0.0:
                complete = 0.0
            pairs += beside[place]
        share = covered / total if total > 0.0 else 0.0
        result[i, 0] = share
        result[i, 1] = complete
        result[i, 2] = pairs / (count - 1) if count > 1 else share
        result[i, 3] = named
        result[i, 4] = digits / asked if asked else 0.0
        result[i, 5] = _excluded(titles, start, end, denied)
    return result
