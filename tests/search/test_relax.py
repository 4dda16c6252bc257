"""What is searched for when nothing is found, and what the answer says of it."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from app.errors import EncoderUnavailable
from app.index.analysis import normalize_text
from app.index.lexical import LexicalIndex
from app.search.job import SearchJob
from app.search.relax import MOST_STEPS, relaxations
from app.search.searcher import RescoreJob, Searcher
from app.types import RescoreCandidate, SearchRequest
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import Client, open_current

WORDS = LexicalIndex.build([(title, title) for title in ["red mug", "red lamp", "red steel kettle 2 l", "wheels"]])
NOTHING = {"field": "brand", "in": ["Acme"]}


def _answer(searcher: Searcher, query: str, **more: Any) -> dict[str, Any]:
    job = SearchJob(
        searcher, searcher.query(SearchRequest(query, relax=more.pop("relax", True), **more)), perf_counter()
    )
    searcher.search([job])
    assert job.answer is not None, job.error
    answer: dict[str, Any] = json.loads(b"{" + job.answer.tail)
    return answer


def test_the_least_informative_word_goes_first() -> None:
    """What the catalogue never says, then the commonest; the rarest stays; order is kept."""
    steps = list(relaxations("zzq red steel mug", WORDS))
    assert [one.text for one in steps] == ["red steel mug", "steel mug", "mug"]
    assert steps[-1].dropped == ("zzq", "red", "steel")
    assert list(relaxations("mug", WORDS)) == []
    assert len(list(relaxations("a b c d e f g h i", WORDS))) == MOST_STEPS


def test_what_belongs_together_is_dropped_together() -> None:
    """Dropping "without" alone would turn the query around; a number says nothing without its unit."""
    for one in relaxations(normalize_text("red chair without wheels 2 litre kettle"), WORDS):
        assert one.text is not None
        assert ("without" in one.text) == ("wheels" in one.text)
        assert ("2" in one.text.split()) == ("l" in one.text.split())
    assert next(iter(relaxations("shampoo sulfate free", WORDS))).dropped in (("shampoo",), ("sulfate free",))


def test_a_search_that_finds_something_is_left_alone(tiny_searcher: Searcher) -> None:
    """Also where the hits lie before the page."""
    assert _answer(tiny_searcher, "steel zzgrunt", profile="lexical")["relaxed"] is None
    far = _answer(tiny_searcher, "steel mug", profile="lexical", offset=190)
    assert far["hits"] == [] and far["relaxed"] is None


def test_only_the_filter_is_left_where_no_word_is_known(tiny_searcher: Searcher) -> None:
    """By popularity, without scores, never beyond the filter; and the answer says that all words were dropped."""
    answer = _answer(tiny_searcher, "zzgrunt vorpal", profile="lexical", filter=NOTHING, k=50)
    assert answer["relaxed"] == {"text": None, "dropped": ["zzgrunt", "vorpal"]}
    assert answer["tier"] == "browse" and answer["total"]["value"] == len(answer["hits"]) > 0
    assert {hit["product"]["brand"] for hit in answer["hits"]} == {"Acme"}
    assert {hit["score"] for hit in answer["hits"]} == {None}


def test_nothing_is_made_up_without_a_filter(tiny_searcher: Searcher) -> None:
    """No product for a word that means nothing here, nor under a filter that lets nothing through."""
    empty = _answer(tiny_searcher, "zzgrunt vorpal", profile="lexical")
    assert empty["hits"] == [] and empty["relaxed"] is None
    closed = {"all": [NOTHING, {"field": "brand", "in": ["Cobalt"]}]}
    empty = _answer(tiny_searcher, "zzgrunt", profile="lexical", filter=closed)
    assert empty["hits"] == [] and empty["relaxed"] is None


def test_an_empty_result_set_stays_empty_unless_asked(tiny_searcher: Searcher) -> None:
    """The default: a filter is relied on by who counts."""
    empty = _answer(tiny_searcher, "zzgrunt vorpal", profile="lexical", filter=NOTHING, relax=False)
    assert empty["hits"] == [] and empty["relaxed"] is None and empty["total"]["value"] == 0


def test_scores_of_a_relaxed_answer_are_those_of_its_text(
    tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for the named text, and rescoring with it, give the same hits and scores."""
    own = tiny_searcher.encoder.queries
    nowhere = np.zeros((1, tiny_searcher.encoder.dimension), np.float32)
    asked = {"zzgrunt steel mug"}

    def queries(texts: list[str]) -> Any:
        return np.concatenate([nowhere if text in asked else own([text]) for text in texts])

    monkeypatch.setattr(tiny_searcher.encoder, "queries", queries)
    monkeypatch.setattr(tiny_searcher, "static", None)
    answer = _answer(tiny_searcher, "zzgrunt steel mug", profile="dense", explain=True)
    assert answer["relaxed"] == {"text": "steel mug", "dropped": ["zzgrunt"]}
    direct = _answer(tiny_searcher, "steel mug", profile="dense", explain=True)
    assert answer["hits"] == direct["hits"] != []
    candidates = [RescoreCandidate(id=hit["id"]) for hit in answer["hits"]]
    job = RescoreJob(tiny_searcher, "steel mug", tiny_searcher.ranking.profiles["dense"], candidates)
    job.run()
    assert [result.score for result in job.results] == [hit["score"] for hit in answer["hits"]]


