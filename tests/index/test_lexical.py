"""BM25 against an independent oracle, the purity of its scores, and the format of its files."""

from __future__ import annotations

import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.errors import CorruptPart
from app.index import kernels
from app.index.analysis import normalize_text, token_weight
from app.index.lexical import LexicalIndex, LexicalParams
from app.index.terms import product_terms, query_terms

WORDS = ["red", "blue", "shoe", "boot", "rain", "men", "women", "type-c", "1.5", "ce4200", "cable", "铁锅", "leather"]
WORDS += ["sale", "the", "for", "without", "16gb", "kettle"]
PARAMS = LexicalParams()
QUERIES = ["red rain boots", "ce4200 cable", "铁锅", "women shoe without leather", "unheard shoe", "the", "shoe shoe"]


def catalogue(products: int = 3000, seed: int = 7) -> list[tuple[str, str]]:
    """Random texts with words of very different frequency; some titles and texts are empty."""
    random = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, len(WORDS) + 1)
    frequency /= frequency.sum()
    texts = []
    for _ in range(products):
        title = " ".join(random.choice(WORDS, random.integers(0, 6), p=frequency))
        more = " ".join(random.choice(WORDS, random.integers(0, 30), p=frequency))
        texts.append((normalize_text(title), normalize_text(f"{title} {more}")))
    return texts


TEXTS = catalogue()


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.build(TEXTS)


class Oracle:
    """BM25 in float64 from the raw tokens, one field, written without the index."""

    def __init__(self, texts: list[str], k1: float, b: float) -> None:
        self.rows = [Counter(product_terms(text)) for text in texts]
        self.lengths = [len(product_terms(text)) for text in texts]
        self.average = sum(self.lengths) / len(texts)
        self.k1, self.b = k1, b

    def impact(self, term: str, row: int) -> float:
        holding = sum(term in counts for counts in self.rows)
        idf = math.log(1 + (len(self.rows) - holding + 0.5) / (holding + 0.5))
        count = self.rows[row][term]
        norm = self.k1 * (1 - self.b + self.b * self.lengths[row] / self.average)
        return idf * count * (self.k1 + 1) / (count + norm)

    def share(self, query: str, row: int) -> float:
        terms = [one.term for one in query_terms(query)]
        score = sum(token_weight(term) * self.impact(term, row) for term in terms)
        bound = sum(token_weight(term) * max(self.impact(term, r) for r in range(len(self.rows))) for term in terms)
        return score / bound if bound else 0.0


@pytest.mark.parametrize("query", QUERIES)
def test_scores_agree_with_an_independent_bm25(query: str) -> None:
    """Both fields' scores are BM25 over the raw tokens divided by the query's bound."""
    texts = TEXTS[:60]
    index = LexicalIndex.build(texts)
    found = index.scores(index.parse(query), np.arange(len(texts), dtype=np.int32))
    for field, (k1, b) in enumerate([(PARAMS.title_k1, PARAMS.title_b), (PARAMS.all_k1, PARAMS.all_b)]):
        oracle = Oracle([pair[field] for pair in texts], k1, b)
        assert found[:, field] == pytest.approx([oracle.share(query, row) for row in range(len(texts))], rel=1e-5)


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("query", QUERIES)
def test_search_pairs_and_texts_score_alike_to_the_bit(index: LexicalIndex, query: str, prefix: bool) -> None:
    """A pair scores the same in a search, in any company and order, and from its text alone."""
    parsed = index.parse(query, prefix)
    hits = index.search(parsed, 50)
    every = index.scores(parsed, np.arange(len(index), dtype=np.int32))
    combined = (every[:, 0] + every[:, 1]) * np.float32(0.5)
    order = np.lexsort((np.arange(len(index)), -combined))[: len(hits.rows)]
    assert hits.rows.tolist() == order.tolist()
    assert hits.scores.tobytes() == combined[order].tobytes()
    assert hits.matched == np.count_nonzero(every.any(axis=1)) > 0
    shuffled = np.random.default_rng(1).permutation(len(index))[:400].astype(np.int32)
    assert index.scores(parsed, shuffled).tobytes() == every[shuffled].tobytes()
    assert index.scores(parsed, shuffled[:1]).tobytes() == every[shuffled[:1]].tobytes()
    for row in [*hits.rows[:20].tolist(), *shuffled[:20].tolist()]:
        assert index.score_text(parsed, *TEXTS[row]) == tuple(every[row].tolist())


