"""What a ranker answered: for every query its products, best first.

The order inside a query is by score, highest first, and equal scores by product id, ascending, which is the order the
service answers in. trec_eval breaks ties the other way round (id descending), so a run with ties, written and given to
it, can differ in the third decimal; write `Run.from_order` where that matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.relevance.judgements import Qrels

Ranking = tuple[tuple[str, float], ...]


class RunError(ValueError):
    """A run that cannot be used; read from a file, the message names the file and the line."""


class Run(Mapping[str, Ranking]):
    """Ranked (product id, score) pairs by query id. Read-only; ``name`` labels it in tables and in the TREC file."""

    def __init__(self, rankings: Mapping[str, Iterable[tuple[str, float]]], name: str = "run") -> None:
        """Sort each query's pairs by (score descending, product id ascending).

        Raises RunError on a score that is not finite and on a product given twice for one query.
        """
        self.name = name
        self._rankings = {query_id: _ranked(query_id, pairs) for query_id, pairs in rankings.items()}

    @classmethod
    def from_order(cls, orders: Mapping[str, Sequence[str]], name: str = "run") -> Run:
        """A run from product ids that are already in order; the scores are n, n - 1, …, 1."""
        scored = {
            q: [(product_id, float(len(ids) - i)) for i, product_id in enumerate(ids)] for q, ids in orders.items()
        }
        return cls(scored, name)

    def __getitem__(self, query_id: str) -> Ranking:
        return self._rankings[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rankings)

    def __len__(self) -> int:
        return len(self._rankings)

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {len(self)} queries)"

    def write_trec(self, path: str | Path) -> None:
        """Write ``query_id Q0 product_id rank score name`` lines, ranks from 1, scores in full.

        Raises RunError on an id or a name with white space, which the format cannot hold.
        """
        _check_trec_word("run name", self.name)
        with Path(path).open("w", encoding="utf-8", newline="\n") as file:
            for query_id, ranking in self.items():
                _check_trec_word("query id", query_id)
                for rank, (product_id, score) in enumerate(ranking, start=1):
                    _check_trec_word("product id", product_id)
                    file.write(f"{query_id} Q0 {product_id} {rank} {score!r} {self.name}\n")

    @classmethod
    def read_trec(cls, path: str | Path) -> Run:
        """Read a TREC run. As in trec_eval the score decides the order, and the rank column is not used.

        Raises RunError (file, line) on a malformed line, on a second run name and on a product given twice.
        """
        rankings: dict[str, dict[str, float]] = {}
        name = ""
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                query_id, product_id, score, line_name = _parse_trec(line, where)
                if name and line_name != name:
                    raise RunError(f"{where}: run {line_name!r} in a file of run {name!r}")
                name = line_name
                ranking = rankings.setdefault(query_id, {})
                if product_id in ranking:
                    raise RunError(f"{where}: product {product_id!r} is ranked twice for query {query_id!r}")
                ranking[product_id] = score
        return cls({query_id: ranking.items() for query_id, ranking in rankings.items()}, name or "run")


def random_order(qrels: Qrels, product_ids: Sequence[str] | None = None, *, seed: int = 0, depth: int = 1000) -> Run:
    """The floor every ranker must beat: products in a random order, named as such.

    Without ``product_ids`` each query's own judged products are shuffled, which is far from 0 (most judged products are
    relevant); with the ids of the whole catalogue, the first ``depth`` of a shuffle of it.
    """
    rng = np.random.default_rng(seed)
    orders: dict[str, list[str]] = {}
    for query_id in sorted(qrels):
        pool = sorted(qrels[query_id]) if product_ids is None else product_ids
        drawn = rng.choice(len(pool), size=min(depth, len(pool)), replace=False)
        orders[query_id] = [pool[i] for i in drawn]
    return Run.from_order(orders, "random-order-judged" if product_ids is None else "random-order-catalogue")


def _ranked(query_id: str, pairs: Iterable[tuple[str, float]]) -> Ranking:
    ranking = sorted(((product_id, float(score)) for product_id, score in pairs), key=lambda pair: (-pair[1], pair[0]))
    if not all(math.isfinite(score) for _, score in ranking):
        raise RunError(f"query {query_id!r} has a score that is not finite")
    if len({product_id for product_id, _ in ranking}) != len(ranking):
        raise RunError(f"query {query_id!r} ranks a product twice")
    return tuple(ranking)


def _parse_trec(line: str, where: str) -> tuple[str, str, float, str]:
    fields = line.split()
    if len(fields) != 6:
        raise RunError(f"{where}: expected 'query_id Q0 product_id rank score name', found {len(fields)} field(s)")
    query_id, _, product_id, _, score, name = fields
    try:
        value = float(score)
    except ValueError:
        raise RunError(f"{where}: score {score!r} is not a number") from None
    if not math.isfinite(value):
        raise RunError(f"{where}: score {score!r} is not finite")
    return query_id, product_id, value, name


def _check_trec_word(what: str, word: str) -> None:
    if word.split() != [word]:
        raise RunError(f"{what} {word!r} is empty or holds white space, which a TREC run cannot hold")
