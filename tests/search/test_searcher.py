"""The stages together: what a score is, what a result set is, what happens when a stage fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from app.errors import BadInput, EncoderUnavailable, NotFound, Unavailable
from app.index.lexical import LexicalIndex, LexicalQuery
from app.search.job import SearchJob
from app.search.rescore import RescoreJob
from app.search.searcher import Searcher
from app.types import RescoreCandidate, SearchRequest, Sort
from tests.conftest import ROOT
from tests.tiny import products


def _answer(searcher: Searcher, request: SearchRequest) -> dict[str, Any]:
    job = SearchJob(searcher, searcher.query(request), perf_counter())
    searcher.search([job])
    if job.error is not None:
        raise job.error
    assert job.answer is not None
    answer: dict[str, Any] = json.loads(b"{" + job.answer.tail)
    return answer


def test_hits_come_in_order_of_raw_score_then_id(tiny_searcher: Searcher) -> None:
    """Order is by (raw score, id), and the calibrated score never contradicts it."""
    answer = _answer(tiny_searcher, SearchRequest("wireless steel headphones", k=50, explain=True))
    keys = [(-hit["explanation"]["raw"], hit["id"]) for hit in answer["hits"]]
    assert len(keys) > 10
    assert keys == sorted(keys)
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_an_answer_tells_how_its_words_were_read(tiny_searcher: Searcher) -> None:
    """How many products have a word of it, also behind a filter, and whether its vector is of its beginning only."""
    found = _answer(tiny_searcher, SearchRequest("wireless"))
    holding = [one["brand"] for one in products() if "wireless" in one["title"] + one["description"]]
    assert found["word_matches"] == len(holding) > 0 and found["truncated"] is False
    strange = _answer(tiny_searcher, SearchRequest("qzxqzx"))
    assert strange["word_matches"] == 0
    one = SearchRequest("wireless", filter={"field": "brand", "in": ["Acme"]})
    assert _answer(tiny_searcher, one)["word_matches"] == holding.count("Acme") > 0
    assert _answer(tiny_searcher, SearchRequest("wireless", profile="dense"))["word_matches"] is None
    assert _answer(tiny_searcher, SearchRequest("wireless " * 100))["truncated"] is True
    assert _answer(tiny_searcher, SearchRequest("wireless " * 100, profile="lexical"))["truncated"] is False


def test_contributions_sum_to_raw_bit_for_bit(tiny_searcher: Searcher) -> None:
    """The explanation is the score, not a story about it."""
    for hit in _answer(tiny_searcher, SearchRequest("folding quiet lamp", k=50, explain=True))["hits"]:
        total = 0.0
        for part in hit["explanation"]["contributions"]:
            assert part["contribution"] == part["weight"] * part["value"]
            total += part["contribution"]
        assert total == hit["explanation"]["raw"]


def test_a_pair_scores_the_same_in_any_company(tiny_searcher: Searcher) -> None:
    """Alone under a filter, in a crowd, in a batch with other queries, and rescored by id."""
    text = "bright wooden kettle"
    crowd = {hit["id"]: hit["score"] for hit in _answer(tiny_searcher, SearchRequest(text, k=50))["hits"]}
    other = SearchRequest("a much longer query about a soft small waterproof backpack for a trip")
    jobs = [
        SearchJob(tiny_searcher, tiny_searcher.query(r), perf_counter())
        for r in (other, SearchRequest(text, k=50), other)
    ]
    tiny_searcher.search(jobs)
    assert jobs[1].answer is not None
    batched = {hit["id"]: hit["score"] for hit in json.loads(b"{" + jobs[1].answer.tail)["hits"]}
    assert batched == crowd
    profile = tiny_searcher.ranking.profiles["default"]
    rescore = RescoreJob(tiny_searcher, text, profile, [RescoreCandidate(id=one) for one in crowd])
    rescore.run()
    assert [result.score for result in rescore.results] == list(crowd.values())
    for product_id in list(crowd)[:5]:
        brand = json.loads(tiny_searcher.product(product_id))["product"].get("brand")
        if brand:
            alone = _answer(tiny_searcher, SearchRequest(text, k=50, filter={"field": "brand", "in": [brand]}))
            assert {hit["id"]: hit["score"] for hit in alone["hits"]}[product_id] == crowd[product_id]


def test_a_text_scores_as_the_product_it_is_copied_from_on_the_lexical_leg(tiny_searcher: Searcher) -> None:
    """The title as candidate text: BM25 over the title agrees with the catalogue's own; absent fields are named."""
    product = json.loads(tiny_searcher.product("p000"))["product"]
    query = product["title"].lower()
    job = RescoreJob(
        tiny_searcher,
        query,
        tiny_searcher.ranking.profiles["lexical"],
        [RescoreCandidate(id="p000"), RescoreCandidate(text=product["title"])],
    )
    job.run()
    by_id, by_text = job.results
    assert by_id.score is not None and by_text.score is not None
    assert "description" in by_text.missing_fields
    assert by_text.score == pytest.approx(by_id.score, abs=0.15)


