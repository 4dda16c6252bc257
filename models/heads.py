"""Scoring heads over a query's and a product's vector: what turns two embeddings into one relevance.

    python -m models.heads --bundles DIR --queries Q.tsv --qrels J.tsv

compares them on judged pairs, out-of-fold by query. The additive head σ(W·q + V·c + b) is here because it is often
proposed: its W·q is the same for every product of a query, so the order of products does not depend on the query.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.errors import AisleError, NotFound
from app.index.bundle import BundleStore
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from app.types import Floats, SearchRequest
from models.relevance import (
    Comparison,
    Evaluation,
    Gain,
    Qrels,
    Queries,
    Run,
    compare_all,
    comparison_table,
    evaluate,
    evaluation_table,
    query_folds,
)
from models.training.losses import cosent, weighted_bce

Ints = npt.NDArray[np.int64]
METRIC = "ndcg@10"
_STEPS = 100
_QUERIES_A_STEP = 8


class Cosine(nn.Module):
    """The cosine, scaled and shifted to a logit; the order is the cosine's."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(-4.0))

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """[n, d] twice → logits [n]."""
        return functional.cosine_similarity(q, c) * self.scale.exp().log1p() + self.shift


class Dot(nn.Module):
    """The dot product, scaled and shifted to a logit. A product's length counts: a stored vector, the mean of two unit
    vectors, is the longer the more its title and its text agree."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(-4.0))

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """[n, d] twice → logits [n]."""
        return (q * c).sum(dim=1) * self.scale.exp().log1p() + self.shift


class Additive(nn.Module):
    """W·q + V·c + b, the logit of σ(W·q + V·c + b). Query-blind: see the module's docstring."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, 1)
        self.product = nn.Linear(dimension, 1, bias=False)

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """[n, d] twice → logits [n]."""
        return cast(Tensor, (self.query(q) + self.product(c)).squeeze(1))


class Interaction(nn.Module):
    """a·(q·c) + w·(q⊙c) + u·|q - c| + (Aq)·(Bc) + b: a weighted dot product, a weighted distance and a bilinear form of
    low rank. It begins as the dot product, so that few judgements can only correct it."""

    def __init__(self, dimension: int, rank: int = 8) -> None:
        super().__init__()
        self.dot = Dot(dimension)
        self.product = nn.Linear(dimension, 1, bias=False)
        self.distance = nn.Linear(dimension, 1, bias=False)
        self.left, self.right = nn.Linear(dimension, rank, bias=False), nn.Linear(dimension, rank, bias=False)
        for layer in (self.product, self.distance, self.right):
            nn.init.zeros_(layer.weight)

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """[n, d] twice → logits [n]."""
        linear = self.product(q * c) + self.distance((q - c).abs())
        bilinear = (self.left(q) * self.right(c)).sum(dim=1)
        return cast(Tensor, self.dot(q, c) + linear.squeeze(1) + bilinear)


HEADS: dict[str, type[nn.Module]] = {"additive": Additive, "dot": Dot, "cosine": Cosine, "interaction": Interaction}


@dataclass(frozen=True)
class JudgedPairs:
    """Judged pairs as vectors [n, d], with their grades [n] and the ids of their queries and products."""

    queries: Floats
    products: Floats
    grades: npt.NDArray[np.float64]
    query_ids: tuple[str, ...]
    product_ids: tuple[str, ...]

    @classmethod
    def of(cls, searcher: Searcher, queries: Queries, qrels: Qrels) -> JudgedPairs:
        """Every judged pair whose product the version holds, under the version's own encoder and stored vectors."""
        q, c, grades, query_ids, product_ids = [], [], [], [], []
        for query_id, text in queries.items():
            vector = searcher.encoder.queries([searcher.query(SearchRequest(text)).text or ""])[0]
            for product_id, grade in sorted(qrels.get(query_id, {}).items()):
                row = searcher.catalog.row(product_id)
                if row is not None:
                    q.append(vector)
                    c.append(searcher.vectors.vector(row))
                    grades.append(grade)
                    query_ids.append(query_id)
                    product_ids.append(product_id)
        if not q:
            raise ValueError("none of the judged products is in this version")
        return cls(np.stack(q), np.stack(c), np.array(grades), tuple(query_ids), tuple(product_ids))


