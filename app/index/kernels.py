"""Compiled kernels of BM25: the impact of a posting, the score of a pair, the best rows of a query.

Every score is summed in float32, group by group in the query's order, so `best`, `pair_scores` and `text_scores` give
the same bits for the same pair. No kernel is compiled with fast-math, which would let the order of a sum change.
All kernels allocate what they need themselves, so any number of threads may run them at once.

They share one file because numba keeps compiled code by the file it was called from: a change to `impact` in another
file would leave its callers here as they were.

Arrays of an index: `starts` int64 [terms + 1]; `rows` int32 [postings], ascending within a term; `impacts` float32
[postings, 2] (title, all); `idf` and `peaks` float32 [terms, 2]. Arrays of a query: `groups` int32 (ascending),
`terms` int32, `weights` float32, all of one length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

# Scratch for one window of rows is 64 KB of sums: it stays in the second-level cache however large the catalogue is.
WINDOW = 8192


def compiled(function: F, *, fastmath: bool = False, nogil: bool = True) -> F:
    """`njit`, kept on disk; where no folder is writable for the cache, compiled in memory instead. `nogil` is for what
    takes long: who lets go of the interpreter for some ten microseconds hands it to another thread, and each such
    hand-over leaves it idle for longer than that."""
    options: dict[str, Any] = {"nogil": nogil, "error_model": "numpy", "fastmath": fastmath}
    try:
        return cast(F, njit(**options, cache=True)(function))
    except RuntimeError:  # numba's "no locator available"
        return cast(F, njit(**options)(function))


@compiled
def impact(idf: float, count: float, length: float, average: float, k1: float, b: float) -> np.float32:
    """BM25 of one term in one field: computed in float64, rounded once to float32. Zero where the term is absent."""
    if count == 0.0:
        return np.float32(0.0)
    norm = k1 * (1.0 - b + b * length / average)
    return np.float32(idf * count * (k1 + 1.0) / (count + norm))


@compiled
def weigh(
    starts: Array, rows: Array, counts: Array, title_ends: Array, text_ends: Array, idf: Array, statistics: Array
) -> Array:
    """Turn counts into impacts in place; gives the largest impact of each term, float32 [terms, 2].

    `statistics` float64 [2, 3]: average length, k1, b of each field.
    """
    peaks = np.zeros((len(starts) - 1, 2), np.float32)
    for term in range(len(starts) - 1):
        for at in range(starts[term], starts[term + 1]):
            row = rows[at]
            for field in range(2):
                ends = title_ends if field == 0 else text_ends
                average, k1, b = statistics[field]
                value = impact(idf[term, field], counts[at, field], ends[row + 1] - ends[row], average, k1, b)
                counts[at, field] = value
                peaks[term, field] = max(peaks[term, field], value)
    return peaks


@compiled
def combine(groups: Array, weights: Array, impacts: Array) -> tuple[float, float]:
    """Sum over groups of the maximum over a group's terms of weight × impact; `impacts` float32 [terms, 2]."""
    title = np.float32(0.0)
    text = np.float32(0.0)
    at = 0
    while at < len(groups):
        group = groups[at]
        best_title = np.float32(0.0)
        best_text = np.float32(0.0)
        while at < len(groups) and groups[at] == group:
            best_title = max(best_title, weights[at] * impacts[at, 0])
            best_text = max(best_text, weights[at] * impacts[at, 1])
            at += 1
        title += best_title
        text += best_text
    return float(title), float(text)  # exact: a float64 holds every float32


@compiled
def bounds(groups: Array, terms: Array, weights: Array, peaks: Array) -> tuple[float, float]:
    """The most that any product of the version could score, title and all."""
    impacts = np.empty((len(terms), 2), np.float32)
    for at in range(len(terms)):
        impacts[at, 0] = peaks[terms[at], 0]
        impacts[at, 1] = peaks[terms[at], 1]
    return combine(groups, weights, impacts)


@compiled
def share(score: float, bound: float) -> np.float32:
    """A score as a share of its bound, in float32; 0 where the bound is 0, 1 where a text from outside exceeds it."""
    if bound <= 0.0:
        return np.float32(0.0)
    return min(np.float32(score) / np.float32(bound), np.float32(1.0))


