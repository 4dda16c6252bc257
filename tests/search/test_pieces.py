"""Word pieces read word by word are those that the tokenizer reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from app.search.embed import TOKENIZER, _tokenizer
from app.search.pieces import Reader
from models.relevance import Queries
from tests.conftest import ROOT

FOLDER = next(path.parent for path in sorted((ROOT / "models" / "weights").glob(f"*/{TOKENIZER}")))
LONGEST = 12
PLAIN = st.text("abcdeinorst 0129XZ", max_size=60)
ANY = st.text(st.sampled_from("ab e9Q-.'é中\t\u00a0[]"), max_size=30)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return _tokenizer(FOLDER, LONGEST)


@pytest.fixture(scope="module")
def reader(tokenizer: Tokenizer) -> Reader:
    return Reader(tokenizer)


def read_whole(tokenizer: Tokenizer, text: str) -> tuple[list[int], bool]:
    encoding = tokenizer.encode(text)
    return encoding.ids, bool(encoding.overflowing)


@given(text=PLAIN | ANY)
def test_any_text_has_the_pieces_that_the_tokenizer_reads(reader: Reader, tokenizer: Tokenizer, text: str) -> None:
    assert reader.read(text) == read_whole(tokenizer, text)


def test_shoppers_queries_have_the_pieces_that_the_tokenizer_reads(reader: Reader, tokenizer: Tokenizer) -> None:
    """And most of them are read word by word, else this would show nothing."""
    texts = list(Queries.load(ROOT / "data" / "esci" / "train_positives.queries.tsv").values())
    assert [reader.read(text) for text in texts] == [read_whole(tokenizer, text) for text in texts]
    assert reader._word.cache_info().currsize > 300


@pytest.mark.parametrize("pieces", range(LONGEST - 4, LONGEST + 2))
def test_a_text_is_cut_where_the_tokenizer_cuts_it(reader: Reader, tokenizer: Tokenizer, pieces: int) -> None:
    for text in (" ".join("a" * pieces), "zxqj" * pieces):
        assert reader.read(text) == read_whole(tokenizer, text)


def test_a_word_with_a_token_of_its_own_across_a_space_is_read_whole() -> None:
    """Control: such a token, and another way of reading, are seen."""
    tokenizer = Tokenizer.from_file(str(FOLDER / TOKENIZER))
    assert Reader(tokenizer)._by_words
    tokenizer.add_tokens([AddedToken("gift card")])
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    reader = Reader(tokenizer)
    assert reader.read("a gift card") == read_whole(tokenizer, "a gift card")
    assert not reader._by_words
    described = json.loads(_tokenizer(FOLDER, LONGEST).to_str())
    described["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    other = Tokenizer.from_str(json.dumps(described))
    assert not Reader(other)._by_words
