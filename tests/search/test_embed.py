"""The encoder's two tokenizers: one table of word pieces, and each its own limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from app.search.embed import TOKENIZER, Encoder, _another, _tokenizer
from tests.conftest import ROOT
from tests.tiny import write_encoder

FOLDERS = sorted(path.parent for path in (ROOT / "models" / "weights").glob(f"*/{TOKENIZER}"))
TEXT = "wireless headphones [SEP] for runners, 2 pairs " * 40


@pytest.mark.parametrize("folder", [None, *FOLDERS], ids=lambda folder: getattr(folder, "name", "tiny"))
def test_a_tokenizer_with_another_limit_is_as_if_read_anew(folder: Path | None, tmp_path: Path) -> None:
    """Whatever it can be told is the same, and so are its tokens; the first one keeps its own limit."""
    folder = folder or write_encoder(tmp_path)
    first = _tokenizer(folder, 16)
    second, anew = _another(first, folder, 32), _tokenizer(folder, 32)
    assert second.to_str() == anew.to_str()
    for text in (TEXT, "", "mug", "[CLS] é 铁锅"):
        assert second.encode(text).ids == anew.encode(text).ids
        assert first.encode(text).ids == _tokenizer(folder, 16).encode(text).ids
    assert len(first.encode(TEXT).ids) == 16 and len(second.encode(TEXT).ids) == 32


def test_a_tokenizer_that_would_lose_something_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the comparison sees a token that did not come along."""
    folder = write_encoder(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.add_tokens([AddedToken("gift card")])
    tokenizer.save(str(folder / TOKENIZER))
    assert "gift card" in json.dumps(json.loads((folder / TOKENIZER).read_text())["added_tokens"])
    first = _tokenizer(folder, 16)
    monkeypatch.setattr(Tokenizer, "add_tokens", lambda *_: 0)
    second = _another(first, folder, 32)
    assert second.encode("a gift card").ids == _tokenizer(folder, 32).encode("a gift card").ids


@pytest.mark.parametrize("prefix", ["", "query: "])
def test_a_text_is_cut_where_it_has_a_token_more_than_is_read(tmp_path: Path, prefix: str) -> None:
    """As many as are read are no cut; one more is, and so are any number."""
    encoder = Encoder(write_encoder(tmp_path), "cpu")
    encoder._query_prefix = prefix
    most = encoder.description["max_query_tokens"]
    room = most - len(encoder._query_tokens.encode(prefix).ids)
    for words, cut in ((1, False), (room - 1, False), (room, False), (room + 1, True), (5 * most, True)):
        assert encoder.cuts(" ".join("a" * words)) is cut, words