@partial(compiled, nogil=False)
def text_scores(
    groups: Array,
    terms: Array,
    weights: Array,
    title_bound: float,
    text_bound: float,
    counts: Array,
    lengths: Array,
    idf: Array,
    statistics: Array,
) -> tuple[float, float]:
    """Shares of the bound for a text outside the index. `counts` float32 [terms, 2]: how often each query term occurs
    in the title and in all text; `lengths` float64 [2]; `statistics` as in `weigh`."""
    impacts = np.empty((len(terms), 2), np.float32)
    for at in range(len(terms)):
        for field in range(2):
            average, k1, b = statistics[field]
            impacts[at, field] = impact(idf[terms[at], field], counts[at, field], lengths[field], average, k1, b)
    title, text = combine(groups, weights, impacts)
    return float(share(title, title_bound)), float(share(text, text_bound))


@compiled
def seek(rows: Array, low: int, high: int, row: int) -> int:
    """First position in rows[low:high] whose row is not below `row`: doubling steps, then halving."""
    step = 1
    at = low
    while at < high and rows[at] < row:
        low = at + 1
        at += step
        step *= 2
    high = min(at, high)
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


@partial(compiled, nogil=False)
def pair_scores(
    starts: Array,
    rows: Array,
    impacts: Array,
    groups: Array,
    terms: Array,
    weights: Array,
    title_bound: float,
    text_bound: float,
    wanted: Array,
) -> Array:
    """Shares of the bound for any rows, in their order: float32 [rows, 2]. Each term's postings are walked once."""
    count = len(wanted)
    ascending = True
    for at in range(1, count):
        if wanted[at] < wanted[at - 1]:
            ascending = False
            break
    order = np.arange(count) if ascending else np.argsort(wanted)
    totals = np.zeros((count, 2), np.float32)
    best = np.zeros((count, 2), np.float32)
    for at in range(len(terms)):
        position = starts[terms[at]]
        end = starts[terms[at] + 1]
        weight = weights[at]
        for place in order:
            position = seek(rows, position, end, wanted[place])
            if position == end:
                break
            if rows[position] == wanted[place]:
                best[place, 0] = max(best[place, 0], weight * impacts[position, 0])
                best[place, 1] = max(best[place, 1], weight * impacts[position, 1])
        if at + 1 == len(terms) or groups[at + 1] != groups[at]:
            for place in range(count):
                totals[place, 0] += best[place, 0]
                totals[place, 1] += best[place, 1]
                best[place, 0] = np.float32(0.0)
                best[place, 1] = np.float32(0.0)
    for place in range(count):
        totals[place, 0] = share(totals[place, 0], title_bound)
        totals[place, 1] = share(totals[place, 1], text_bound)
    return totals


@partial(compiled, nogil=False)
def held(starts: Array, rows: Array, impacts: Array, terms: Array, wanted: Array) -> Array:
    """Where any rows have each term, int8 [rows, terms]: 2 in the title, 1 in the rest of the text alone, 0 nowhere."""
    places = np.zeros((len(wanted), len(terms)), np.int8)
    for at in range(len(terms)):
        start = starts[terms[at]]
        end = starts[terms[at] + 1]
        for place in range(len(wanted)):
            position = seek(rows, start, end, wanted[place])
            if position < end and rows[position] == wanted[place]:
                places[place, at] = 2 if impacts[position, 0] > 0.0 else 1
    return places


@compiled
def ahead(score: float, row: int, other_score: float, other_row: int) -> bool:
    """The order of hits: higher score first, equal scores by lower row."""
    return score > other_score or (score == other_score and row < other_row)


@compiled
def sink(scores: Array, rows: Array, at: int, size: int) -> None:
    """Restore the heap below `at`; its root is the hit that the order puts last."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and ahead(scores[child], rows[child], scores[child + 1], rows[child + 1]):
            child += 1
        if not ahead(scores[at], rows[at], scores[child], rows[child]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        rows[at], rows[child] = rows[child], rows[at]
        at = child


@compiled
def keep(scores: Array, rows: Array, held: int, score: float, row: int) -> int:
    """Add a hit to a heap of the best, in place of its root when it is full; gives how many are held now."""
    if held == len(rows):
        scores[0] = score
        rows[0] = row
        sink(scores, rows, 0, held)
        return held
    at = held
    while at > 0 and ahead(scores[(at - 1) // 2], rows[(at - 1) // 2], score, row):
        scores[at] = scores[(at - 1) // 2]
        rows[at] = rows[(at - 1) // 2]
        at = (at - 1) // 2
    scores[at] = score
    rows[at] = row
    return held + 1


@compiled
def add_postings(
    rows: Array, impacts: Array, at: int, end: int, weight: float, base: int, sums: Array, touched: Array, count: int
) -> tuple[int, int]:
    """Add one term's postings in the window that begins at row `base`; gives the next posting and the rows touched."""
    limit = base + WINDOW
    while at < end and rows[at] < limit:
        slot = rows[at] - base
        if sums[slot, 0] == 0.0 and sums[slot, 1] == 0.0:
            touched[count] = slot
            count += 1
        sums[slot, 0] += weight * impacts[at, 0]
        sums[slot, 1] += weight * impacts[at, 1]
        at += 1
    return at, count


