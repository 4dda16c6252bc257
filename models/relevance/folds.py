"""Folds by query, and figures in which no query was scored by a model that had seen it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Model = TypeVar("Model")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Fold:
    """One part's queries to test on, and all the others to fit on; both sorted by id."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def query_folds(queries: Mapping[str, str] | Iterable[str], k: int = 5, seed: int = 0) -> tuple[Fold, ...]:
    """Split queries into k folds of equal size (± 1), the same on every machine and in every order of input.

    Given texts (query id → text), queries whose texts differ only in case and spacing share a fold, since a model that
    saw one saw the other; sizes can then differ by the size of such a group. Given ids alone, the ids are hashed.
    Raises ValueError if k is below 2, if an id is given twice, or if there are fewer than k distinct queries.
    """
    keys = _keys(queries)
    groups: dict[str, list[str]] = {}
    for query_id, key in keys.items():
        groups.setdefault(key, []).append(query_id)
    if not 2 <= k <= len(groups):
        raise ValueError(f"cannot split {len(groups)} distinct queries into {k} folds")
    parts: list[list[str]] = [[] for _ in range(k)]
    for key in sorted(groups, key=lambda text: _hash(text, seed)):
        min(parts, key=len).extend(groups[key])  # the first of the smallest: round robin where every group is one query
    everything = sorted(keys)
    return tuple(Fold(tuple(q for q in everything if q not in part), tuple(sorted(part))) for part in map(set, parts))


def out_of_fold(
    fit: Callable[[tuple[str, ...]], Model],
    apply: Callable[[Model, tuple[str, ...]], Mapping[str, Value]],
    folds: Sequence[Fold],
) -> dict[str, Value]:
    """Values by query, each from a model that never saw it: fit on every fold's train, apply to its test queries.

    ``fit(train_ids)`` makes the model, with everything that is chosen from judgements inside it (fusion weights, early
    stopping, calibration); ``apply(model, test_ids)`` returns one value per test query. Raises ValueError if a fold
    tests on what it trains on, if ``apply`` answers for other queries than it was asked, or if a query is tested twice.
    """
    values: dict[str, Value] = {}
    for fold in folds:
        if set(fold.train) & set(fold.test):
            raise ValueError("a fold tests on queries that it trains on")
        answered = apply(fit(fold.train), fold.test)
        if set(answered) != set(fold.test):
            raise ValueError("apply must answer for exactly the fold's test queries")
        if values.keys() & answered.keys():
            raise ValueError("a query is tested in two folds")
        values.update(answered)
    return values


def _keys(queries: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    """Query id → what decides its fold."""
    if isinstance(queries, Mapping):
        return {query_id: " ".join(text.casefold().split()) for query_id, text in queries.items()}
    ids = list(queries)
    if len(set(ids)) != len(ids):
        raise ValueError("a query id is given twice")
    return {query_id: query_id for query_id in ids}


def _hash(text: str, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}\t{text}".encode()).digest(), text
