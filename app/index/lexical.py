"""BM25 over two fields, the title and all text, with statistics frozen when the version is built.

A score depends on the query, the product and the version alone (Robertson and Zaragoza 2009, with the idf of Lucene:
ln(1 + (N − n + ½)/(n + ½))). Each posting holds its finished impact for both fields as float32, so a query adds up
stored numbers. A *group* of query terms counts once, by its best term: a word, its synonyms, its completions.

Files, written and read here alone: `lexical.json` (parameters, statistics, counts), `lexical.vocabulary` (terms, UTF-8,
one a line, ascending), `lexical.{starts,rows,impacts,peaks,idf}.npy`, the titles (titles.py) and, where there are any,
`lexical.synonyms.json`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart
from app.index import kernels
from app.index.analysis import last_word, token_weight, tokens
from app.index.arrays import frozen, load_array, release, save_array
from app.index.chinese import MODIFIER
from app.index.negation import NOT
from app.index.postings import (
    Postings,
    Statistics,
    TokenizedField,
    collect,
    sound,
    tokenize,
    tokenize_new,
)
from app.index.spelling import Spelling
from app.index.synonyms import NO_SYNONYMS, Synonyms
from app.index.terms import Wanted, product_terms, query_terms
from app.index.titles import TitleQuery, Titles, separators_in, title_query
from app.index.vocabulary import Vocabulary
from app.types import Floats, Mask, Rows, record

FORMAT = 2
SYNONYMS = "lexical.synonyms.json"
EXPANSIONS = 64
PREFIX_WEIGHT = 0.8
SYNONYM_WEIGHT = 0.9
MODIFIER_WEIGHT = 0.7
KINDS = EXACT, SYNONYM, MODIFIER_OF, PREFIX = "exact", "synonym", "modifier", "prefix"
"""Why a term satisfies a query's word: it is the word, or a synonym, or tells what a thing is for (in Chinese), or is
begun by it."""
_FIELD_STATISTICS = ("average", "k1", "b")
_EVERY_ROW = frozen(np.empty(0, np.bool_))


@dataclass(frozen=True, slots=True)
class LexicalParams:
    """BM25's k1 and b for each field; measured in docs/decisions/bm25-engine.md."""

    title_k1: float = 0.6
    title_b: float = 0.75
    all_k1: float = 1.2
    all_b: float = 0.75


Alternative = tuple[int, float, str]
"""A term that satisfies a query's word: its number, its weight, and which of KINDS it is."""


@record(eq=False)
class LexicalQuery:
    """A parsed query: terms of the version's vocabulary in groups, and the most that any product could score.

    groups: int32 [n], ascending; terms: int32 [n]; weights: float32 [n]; bound: (title, all), 0 where no product can
    match; words: the query's terms, known or not, marked where they must be absent, group g being that of words[g];
    kinds: of KINDS, why each of `terms` is there; title: what they ask of a title.
    """

    groups: npt.NDArray[np.int32]
    terms: npt.NDArray[np.int32]
    weights: Floats
    bound: tuple[float, float]
    words: tuple[str, ...]
    kinds: tuple[str, ...]
    title: TitleQuery


@record(eq=False)
class LexicalHits:
    """The best rows, score descending then row ascending, with combined scores in [0, 1]; `matched` allowed rows hold
    at least one of the query's terms."""

    rows: Rows
    scores: Floats
    matched: int