def test_one_unknown_product_is_an_error_of_that_candidate(tiny_searcher: Searcher) -> None:
    """Never of the batch."""
    job = RescoreJob(
        tiny_searcher,
        "mug",
        tiny_searcher.ranking.profiles["default"],
        [RescoreCandidate(id="p001"), RescoreCandidate(id="nobody"), RescoreCandidate(text="  ")],
    )
    job.run()
    assert [result.error for result in job.results] == [None, "unknown product", "empty text"]


def test_pages_neither_repeat_nor_miss(tiny_searcher: Searcher) -> None:
    """Walking by offset gives the same list as asking for all of it."""
    whole = _answer(tiny_searcher, SearchRequest("steel", k=200))
    walked: list[str] = []
    for offset in range(0, whole["total"]["value"], 7):
        walked += [hit["id"] for hit in _answer(tiny_searcher, SearchRequest("steel", k=7, offset=offset))["hits"]]
    assert walked == [hit["id"] for hit in whole["hits"]]
    assert len(walked) == whole["total"]["value"]


def test_sorting_by_price_orders_the_whole_result_set(tiny_searcher: Searcher) -> None:
    """Missing prices last, ties by id; the scores stay those of the ranking."""
    ranked = _answer(tiny_searcher, SearchRequest("steel", k=200))
    by_price = _answer(tiny_searcher, SearchRequest("steel", k=200, sort=(Sort("price", descending=True),)))
    assert {h["id"]: h["score"] for h in by_price["hits"]} == {h["id"]: h["score"] for h in ranked["hits"]}
    prices = [hit["product"].get("price") for hit in by_price["hits"]]
    known = [price for price in prices if price is not None]
    assert known == sorted(known, reverse=True)
    assert prices[: len(known)] == known


def test_a_facet_does_not_narrow_its_own_values(tiny_searcher: Searcher) -> None:
    """Disjunctive: with brand filtered, brand counts stay those without the brand filter; colour counts narrow."""
    free = _answer(
        tiny_searcher, SearchRequest("steel", facets=("brand", "color"), filter={"field": "price", "gte": 0})
    )
    held = _answer(
        tiny_searcher,
        SearchRequest(
            "steel",
            facets=("brand", "color"),
            filter={"all": [{"field": "price", "gte": 0}, {"field": "brand", "in": ["Acme"]}]},
        ),
    )
    assert held["facets"]["brand"] == free["facets"]["brand"]
    assert sum(v["count"] for v in held["facets"]["color"]) < sum(v["count"] for v in free["facets"]["color"])


def test_browsing_lists_by_popularity(tiny_searcher: Searcher) -> None:
    """A filter without a query: everything it lets through, most popular first, without scores."""
    answer = _answer(tiny_searcher, SearchRequest(None, k=200, filter={"field": "stock", "gte": 1}))
    counts = [hit["product"]["popularity"] for hit in answer["hits"]]
    assert answer["tier"] == "browse" and answer["total"]["relation"] == "eq"
    assert counts == sorted(counts, reverse=True)
    assert {hit["score"] for hit in answer["hits"]} == {None}
    assert all(hit["product"]["stock"] >= 1 for hit in answer["hits"])


