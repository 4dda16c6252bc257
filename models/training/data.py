"""What an encoder learns from: a catalogue's texts, pairs of a query and a product, and batches of pairs.

Pairs come from judgements (a query and a product graded relevant) and from the catalogue itself (a span of a title, or
the prose without its title, and the product). Every draw is made from (seed, purpose, number), never from what was
drawn before, so a resumed run sees the batches that an uninterrupted one sees. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app.index.analysis import normalize_text
from app.index.product_text import dense_texts
from app.index.schema import Schema
from app.types import Product
from models.training.augment import drop_words, head_phrase, shuffle_fields, title_span, typo

Rows = npt.NDArray[np.int64]

_PAIRS, _ORDER, _TEXT, _HELD_OUT = range(4)  # purposes of random draws
_PROSE_WORDS = 24


@dataclass(frozen=True)
class Corpus:
    """A catalogue as the encoder reads it: ids and, in the same order, titles and whole texts (normalised)."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    wholes: tuple[str, ...]

    @classmethod
    def of(cls, products: Iterable[Product], schema: Schema) -> Corpus:
        """The very texts that a build embeds."""
        ordered = sorted(products, key=lambda product: product.id)
        texts = [dense_texts(product, schema) for product in ordered]
        return cls(
            tuple(product.id for product in ordered), tuple(t for t, _ in texts), tuple(whole for _, whole in texts)
        )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row by product id."""
        return {product_id: row for row, product_id in enumerate(self.ids)}

    def prose(self, row: int) -> str:
        """The whole text without its title; empty where there is no more."""
        return self.wholes[row].removeprefix(self.titles[row]).strip()


@dataclass(frozen=True, slots=True)
class Pair:
    """A query text and the row of a product that answers it; `grade` counts where a loss is graded."""

    query: str
    row: int
    grade: float = 1.0


@dataclass(frozen=True)
class Sources:
    """How many pairs an epoch takes: copies of each judged pair; title spans, head phrases, prose spans a product."""

    judged: int = 1
    spans: int = 1
    heads: int = 0
    prose: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError where there would be nothing to learn from."""
        counts = (self.judged, self.spans, self.heads, self.prose)
        if min(counts) < 0 or not sum(counts):
            raise ValueError("pairs: judged, spans, heads and prose must not be negative, and not all 0")


@dataclass(frozen=True)
class Noise:
    """Shares of queries with a typo and of words dropped, and of product texts that are a title alone; `shuffle` puts
    the sentences of the prose in a random order in that share of the others."""

    typos: float = 0.0
    drops: float = 0.0
    title_only: float = 0.5
    shuffle: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError on a share outside [0, 1]."""
        if not all(0.0 <= share <= 1.0 for share in (self.typos, self.drops, self.title_only, self.shuffle)):
            raise ValueError("noise: every share lies between 0 and 1")


def judged_pairs(
    queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, float]], corpus: Corpus, relevant_at: float
) -> list[Pair]:
    """Pairs graded `relevant_at` or better whose product the corpus holds, in the order of the queries."""
    found = []
    for query_id, text in queries.items():
        query = normalize_text(text)
        for product_id, grade in sorted(qrels.get(query_id, {}).items()):
            row = corpus.rows.get(product_id)
            if row is not None and grade >= relevant_at and query:
                found.append(Pair(query, row, grade))
    return found


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(to learn from, held out), split by query text: no held-out query is learnt from."""
    queries = sorted({pair.query for pair in pairs})
    drawn = np.random.default_rng((seed, _HELD_OUT)).permutation(len(queries))[: round(share * len(queries))]
    held = {queries[at] for at in drawn}
    return [pair for pair in pairs if pair.query not in held], [pair for pair in pairs if pair.query in held]


def epoch_pairs(corpus: Corpus, judged: Sequence[Pair], sources: Sources, seed: int, epoch: int) -> list[Pair]:
    """One epoch's pairs in a random order; spans are drawn anew in every epoch."""
    random = np.random.default_rng((seed, _PAIRS, epoch))
    pairs = list(judged) * sources.judged
    for row, title in enumerate(corpus.titles):
        pairs += [Pair(span, row) for _ in range(sources.spans) if (span := title_span(title, random))]
        pairs += [Pair(head, row) for _ in range(sources.heads) if (head := head_phrase(title, random))]
        words = corpus.prose(row).split() if sources.prose else []
        for _ in range(sources.prose if words else 0):
            start = int(random.integers(0, max(1, len(words) - _PROSE_WORDS + 1)))
            pairs.append(Pair(" ".join(words[start : start + _PROSE_WORDS]), row))
    order = np.random.default_rng((seed, _ORDER, epoch)).permutation(len(pairs))
    return [pairs[at] for at in order]


def batch_texts(
    pairs: Sequence[Pair], corpus: Corpus, noise: Noise, seed: int, step: int
) -> tuple[list[str], list[str]]:
    """(queries, product texts) of one step, noise applied. A product is its title or its whole text by turns, for its
    stored vector is the mean of both."""
    random = np.random.default_rng((seed, _TEXT, step))
    queries, products = [], []
    for pair in pairs:
        query = pair.query
        if noise.drops and random.random() < noise.drops:
            query = drop_words(query, 0.2, random)
        if noise.typos and random.random() < noise.typos:
            query = typo(query, random)
        queries.append(query)
        title, whole = corpus.titles[pair.row], corpus.wholes[pair.row]
        if random.random() < noise.title_only:
            products.append(title)
        elif noise.shuffle and random.random() < noise.shuffle:
            products.append(shuffle_fields(title, corpus.prose(pair.row).split(". "), random))
        else:
            products.append(whole)
    return queries, products


def same_products(
    pairs: Sequence[Pair], judged: Mapping[str, frozenset[int]], titles: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """[n, n]: whether product j answers query i as far as is known, because it is the same product, has the same
    title, or is judged so. The diagonal is true; elsewhere such a product is a false negative."""
    rows = np.array([pair.row for pair in pairs])
    names = np.unique(np.array([titles[row] for row in rows]), return_inverse=True)[1]
    queries = np.unique(np.array([pair.query for pair in pairs]), return_inverse=True)[1]
    known: npt.NDArray[np.bool_] = (rows[:, None] == rows) | (names[:, None] == names) | (queries[:, None] == queries)
    for at, pair in enumerate(pairs):
        answers = judged.get(pair.query)
        if answers:
            known[at] |= np.isin(rows, list(answers))
    return known
