"""A pruned vocabulary cuts the catalogue as before, in fewer pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import models
from models.training.vocabulary import prune

SHIPPED = Path(models.__file__).parent / "weights" / "all-MiniLM-L6-v2-int8" / "tokenizer.json"
TEXTS = ("stainless steel kettle 1.7 l", "noise-cancelling headphones", "café crème brûlée torch")


def test_texts_of_the_catalogue_are_cut_as_before() -> None:
    """The same pieces, special ones too, and every new id leads to the old one."""
    whole = Tokenizer.from_file(str(SHIPPED))
    pruned, old = prune(Tokenizer.from_file(str(SHIPPED)), TEXTS)
    assert pruned.get_vocab_size() == len(old) < 3000
    for text in TEXTS:
        before, after = whole.encode(text), pruned.encode(text)
        assert after.tokens == before.tokens
        assert [old[number] for number in after.ids] == before.ids


def test_a_word_of_other_pieces_falls_into_smaller_ones() -> None:
    """Nothing becomes unknown that was not."""
    pruned, _ = prune(Tokenizer.from_file(str(SHIPPED)), TEXTS)
    tokens = pruned.encode("xylophone").tokens
    assert "[UNK]" not in tokens
    assert len(tokens) > 4


def test_another_model_than_wordpiece_is_refused() -> None:
    """Its longest-match argument would not hold."""
    with pytest.raises(ValueError, match="WordPiece"):
        prune(Tokenizer(WordLevel({"a": 0}, unk_token="a")), ["a"])