def test_a_shorter_text_is_read_as_if_it_had_been_typed(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words have other neighbours: here a space that the catalogue does not write comes to stand between two."""
    rows = [*tiny.products(), {"id": "z1", "title": "back"}, {"id": "z2", "title": "pack"}]
    catalogue = tiny.write_catalogue(tmp_path / "p.jsonl", rows)
    words = [
        "build",
        str(catalogue),
        "--encoder",
        str(tiny_encoder),
        "--bundles",
        str(tmp_path / "b"),
        "--static",
        "off",
    ]
    assert aisle(words) == 0
    searcher = open_current(tmp_path / "b")
    own = searcher.encoder.queries
    nowhere = np.zeros((1, searcher.encoder.dimension), np.float32)

    def queries(texts: list[str]) -> Any:
        return np.concatenate([nowhere if "zzgrunt" in text else own([text]) for text in texts])

    monkeypatch.setattr(searcher.encoder, "queries", queries)
    answer = _answer(searcher, "back zzgrunt pack", profile="dense")
    assert answer["relaxed"] == {"text": "backpack", "dropped": ["zzgrunt"]}
    typed = _answer(searcher, "back pack", profile="dense")
    assert typed["corrected"] == "backpack" and answer["hits"] == typed["hits"] != []


def test_a_degraded_search_is_relaxed_to_its_filter(tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the encoder no shorter text can find more; the answer is still marked as degraded."""

    def fail(texts: list[str]) -> None:
        raise EncoderUnavailable("gone")

    monkeypatch.setattr(tiny_searcher.encoder, "queries", fail)
    answer = _answer(tiny_searcher, "zzgrunt vorpal", filter=NOTHING)
    assert answer["degraded"] == {"is": True, "reasons": ["encoder_error"]}
    assert answer["relaxed"]["text"] is None and answer["hits"]


def test_an_empty_answer_is_not_given_before_it_is_relaxed(
    tiny_searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reaches the deadline meanwhile would take it, and keep it in the cache, as if nothing could be found."""
    seen: list[SearchJob] = []
    relaxed = tiny_searcher._with_fewer_words

    def watched(job: SearchJob) -> Any:
        assert job.answer is None
        seen.append(job)
        return relaxed(job)

    monkeypatch.setattr(tiny_searcher, "_with_fewer_words", watched)
    answer = _answer(tiny_searcher, "zzgrunt vorpal", profile="lexical", filter=NOTHING)
    assert answer["relaxed"]["text"] is None and len(seen) == 1


async def test_a_relaxed_answer_is_cached_like_any_other(tiny_bundles: Path, client: Client) -> None:
    """Over HTTP, by the text as typed."""
    async with client(tiny_bundles) as http:
        body = {"query": "zzgrunt vorpal", "profile": "lexical", "filter": NOTHING, "relax": True}
        first, second = [(await http.post("/v1/search", json=body)).json() for _ in range(2)]
        assert (first["cached"], second["cached"]) == (False, True)
        assert first["relaxed"] == second["relaxed"] == {"text": None, "dropped": ["zzgrunt", "vorpal"]}
        assert first["hits"] == second["hits"]
        strict = (await http.post("/v1/search", json=body | {"relax": False})).json()
        assert (strict["cached"], strict["hits"], strict["relaxed"]) == (False, [], None)