@compiled
def raise_postings(
    rows: Array, impacts: Array, at: int, end: int, weight: float, base: int, best: Array, touched: Array, count: int
) -> tuple[int, int]:
    """As `add_postings`, but keeping the maximum: for the terms of one group."""
    limit = base + WINDOW
    while at < end and rows[at] < limit:
        slot = rows[at] - base
        if best[slot, 0] == 0.0 and best[slot, 1] == 0.0:
            touched[count] = slot
            count += 1
        best[slot, 0] = max(best[slot, 0], weight * impacts[at, 0])
        best[slot, 1] = max(best[slot, 1], weight * impacts[at, 1])
        at += 1
    return at, count


@compiled
def merge_group(best: Array, raised: Array, raised_count: int, sums: Array, touched: Array, count: int) -> int:
    """Add a group's maxima to the sums and clear them; gives the rows touched so far."""
    for at in range(raised_count):
        slot = raised[at]
        if sums[slot, 0] == 0.0 and sums[slot, 1] == 0.0:
            touched[count] = slot
            count += 1
        for field in range(2):
            sums[slot, field] += best[slot, field]
            best[slot, field] = np.float32(0.0)
    return count


@compiled
def next_row(rows: Array, cursor: Array, ends: Array) -> int:
    """The lowest row that any term has still to give; -1 when all are done."""
    lowest = -1
    for at in range(len(cursor)):
        if cursor[at] < ends[at] and (lowest < 0 or rows[cursor[at]] < lowest):
            lowest = rows[cursor[at]]
    return lowest


@compiled
def best(
    starts: Array,
    rows: Array,
    impacts: Array,
    groups: Array,
    terms: Array,
    weights: Array,
    title_bound: float,
    text_bound: float,
    depth: int,
    allowed: Array,
) -> tuple[Array, Array, int]:
    """The `depth` best rows with their combined scores, best first, and how many allowed rows match at all.

    `allowed` bool [products], or empty where every row is. Rows are taken window by window, so that the sums stay in
    the processor's cache; a heap keeps the best, so the cost is that of the postings plus a comparison a match.
    """
    cursor = starts[terms]
    ends = starts[terms + 1]
    sums = np.zeros((WINDOW, 2), np.float32)
    touched = np.empty(WINDOW, np.int32)
    grouped = len(groups) > 0 and len(np.unique(groups)) < len(groups)
    maxima = np.zeros((WINDOW if grouped else 0, 2), np.float32)
    raised = np.empty(WINDOW if grouped else 0, np.int32)
    scores = np.empty(depth, np.float32)
    found = np.empty(depth, np.int32)
    held = 0
    matched = 0
    base = next_row(rows, cursor, ends)
    while base >= 0:
        count = 0
        raised_count = 0
        for at in range(len(terms)):
            last = at + 1 == len(terms) or groups[at + 1] != groups[at]
            alone = last and (at == 0 or groups[at - 1] != groups[at])
            if alone:
                cursor[at], count = add_postings(
                    rows, impacts, cursor[at], ends[at], weights[at], base, sums, touched, count
                )
                continue
            cursor[at], raised_count = raise_postings(
                rows, impacts, cursor[at], ends[at], weights[at], base, maxima, raised, raised_count
            )
            if last:
                count = merge_group(maxima, raised, raised_count, sums, touched, count)
                raised_count = 0
        for at in range(count):
            slot = touched[at]
            row = base + slot
            if len(allowed) == 0 or allowed[row]:
                matched += 1
                title = share(sums[slot, 0], title_bound)
                text = share(sums[slot, 1], text_bound)
                score = float((title + text) * np.float32(0.5))
                if held < depth or (depth > 0 and ahead(score, row, scores[0], found[0])):
                    held = keep(scores, found, held, score, row)
            sums[slot, 0] = np.float32(0.0)
            sums[slot, 1] = np.float32(0.0)
        base = next_row(rows, cursor, ends)
    for size in range(held - 1, 0, -1):
        scores[0], scores[size] = scores[size], scores[0]
        found[0], found[size] = found[size], found[0]
        sink(scores, found, 0, size)
    return found[:held], scores[:held], matched