class LexicalIndex:
    """An immutable inverted index; any number of threads may search it at once."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        statistics: Statistics,
        postings: Postings,
        titles: Titles,
        spelling: Spelling | None = None,
        synonyms: Synonyms = NO_SYNONYMS,
    ) -> None:
        self._vocabulary = vocabulary
        self._statistics = statistics
        self._postings = postings
        self._titles = titles
        self.synonyms = synonyms
        self.spelling = spelling or Spelling(vocabulary, postings.starts)

    def __len__(self) -> int:
        return len(self._titles)

    @classmethod
    def build(
        cls,
        texts: Iterable[tuple[str, str]],
        params: LexicalParams | None = None,
        synonyms: Synonyms = NO_SYNONYMS,
    ) -> LexicalIndex:
        """Index (normalised title, normalised all text) of each product, in row order."""
        params = params or LexicalParams()
        vocabulary, title, text = tokenize_new(texts, synonyms)
        fields = np.array(
            [
                (title.average_length, params.title_k1, params.title_b),
                (text.average_length, params.all_k1, params.all_b),
            ]
        )
        postings, statistics = collect(title, text, len(vocabulary), frozen(fields), idf=None)
        titles = Titles(title, separators_in(vocabulary))
        return cls(vocabulary, statistics, postings, titles, synonyms=synonyms)

    def extend(self, texts: Iterable[tuple[str, str]]) -> LexicalIndex:
        """An index of further texts, rows from 0, under this version's vocabulary and statistics: one parsed query
        serves both, and the scores compare. A word that the version does not know lengthens its text and matches
        nothing."""
        vocabulary = self._vocabulary
        title, text = tokenize(texts, cache(vocabulary.number), self.synonyms)  # most terms of many texts are the same
        postings, _ = collect(title, text, len(vocabulary), self._statistics.fields, self._statistics.idf)
        titles = Titles(title, separators_in(vocabulary))
        return LexicalIndex(vocabulary, self._statistics, postings, titles, self.spelling, self.synonyms)

    def save(self, folder: Path) -> None:
        """Write the index's files into an existing folder."""
        description = {
            "format": FORMAT,
            "products": len(self),
            "terms": len(self._vocabulary),
            "postings": len(self._postings.rows),
            "fields": [dict(zip(_FIELD_STATISTICS, field, strict=True)) for field in self._statistics.fields.tolist()],
        }
        (folder / "lexical.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        self._vocabulary.save(folder / "lexical.vocabulary")
        if self.synonyms.rules:
            written = json.dumps(self.synonyms.to_json(), ensure_ascii=False)
            (folder / SYNONYMS).write_text(written, encoding="utf-8")
        arrays: dict[str, npt.NDArray[Any]] = {
            "starts": self._postings.starts,
            "rows": self._postings.rows,
            "impacts": self._postings.impacts,
            "idf": self._statistics.idf,
            "peaks": self._statistics.peaks,
        }
        for name, values in arrays.items():
            save_array(folder / f"lexical.{name}.npy", values)
        self._titles.save(folder)

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Map a saved index into memory. Reads every posting once to check it.

        Raises CorruptPart when a file is absent, unreadable, or does not fit the others.
        """
        try:
            return cls._load(folder)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptPart(f"lexical index: {error}") from error

    @classmethod
    def _load(cls, folder: Path) -> LexicalIndex:
        description = json.loads((folder / "lexical.json").read_bytes())
        if description["format"] != FORMAT:
            raise ValueError(
                f"another aisle made it (format {description['format']!r}, this one reads {FORMAT}): build it anew"
            )
        products, size, count = (int(description[name]) for name in ("products", "terms", "postings"))
        vocabulary = Vocabulary.load(folder / "lexical.vocabulary")
        if len(vocabulary) != size:
            raise ValueError(f"a vocabulary of {len(vocabulary)} terms, expected {size}")
        fields = np.array([[field[name] for name in _FIELD_STATISTICS] for field in description["fields"]], np.float64)
        if fields.shape != (2, 3) or not np.isfinite(fields).all() or (fields[:, 0] <= 0.0).any():
            raise ValueError("field statistics out of range")
        postings = Postings(
            frozen(load_array(folder / "lexical.starts.npy", np.int64, size + 1)),
            frozen(load_array(folder / "lexical.rows.npy", np.int32, count)),
            frozen(load_array(folder / "lexical.impacts.npy", np.float32, count, 2)),
        )
        idf = frozen(load_array(folder / "lexical.idf.npy", np.float32, size, 2))
        peaks = frozen(load_array(folder / "lexical.peaks.npy", np.float32, size, 2))
        if postings.starts[0] != 0 or postings.starts[-1] != count or not np.isfinite(idf).all():
            raise ValueError("postings and statistics do not fit each other")
        if not sound(postings.starts, postings.rows, postings.impacts, peaks, products):
            raise ValueError("postings out of range or out of order")
        release(postings.rows)
        release(postings.impacts)
        known = folder / SYNONYMS
        synonyms = Synonyms.from_json(json.loads(known.read_bytes())) if known.exists() else NO_SYNONYMS
        titles = Titles.load(folder, products, vocabulary)
        return cls(vocabulary, Statistics(idf, peaks, frozen(fields)), postings, titles, synonyms=synonyms)

    def parse(self, text: str, prefix: bool = False) -> LexicalQuery:
        """The terms of a normalised query, each once, with their synonyms. With `prefix` the last word also matches the
        64 most frequent terms that it begins; they form one group with the word itself."""
        wanted = query_terms(text, self.synonyms)
        begun = last_word(text) if prefix else ""
        own = tokens(begun)[0] if begun else None
        numbers = [self._vocabulary.number(one.term) for one in wanted]
        alternatives: list[list[Alternative]] = []
        for one, number in zip(wanted, numbers, strict=True):
            found = self._alternatives(one, number)
            if one.term.removeprefix(NOT) == own:
                beginning = begun if one.term == own else NOT + begun
                known = {term for term, *_ in found}
                found += [(term, PREFIX_WEIGHT, PREFIX) for term in self._expansions(beginning) if term not in known]
            alternatives.append(found)
        flat = [(group, *one) for group, found in enumerate(alternatives) for one in found]
        groups, terms = (np.array([one[part] for one in flat], np.int32) for part in (0, 1))
        weights = np.array([weight for *_, weight, _ in flat], np.float32)
        words, kinds = tuple(one.term for one in wanted), tuple(kind for *_, kind in flat)
        bound = kernels.bounds(groups, terms, weights, self._statistics.peaks)
        return LexicalQuery(
            groups, terms, weights, bound, words, kinds, self._title_query(words, numbers, alternatives)
        )

    def _title_query(
        self, words: tuple[str, ...], numbers: list[int], alternatives: list[list[Alternative]]
    ) -> TitleQuery:
        """A word that the version does not know is as rare as can be."""
        idf = self._statistics.idf
        rarest = math.log1p(2 * len(self) + 1)
        of_words = [float(idf[number, 1]) if number >= 0 else rarest for number in numbers]
        return title_query(words, [[term for term, *_ in found] for found in alternatives], of_words, self._vocabulary)

    def _alternatives(self, wanted: Wanted, number: int) -> list[Alternative]:
        """Terms of the vocabulary that satisfy a query's term, which has this number, with their weights and kinds. A
        synonym that is rarer than the word counts as if it were as frequent: else the products that say it otherwise
        would come before those that say it as the shopper does (as Lucene's SynonymQuery, which gives all of them one
        document frequency)."""
        idf = self._statistics.idf
        weight = token_weight(wanted.term.removeprefix(MODIFIER))
        equals = (number, *map(self._vocabulary.number, wanted.equals))
        found = [(equal, weight, EXACT) for equal in equals if equal >= 0]
        if not (wanted.synonyms or wanted.modifiers):
            return found
        own = idf[number, 1] if number >= 0 else np.inf
        nearly = [(term, SYNONYM_WEIGHT, SYNONYM) for term in wanted.synonyms]
        for term, worth, kind in (*nearly, *((term, MODIFIER_WEIGHT, MODIFIER_OF) for term in wanted.modifiers)):
            if (number := self._vocabulary.number(term)) >= 0:
                share = min(1.0, float(own / max(idf[number, 1], 1e-9)))
                found.append((number, worth * weight * share, kind))
        return found

    def _expansions(self, begun: str) -> list[int]:
        """The most frequent terms with this beginning, most frequent first, ties in order of the vocabulary."""
        low = self._vocabulary.place(begun)
        high = self._vocabulary.place(begun + "\U0010ffff")
        frequency = np.diff(self._postings.starts[low : high + 1])
        order = np.argsort(-frequency, kind="stable")[:EXPANSIONS]
        return [low + int(place) for place in order]

    def information(self, text: str) -> float:
        """The largest idf of a text's terms in this version; −1 where it knows none of them."""
        numbers = map(self._vocabulary.number, tokens(text))
        return max((float(self._statistics.idf[number, 1]) for number in numbers if number >= 0), default=-1.0)

    def search(self, query: LexicalQuery, depth: int, allowed: Mask | None = None) -> LexicalHits:
        """The `depth` best of the rows that match, under the mean of the two fields' shares of their bounds.

        allowed: bool [products], or None for every row.
        """
        if allowed is not None and len(allowed) != len(self):
            raise ValueError(f"a mask of {len(allowed)} rows for {len(self)} products")
        postings = self._postings
        rows, scores, matched = kernels.best(
            postings.starts,
            postings.rows,
            postings.impacts,
            query.groups,
            query.terms,
            query.weights,
            *query.bound,
            max(0, min(depth, len(self))),
            _EVERY_ROW if allowed is None else frozen(allowed),
        )
        return LexicalHits(rows, scores, matched)

    def scores(self, query: LexicalQuery, rows: Rows) -> Floats:
        """Shares of the bound (title, all) for any rows, in their order: float32 [rows, 2]; 0 where nothing matches."""
        postings = self._postings
        return kernels.pair_scores(
            postings.starts,
            postings.rows,
            postings.impacts,
            query.groups,
            query.terms,
            query.weights,
            *query.bound,
            frozen(rows),
        )

    def holds(self, query: LexicalQuery, rows: Rows) -> npt.NDArray[np.int8]:
        """Where rows have each of the query's terms: 2 in the title, 1 in the rest of the text alone, 0 nowhere; int8
        [rows, terms]."""
        postings = self._postings
        return kernels.held(postings.starts, postings.rows, postings.impacts, query.terms, frozen(rows))

    def term(self, number: int) -> str:
        """A term of the vocabulary."""
        return self._vocabulary[number]

    def title_features(self, query: LexicalQuery, rows: Rows) -> Floats:
        """How the titles of any rows answer the query, float32 [rows, len(titles.FEATURES)]."""
        return self._titles.features(query.title, rows)

    def title_features_of(self, query: LexicalQuery, title: str) -> Floats:
        """The same of a normalised title outside the index, float32 [1, len(titles.FEATURES)]."""
        terms = np.array([*map(self._vocabulary.number, product_terms(title, self.synonyms))], np.int32)
        field = TokenizedField(terms, np.array([0, len(terms)], np.int64))
        return Titles(field, separators_in(self._vocabulary)).features(query.title, np.zeros(1, np.int32))

    def score_text(self, query: LexicalQuery, title: str, text: str) -> tuple[float, float]:
        """Shares of the bound for a normalised text outside the index, as `scores` gives them for a product of the
        same texts; at most 1."""
        counts = np.zeros((len(query.terms), 2), np.float32)
        lengths = np.zeros(2)
        for field, words in enumerate((product_terms(title, self.synonyms), product_terms(text, self.synonyms))):
            lengths[field] = len(words)
            occurrences = Counter(words)
            counts[:, field] = [occurrences[self._vocabulary[term]] for term in query.terms.tolist()]
        statistics = self._statistics
        return kernels.text_scores(
            query.groups,
            query.terms,
            query.weights,
            *query.bound,
            counts,
            lengths,
            statistics.idf,
            statistics.fields,
        )