def test_an_encoder_that_fails_leaves_the_words(tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lexical tier answers, says so, and ranks as the lexical profile does; the dense profile has nothing left."""

    def fail(texts: list[str]) -> None:
        raise EncoderUnavailable("gone")

    whole = _answer(tiny_searcher, SearchRequest("steel mug", k=20))
    lexical = _answer(tiny_searcher, SearchRequest("steel mug", k=20, profile="lexical"))
    monkeypatch.setattr(tiny_searcher.encoder, "queries", fail)
    degraded = _answer(tiny_searcher, SearchRequest("steel mug", k=20))
    assert whole["degraded"] == {"is": False, "reasons": []} and whole["tier"] == "hybrid"
    assert degraded["degraded"] == {"is": True, "reasons": ["encoder_error"]} and degraded["tier"] == "lexical"
    assert degraded["hits"] == lexical["hits"]
    with pytest.raises(EncoderUnavailable):
        _answer(tiny_searcher, SearchRequest("steel mug", profile="dense"))


def test_words_that_fail_leave_the_meaning(
    tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The dense profile answers in the tier's place, and says so; the lexical profile has nothing left, and a batch
    mate is answered in full. What was asked does not reach the log."""
    real = LexicalIndex.search

    def search(self: LexicalIndex, query: LexicalQuery, depth: int, allowed: object = None) -> object:
        if "mug" in query.words:
            raise RuntimeError(f"{query.words} failed")
        return real(self, query, depth, allowed)  # type: ignore[arg-type]

    dense = _answer(tiny_searcher, SearchRequest("steel mug", k=20, profile="dense"))
    monkeypatch.setattr(LexicalIndex, "search", search)
    struck, lexical, mate = (
        SearchJob(tiny_searcher, tiny_searcher.query(SearchRequest(text, k=20, profile=profile)), perf_counter())
        for text, profile in (("steel mug", "default"), ("steel mug", "lexical"), ("wool scarf", "default"))
    )
    tiny_searcher.search([struck, lexical, mate])
    assert struck.answer is not None and mate.answer is not None
    told = json.loads(b"{" + struck.answer.tail)
    assert told["degraded"] == {"is": True, "reasons": ["words_error"]} and told["tier"] == "dense"
    assert told["hits"] == dense["hits"]
    assert isinstance(lexical.error, Unavailable)
    assert not mate.answer.degraded and mate.answer.tier == "hybrid"
    assert "RuntimeError" in caplog.text and "steel" not in caplog.text


def test_words_that_fail_are_not_asked_which_of_them_to_drop(
    tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is found and the request may be relaxed: an empty answer that says why, and no error."""

    def search(self: LexicalIndex, query: LexicalQuery, depth: int, allowed: object = None) -> object:
        raise RuntimeError

    monkeypatch.setattr(LexicalIndex, "search", search)
    nothing = {"field": "price", "gte": 1e9}
    answer = _answer(tiny_searcher, SearchRequest("steel mug", relax=True, filter=nothing))
    assert answer["total"]["value"] == 0 and answer["degraded"]["reasons"] == ["words_error"]


def test_similar_products_do_not_include_the_product_itself(tiny_searcher: Searcher) -> None:
    """Nearest first, by mean cosine."""
    answer = json.loads(b"{" + tiny_searcher.similar("p007", 5).tail)
    assert len(answer["hits"]) == 5
    assert "p007" not in {hit["id"] for hit in answer["hits"]}
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 1.0 + 1e-6


def test_more_neighbours_only_append(esci: Searcher) -> None:
    """The first five of two hundred are the five, for two hundred products."""

    def ids(product: str, k: int) -> list[str]:
        return [hit["id"] for hit in json.loads(b"{" + esci.similar(product, k).tail)["hits"]]

    for row in range(0, len(esci.catalog), len(esci.catalog) // 200):
        product = esci.catalog.id(row)
        assert ids(product, 200)[:5] == ids(product, 5)


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (SearchRequest("   "), "empty"),
        (SearchRequest(None), "filter"),
        (SearchRequest("mug", facets=("price",)), "price"),
        (SearchRequest("mug", facets=("brnad",)), "brand"),
        (SearchRequest("mug", sort=(Sort("prize"),)), "price"),
        (SearchRequest("mug", fields=("titel",)), "title"),
        (SearchRequest("mug", k=10, offset=5000), "deep"),
        (SearchRequest("mug", filter={"field": "nope", "in": [1]}), "nope"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_hint(
    tiny_searcher: Searcher, request_: SearchRequest, word: str
) -> None:
    """422, naming what was wrong or what may have been meant."""
    with pytest.raises(BadInput) as refused:
        tiny_searcher.query(request_)
    assert word in refused.value.detail


def test_unknown_names_are_not_found(tiny_searcher: Searcher) -> None:
    """Profile and product."""
    with pytest.raises(NotFound):
        tiny_searcher.query(SearchRequest("mug", profile="secret"))
    with pytest.raises(NotFound):
        tiny_searcher.similar("nobody", 3)


def test_fields_narrow_what_a_hit_shows(tiny_searcher: Searcher) -> None:
    """And nothing else about it."""
    whole = _answer(tiny_searcher, SearchRequest("mug", k=5))
    narrow = _answer(tiny_searcher, SearchRequest("mug", k=5, fields=("title", "price")))
    for wide, slim in zip(whole["hits"], narrow["hits"], strict=True):
        assert slim["product"] == {
            name: wide["product"][name] for name in ("title", "price") if name in wide["product"]
        }
        assert (slim["id"], slim["score"]) == (wide["id"], wide["score"])


def test_the_shipped_encoder_gives_one_vector_however_it_is_asked(esci: Searcher) -> None:
    """On a CPU: alone, or among texts of other lengths, bit for bit."""
    texts = ["mug", "wireless noise cancelling over ear headphones with a very long battery life", "17 inch laptop bag"]
    together = esci.encoder.queries(texts)
    assert all(
        np.array_equal(esci.encoder.queries([text])[0], vector) for text, vector in zip(texts, together, strict=True)
    )


def test_a_bundle_made_of_parts_that_do_not_fit_is_refused(tiny_bundles: Path) -> None:
    """Golden answers that nobody can find again are a reason to refuse (control: the same bundle opens)."""
    from app.errors import CorruptPart
    from app.index.bundle import BundleStore
    from app.search.versions import Encoders, load, warm

    store = BundleStore(tiny_bundles)
    served = load(store, store.current() or "", Encoders("cpu"))
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        wrong = [{"query": "steel mug", "ids": ["x1", "x2", "x3"]}]
        (Path(folder) / "golden.json").write_text(json.dumps(wrong))
        with pytest.raises(CorruptPart, match="golden"):
            warm(served.searcher, Path(folder))


_FIRST_REQUESTS = """
import sys
from pathlib import Path
from app.index import dense_kernels, kernels
from app.search.cache_entry import frozen_vector
from app.search.rescore import RescoreJob
from app.search.job import SearchJob
from app.search.whynot import why_not
from app.types import RescoreCandidate, SearchRequest, Sort
from tests.conftest import ROOT
from tests.tiny import products
from tests.conftest import open_current

def compiled():
    every = {**vars(dense_kernels), **vars(kernels)}
    return {(name, one) for name, kernel in every.items() for one in getattr(kernel, "signatures", ())}

searcher = open_current(Path(sys.argv[1]))
before = compiled()
assert before
job = SearchJob(searcher, searcher.query(SearchRequest("steel mug")), 0.0)
searcher.search([job])
red = {"field": "color", "in": ["red"]}
for request in (
    SearchRequest("steel mug", explain=True, facets=("brand",), sort=(Sort("price", True),)),
    SearchRequest("steel mu", prefix=True, filter=red, facets=("color",)),
    SearchRequest("steel mug", profile="lexical"),
    SearchRequest("steel mug", profile="dense", filter=red),
    SearchRequest(None, filter=red, sort=(Sort("price"),)),
):
    for vector in (None, frozen_vector(job.vector)):
        searcher.search([SearchJob(searcher, searcher.query(request), 0.0, vector=vector)])
for candidate in (RescoreCandidate(id="p001"), RescoreCandidate(text="a red mug")):
    RescoreJob(searcher, "mug", searcher.ranking.profiles["default"], [candidate]).run()
searcher.similar("p001", 5)
searcher.classifier.ranked(job.vector)
why_not(searcher, job.query, 3)
why_not(searcher, searcher.query(SearchRequest("steel mug", filter=red)), 3, frozen_vector(job.vector))
searcher.vectors.search(job.vector, 5, searcher.catalog.column("category").exists())
zz = searcher.query(SearchRequest("zzgrunt", profile="lexical", relax=True, filter=red))
searcher.search([SearchJob(searcher, zz, 0.0)])
new = compiled() - before
assert not new, new
"""


def test_a_loaded_version_compiles_nothing_more(tiny_bundles: Path) -> None:
    """Every kind of request after start-up, in a process of its own: its kernels were compiled while it was warmed."""
    run = subprocess.run(
        [sys.executable, "-c", _FIRST_REQUESTS, str(tiny_bundles)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
