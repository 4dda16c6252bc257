"""What the textbook's normalising would cost here: stop words and punctuation removed before everything else.

    python -m models.stop_words --bundles DIR --queries Q.tsv --qrels R.tsv

Off, and only an experiment: `app.index.analysis.normalize_text` drops nothing. Without them "chair without wheels" is
"chair wheels", "type-c" is "typec", "1.5 l" is "15 l" and "c++" is "c". The table compares, under the version's own
weights: the words (index and queries), the encoder's queries, and both.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from app.index.bundle import DEFAULT_COLLECTION, BundleStore
from app.index.lexical import LexicalIndex
from app.index.product_text import lexical_texts
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from app.types import Product, SearchRequest
from models.relevance import Gain, Qrels, Queries, Run, Table, compare_all, comparison_table, evaluate
from models.variant import variant

_SIGNS = re.compile(r"[^\w\s]|_")
_WORDS = (
    "a about above after again against all am an and any are as at be because been before being below between "
    "both but by can could did do does doing down during each few for from further had has have having he her "
    "here hers him his how i if in into is it its itself just me more most my no nor not now of off on once only "
    "or other our out over own same she should so some such than that the their them then there these they this "
    "those through to too under until up very was we were what when where which while who whom why will with "
    "without would you your"
)
STOP_WORDS = frozenset(_WORDS.split())


def aggressive(text: str) -> str:
    """A normalised text without punctuation and English stop words; as it is where nothing else would be left."""
    words = [word for word in _SIGNS.sub("", text).split() if word not in STOP_WORDS]
    return " ".join(words) or text


def runs(searcher: Searcher, queries: Queries, qrels: Qrels, profile: str) -> dict[str, Run]:
    """The profile's ranking with the conservative form, and with the aggressive one of the words, of the encoder's
    queries (products stay as the version has them), and of both."""
    texts = [_texts(searcher, row) for row in range(len(searcher.catalog))]
    stripped = LexicalIndex.build((aggressive(title), aggressive(text)) for title, text in texts)
    variants: dict[str, tuple[LexicalIndex, Callable[[str], str], Callable[[str], str]]] = {
        "conservative": (searcher.words, str, str),
        "words": (stripped, aggressive, str),
        "encoder": (searcher.words, str, aggressive),
        "both": (stripped, aggressive, aggressive),
    }
    return {name: _run(searcher, queries, qrels, profile, f"{profile}, {name}", *how) for name, how in variants.items()}


def _run(
    searcher: Searcher,
    queries: Queries,
    qrels: Qrels,
    profile: str,
    name: str,
    words: LexicalIndex,
    of_words: Callable[[str], str],
    of_encoder: Callable[[str], str],
) -> Run:
    other = variant(searcher, words=words)
    ranked = {}
    for query_id, typed in queries.items():
        if query_id not in qrels:
            continue
        query = searcher.query(SearchRequest(typed, profile=profile))
        text = query.text or ""
        parsed = words.parse(of_words(text))
        vector = other.query_vectors([of_encoder(text)], query.profile)[0] if query.profile.uses_dense else None
        rows = other.rank(other.result_set(query, parsed, vector).rows, parsed, vector, query.profile).rows
        ranked[query_id] = [(searcher.catalog.id(int(row)), -float(place)) for place, row in enumerate(rows)]
    return Run(ranked, name)


def _texts(searcher: Searcher, row: int) -> tuple[str, str]:
    catalog = searcher.catalog
    return lexical_texts(Product(catalog.id(row), catalog.fields(row)), catalog.schema)


def table(searcher: Searcher, queries: Queries, qrels: Qrels) -> Table:
    """nDCG@10 of each aggressive form against the conservative one, in every profile."""
    comparisons = []
    for profile in searcher.ranking.profiles:
        scored = {
            name: evaluate(qrels, run, ("ndcg@10",), gain=Gain())
            for name, run in runs(searcher, queries, qrels, profile).items()
        }
        baseline = scored.pop("conservative")
        comparisons += compare_all(baseline, list(scored.values()), ("ndcg@10",))
    return comparison_table(comparisons)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.stop_words", description="measure the aggressive form")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--collection", default=DEFAULT_COLLECTION)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--qrels", type=Path, required=True)
    given = parser.parse_args(arguments)
    store = BundleStore(given.bundles, given.collection)
    searcher = load(store, store.current() or "", Encoders("cpu")).searcher
    sys.stdout.write(table(searcher, Queries.load(given.queries), Qrels.load(given.qrels)).text() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