def fit(
    head: nn.Module,
    pairs: JudgedPairs,
    rows: Ints,
    gain: Gain,
    *,
    steps: int = _STEPS,
    rate: float = 0.01,
    seed: int = 0,
) -> None:
    """Fit a head to the pairs at `rows`: cross-entropy of relevance with both classes weighing the same, and CoSENT
    over the grades of each query; every step takes a few queries with all their pairs."""
    random = np.random.default_rng(seed)
    groups = np.unique([pairs.query_ids[row] for row in rows], return_inverse=True)[1]
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.1)
    for _ in range(steps):
        drawn = np.isin(groups, random.permutation(groups.max() + 1)[:_QUERIES_A_STEP])
        some = rows[drawn]
        grades = torch.from_numpy(pairs.grades[some]).float()
        logits = head(torch.from_numpy(pairs.queries[some]), torch.from_numpy(pairs.products[some]))
        loss = weighted_bce(logits, (grades >= gain.relevant_at).float())
        loss = loss + cosent(logits, grades, torch.from_numpy(groups[drawn]), temperature=1.0) / 10
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def compare(
    pairs: JudgedPairs, gain: Gain, *, names: Sequence[str] = tuple(HEADS), k: int = 5, seed: int = 0
) -> tuple[list[Evaluation], list[Comparison]]:
    """nDCG@10 of the named heads over each query's judged products, no query scored by a head that was fitted to it;
    and every other one against the first, paired."""
    rows_of: dict[str, list[int]] = {}
    for row, query_id in enumerate(pairs.query_ids):
        rows_of.setdefault(query_id, []).append(row)
    qrels = Qrels({q: {pairs.product_ids[r]: float(pairs.grades[r]) for r in rows} for q, rows in rows_of.items()})
    evaluations = []
    for name in names:
        scored: dict[str, list[tuple[str, float]]] = {}
        for fold in query_folds(list(rows_of), k, seed):
            torch.manual_seed(seed)
            head = HEADS[name](pairs.queries.shape[1])
            fit(head, pairs, np.array([row for query_id in fold.train for row in rows_of[query_id]]), gain)
            for query_id in fold.test:
                rows = rows_of[query_id]
                logits = scores(head, pairs.queries[rows], pairs.products[rows])
                scored[query_id] = [(pairs.product_ids[row], float(s)) for row, s in zip(rows, logits, strict=True)]
        evaluations.append(evaluate(qrels, Run(scored, name), (METRIC, "map"), gain=gain, judged_only=True))
    return evaluations, compare_all(evaluations[0], evaluations[1:], (METRIC,))


def scores(head: nn.Module, queries: Floats, products: Floats) -> Floats:
    """Logits [n] of pairs of vectors [n, d], without gradients."""
    with torch.no_grad():
        return np.asarray(head(torch.from_numpy(queries), torch.from_numpy(products)).numpy(), dtype=np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Command line: both tables."""
    parser = argparse.ArgumentParser(prog="python -m models.heads", description="scoring heads on judged pairs")
    parser.add_argument("--bundles", type=Path, required=True, help="folder of versions")
    parser.add_argument("--collection", default="default")
    parser.add_argument("--queries", type=Path, required=True, help="query_id<TAB>text")
    parser.add_argument("--qrels", type=Path, required=True, help="query_id<TAB>product_id<TAB>grade")
    parser.add_argument("--relevant-at", type=float, default=2.0)
    options = parser.parse_args(arguments)
    try:
        pairs = _pairs(options)
    except (AisleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    evaluations, comparisons = compare(pairs, Gain(relevant_at=options.relevant_at))
    print(f"{len(pairs.grades):,} judged pairs, out-of-fold by query, judged products only\n")
    print(evaluation_table(evaluations).text())
    print(comparison_table(comparisons).text())
    return 0


def _pairs(options: argparse.Namespace) -> JudgedPairs:
    store = BundleStore(options.bundles, options.collection)
    version = store.current()
    if version is None:
        raise NotFound(f"nothing is published in {options.bundles}")
    searcher = load(store, version, Encoders("cpu")).searcher
    return JudgedPairs.of(searcher, Queries.load(options.queries), Qrels.load(options.qrels, "max"))


if __name__ == "__main__":
    sys.exit(main())
