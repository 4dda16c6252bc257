"""Query texts for a load that asks no question twice."""

from __future__ import annotations

from collections.abc import Iterator

from app.index.analysis import normalize_text
from tests.bench.bench_search import texts


def distinct_texts() -> Iterator[str]:
    """Some 380,000 texts, no two alike once normalised: the shipped queries, then the front half of each before the
    back half of every other, then the halves exchanged.

    A search for such a text has nothing to find, but costs what a search costs: each pass over the queries uses every
    half once, so words, and all but exactly tokens (7.4 a text on average against 7.2), are those of the shipped
    queries. Other orders of a query's own words would run out at once for the short ones, and leave the long."""
    halves = [_halves(text.split()) for text in texts(1)]
    seen: set[str] = set()
    for exchanged in (False, True):
        for apart in range(len(halves)):
            for at, (front, _) in enumerate(halves):
                back = halves[(at + apart) % len(halves)][1]
                text = normalize_text(" ".join([*back, *front] if exchanged else [*front, *back]))
                if text not in seen:
                    seen.add(text)
                    yield text


def _halves(words: list[str]) -> tuple[list[str], list[str]]:
    middle = (len(words) + 1) // 2
    return words[:middle], words[middle:]