def test_windows_change_nothing() -> None:
    """A catalogue that spans several windows of rows gives each row the same score as pair by pair."""
    index = LexicalIndex.build(catalogue(2 * kernels.WINDOW + 100))
    parsed = index.parse("red rain le", prefix=True)
    hits = index.search(parsed, 300)
    shares = index.scores(parsed, hits.rows)
    assert hits.rows.max() > kernels.WINDOW
    assert ((shares[:, 0] + shares[:, 1]) * np.float32(0.5)).tobytes() == hits.scores.tobytes()


def test_no_score_exceeds_its_bound(index: LexicalIndex) -> None:
    """Shares lie in [0, 1], for products and for a text that beats every product."""
    shares = index.scores(index.parse("red kettle cable", prefix=True), np.arange(len(index), dtype=np.int32))
    assert shares.min() >= 0.0
    assert 0.0 < shares.max() <= 1.0
    longer = LexicalIndex.build([("red kettle with lid", "red kettle with lid")] * 3)
    assert longer.score_text(longer.parse("kettle"), "kettle", "kettle") == (1.0, 1.0)


def test_a_word_that_must_be_absent_finds_those_who_say_so() -> None:
    """`without wheels` meets `without wheels`, `no wheels` and `wheel-free`, and nothing of a chair that has them."""
    titles = ["desk chair with wheels", "desk chair no wheels", "wheel-free desk chair", "office stool, wheels"]
    index = LexicalIndex.build([(title, title) for title in titles])
    found = index.search(index.parse("desk chair without wheels"), 10)
    assert sorted(found.rows[:2].tolist()) == [1, 2]
    assert found.rows[2:].tolist() == [0]
    assert sorted(index.search(index.parse("wheels"), 10).rows.tolist()) == [0, 1, 2, 3]
    typing = index.search(index.parse("desk chair without whe", prefix=True), 10)
    assert sorted(typing.rows[:2].tolist()) == [1, 2]


def test_ties_are_broken_by_row() -> None:
    """Equal products come in the order of their rows, also where the depth cuts through them."""
    index = LexicalIndex.build([("red shoe", "red shoe")] * 100)
    assert index.search(index.parse("shoe"), 7).rows.tolist() == list(range(7))


def test_only_allowed_rows_are_found_and_counted(index: LexicalIndex) -> None:
    """A mask takes rows away and leaves the others' order and scores."""
    parsed = index.parse("red shoe")
    allowed = np.random.default_rng(3).random(len(index)) < 0.3
    everything = index.search(parsed, len(index))
    some = index.search(parsed, len(index), allowed)
    kept = allowed[everything.rows]
    assert some.rows.tolist() == everything.rows[kept].tolist()
    assert some.scores.tolist() == everything.scores[kept].tolist()
    assert some.matched == np.count_nonzero(kept) < everything.matched
    with pytest.raises(ValueError, match="mask"):
        index.search(parsed, 10, allowed[:-1])


def test_unknown_words_match_nothing(index: LexicalIndex) -> None:
    """A query of unknown words has no hits and a bound of zero, and says which words it was."""
    parsed = index.parse("zzyzx qwrt")
    assert parsed.bound == (0.0, 0.0)
    assert parsed.words == ("zzyzx", "qwrt")
    assert index.search(parsed, 10).matched == 0
    assert index.search(index.parse(""), 10).rows.tolist() == []
    assert index.scores(parsed, np.array([0, 1], np.int32)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert index.score_text(parsed, "zzyzx", "zzyzx") == (0.0, 0.0)


def test_a_prefix_matches_what_it_begins() -> None:
    """The word being typed finds its completions as one group; finished words are matched whole."""
    index = LexicalIndex.build([("red dress", "red dress"), ("red drill", "red drill"), ("dremel", "dremel")])
    found = index.search(index.parse("red dr", prefix=True), 10)
    assert sorted(found.rows[:2].tolist()) == [0, 1]
    assert found.rows[2:].tolist() == [2]
    assert index.search(index.parse("red dre", prefix=True), 1).rows.tolist() == [0]
    assert index.search(index.parse("re dress", prefix=True), 10).rows.tolist() == [0]
    repeated = index.parse("dress red dre", prefix=True)
    assert len(set(repeated.groups.tolist())) == 3
    assert sorted(repeated.groups.tolist()) == repeated.groups.tolist()


def test_a_prefix_expands_to_the_most_frequent_terms() -> None:
    """At most 64 completions are taken, the most frequent first."""
    index = LexicalIndex.build([(f"w{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}x " * 1,) * 2 for n in range(100)] * 2
                               + [("wzz", "wzz")] * 5)  # fmt: skip
    parsed = index.parse("w", prefix=True)
    assert len(parsed.terms) == 64
    assert index.search(parsed, 500).matched == 63 * 2 + 5


def test_further_texts_score_under_the_frozen_statistics(index: LexicalIndex) -> None:
    """The same texts indexed later get the same bits as the version's own products; new words match nothing."""
    later = index.extend([*TEXTS[:200], ("brandnewword", "brandnewword red")])
    parsed = index.parse("red rain boots")
    rows = np.arange(200, dtype=np.int32)
    assert later.scores(parsed, rows).tobytes() == index.scores(parsed, rows).tobytes()
    assert later.search(later.parse("brandnewword"), 5).matched == 0
    assert later.score_text(parsed, *TEXTS[3]) == tuple(later.scores(parsed, rows[3:4])[0].tolist())


def test_threads_share_an_index(index: LexicalIndex) -> None:
    """Searches that run at once give what they give alone."""
    parsed = [index.parse(query, prefix=True) for query in QUERIES]
    alone = [index.search(query, 100).scores.tobytes() for query in parsed]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: index.search(query, 100).scores.tobytes(), parsed * 40))
    assert found == alone * 40


