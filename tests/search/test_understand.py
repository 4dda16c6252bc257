"""What is mended in a query and what is left as typed; the corrected text is what everything else sees."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.index.analysis import normalize_text
from app.index.lexical import LexicalIndex
from app.index.spelling import Spelling
from app.search.job import SearchJob
from app.search.searcher import RescoreJob, Searcher
from app.search.understand import MOST_LOOKUPS, corrected
from app.types import RescoreCandidate, SearchRequest

TITLES = ["wireless headphone", "soda can", "steel kettle 2 l", "wh1000xm4 case", "book", "smart watch", "vinpocetine"]
SPELLING: Spelling = LexicalIndex.build([(title, title) for title in TITLES for _ in range(6)]).spelling


def _mend(text: str, **options: Any) -> str:
    return corrected(text, SPELLING, {"sofa", "head"}.__contains__, **options)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("wireless headphone", "wireless headphone"),
        ("wirelss headphnoe", "wireless headphone"),
        ("(wirelss) ketle, 2 l", "(wireless) kettle, 2 l"),
        ("head phones", "headphones"),
        ("wirelessheadphones", "wireless headphones"),
        ("vinpositine", "vinpocetine"),
        ("wireless, head-phone", "wireless, head-phone"),
    ],
)
def test_letters_and_spaces_are_mended(typed: str, meant: str) -> None:
    """One edit, two in a long word, a space missing or too many; signs stay where they are."""
    assert _mend(typed) == meant


@pytest.mark.parametrize(
    "typed", ["sofa", "wh1000xm5", "bok", "zzgrunt", "苏打 水", "smart book", "wh1000xm", "3 kettle2"]
)
def test_what_may_be_meant_is_left_alone(typed: str) -> None:
    """Words that the encoder knows (a sofa is no soda), numbers, short words, words without neighbours."""
    assert _mend(typed) == typed


def test_a_word_still_being_typed_is_not_mended() -> None:
    """With `prefix` the last word stays while terms begin with it, and is mended as soon as none does."""
    assert _mend("kettl") == "kettle"
    assert _mend("kettl", prefix=True) == "kettl"
    assert _mend("wirelss kettl", prefix=True) == "wireless kettl"
    assert _mend("kettel", prefix=True) == "kettle"
    assert _mend("kettl ", prefix=True) == "kettle "


def test_a_text_of_strange_words_is_not_rewritten_at_length() -> None:
    """The work that one query can cause is bounded."""
    assert _mend(" ".join(["kettel"] * 40)).split().count("kettle") == MOST_LOOKUPS
    strange = " ".join(["zzgrunt"] * MOST_LOOKUPS)
    assert _mend(f"{strange} kettel") == f"{strange} kettel"
    assert _mend("wirelessheadphones" * 20) == "wirelessheadphones" * 20


@given(st.text(st.sampled_from("aehlostxиé锅ᄀ'\"-,. 19kw²"), max_size=60))
def test_any_text_can_be_read_and_only_words_of_letters_change(text: str) -> None:
    """Whatever is typed, digits survive in their order."""
    typed = normalize_text(text)
    meant = _mend(typed)
    assert [c for c in meant if c.isdigit()] == [c for c in typed if c.isdigit()]
    assert meant == _mend(typed)


def _answer(searcher: Searcher, request: SearchRequest) -> dict[str, Any]:
    job = SearchJob(searcher, searcher.query(request), perf_counter())
    searcher.search([job])
    assert job.answer is not None
    answer: dict[str, Any] = json.loads(b"{" + job.answer.tail)
    return answer


def test_a_misspelt_query_scores_as_the_corrected_one_searched_and_rescored(tiny_searcher: Searcher) -> None:
    """The words and the encoder see the same corrected text, and the answer tells it."""
    right = _answer(tiny_searcher, SearchRequest("wireless headphones", k=20))
    wrong = _answer(tiny_searcher, SearchRequest("wirless headphnes", k=20))
    assert right["corrected"] is None
    assert wrong["corrected"] == "wireless headphones"
    assert wrong["hits"] == right["hits"] != []
    query = tiny_searcher.query(SearchRequest("wirless headphnes"))
    job = RescoreJob(
        tiny_searcher, query.text or "", query.profile, [RescoreCandidate(id=h["id"]) for h in right["hits"]]
    )
    job.run()
    assert [result.score for result in job.results] == pytest.approx([hit["score"] for hit in right["hits"]], abs=1e-6)


def test_an_answer_to_a_misspelt_query_is_kept_apart(tiny_searcher: Searcher) -> None:
    """Its `corrected` is not null, so it must not be served to who typed it right; two misspellings share one."""
    parts = [tiny_searcher.query(SearchRequest(f"wireless {word}")).parts for word in ("kettle", "kettel", "kettlle")]
    assert parts[0] != parts[1] == parts[2]