def test_a_loaded_index_gives_the_same_bits(index: LexicalIndex, tmp_path: Path) -> None:
    """Saving and loading changes no score; loaded arrays are mapped, not read."""
    index.save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert len(loaded) == len(index)
    for query in QUERIES:
        ours, theirs = (one.search(one.parse(query, prefix=True), 100) for one in (index, loaded))
        assert (ours.rows.tolist(), ours.scores.tobytes()) == (theirs.rows.tolist(), theirs.scores.tobytes())


@pytest.mark.parametrize("texts", [[], [("", "")]])
def test_a_catalogue_without_words_can_be_saved_and_searched(texts: list[tuple[str, str]], tmp_path: Path) -> None:
    """Nothing to match is not an error."""
    LexicalIndex.build(texts).save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert len(loaded) == len(texts)
    assert loaded.search(loaded.parse("shoe", prefix=True), 10).matched == 0


def _rows_out_of_range(folder: Path) -> None:
    rows = np.load(folder / "lexical.rows.npy")
    rows[-1] = 1_000_000
    np.save(folder / "lexical.rows.npy", rows)


def _rows_out_of_order(folder: Path) -> None:
    rows = np.load(folder / "lexical.rows.npy")
    rows[1], rows[0] = rows[0], rows[1]
    np.save(folder / "lexical.rows.npy", rows)


def _impact_not_a_number(folder: Path) -> None:
    impacts = np.load(folder / "lexical.impacts.npy")
    impacts[5, 1] = np.nan
    np.save(folder / "lexical.impacts.npy", impacts)


def _starts_fall(folder: Path) -> None:
    starts = np.load(folder / "lexical.starts.npy")
    starts[2] = starts[-1] + 5
    np.save(folder / "lexical.starts.npy", starts)


def _wrong_kind(folder: Path) -> None:
    np.save(folder / "lexical.impacts.npy", np.load(folder / "lexical.impacts.npy").astype(np.float64))


def _pickled(folder: Path) -> None:
    np.save(folder / "lexical.idf.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _truncated(folder: Path) -> None:
    content = (folder / "lexical.impacts.npy").read_bytes()
    (folder / "lexical.impacts.npy").write_bytes(content[:-100])


def _absent(folder: Path) -> None:
    (folder / "lexical.peaks.npy").unlink()


def _vocabulary_out_of_order(folder: Path) -> None:
    terms = (folder / "lexical.vocabulary").read_text("utf-8").split("\n")
    (folder / "lexical.vocabulary").write_text("\n".join(terms[::-1]), "utf-8")


def _another_format(folder: Path) -> None:
    description = json.loads((folder / "lexical.json").read_text())
    (folder / "lexical.json").write_text(json.dumps(description | {"format": 99}))


def _not_json(folder: Path) -> None:
    (folder / "lexical.json").write_text("[1")


@pytest.mark.parametrize(
    "damage",
    [
        _rows_out_of_range, _rows_out_of_order, _impact_not_a_number, _starts_fall, _wrong_kind, _pickled, _truncated,
        _absent, _vocabulary_out_of_order, _another_format, _not_json,
    ],
)  # fmt: skip
def test_inconsistent_files_are_refused(index: LexicalIndex, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    """Files that do not fit each other raise CorruptPart; untouched, the same files load."""
    index.save(tmp_path)
    assert len(LexicalIndex.load(tmp_path)) == len(index)
    damage(tmp_path)
    with pytest.raises(CorruptPart):
        LexicalIndex.load(tmp_path)
