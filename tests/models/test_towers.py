"""Encoders from scratch give unit vectors, and the same alone as beside longer texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from models.graph import lower, trace  # noqa: E402 - needs torch
from models.parity import onnx_encoder  # noqa: E402
from models.towers import WordVectors, lstm_towers, word_towers  # noqa: E402

PIECES = 50
TEXTS = ([5, 6, 7], [9], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [30, 31, 32, 33, 34])


def made(kind: str) -> Any:
    torch.manual_seed(0)
    towers = word_towers(PIECES, 16, 0.1) if kind == "words" else lstm_towers(PIECES, 16, 12, 0.1)
    return towers.eval()


def batch(filler: int = 0, more: int = 0) -> tuple[Any, Any]:
    """All texts padded to the longest and `more`, with some id in the padding."""
    longest = max(map(len, TEXTS)) + more
    ids = torch.tensor([[*text, *[filler] * (longest - len(text))] for text in TEXTS])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in TEXTS])
    return ids, mask


@pytest.mark.parametrize("kind", ["words", "lstm"])
def test_a_text_alone_has_the_vector_that_it_has_in_a_padded_batch(kind: str) -> None:
    """Whatever the padding is filled with; but a text that is not padding does count."""
    tower = made(kind).product
    with torch.no_grad():
        alone = torch.cat([tower(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64)) for text in TEXTS])
        for filler, more in ((0, 0), (17, 0), (17, 9)):
            torch.testing.assert_close(tower(*batch(filler, more)), alone, atol=1e-6, rtol=0)
        ids, mask = batch(17, 9)
        assert not torch.allclose(tower(ids, torch.ones_like(mask)), alone, atol=1e-2)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(len(TEXTS)))


def test_an_lstm_reads_in_order_and_both_ways() -> None:
    """Another order is another text, at its beginning and at its end; for word vectors it is the same."""
    texts = torch.tensor([[5, 6, 7, 8], [6, 5, 7, 8], [5, 6, 8, 7]])
    with torch.no_grad():
        lstm = made("lstm").query(texts, torch.ones_like(texts))
        words = made("words").query(texts, torch.ones_like(texts))
    assert float((lstm[0] - lstm[1]).abs().max()) > 1e-3 and float((lstm[0] - lstm[2]).abs().max()) > 1e-3
    torch.testing.assert_close(words[0], words[1])


def test_lstm_towers_share_their_words_and_nothing_else() -> None:
    """One text has two vectors, and one table of words is trained by both sides."""
    towers = made("lstm")
    assert towers.differ and towers.query.words is towers.product.words
    text = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        apart = towers.query(text, torch.ones_like(text)) - towers.product(text, torch.ones_like(text))
    assert float(apart.abs().max()) > 1e-3
    assert not made("words").differ


def test_a_piece_can_come_to_count_for_little() -> None:
    """A text with a weightless piece is the text without it."""
    words = WordVectors(PIECES, 16).eval()
    with torch.no_grad():
        words.weights.weight[6] = -30.0
        ids = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 7]])
        long, short = (words(one, torch.ones_like(one)) for one in ids)
    torch.testing.assert_close(long, short)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", ["words", "lstm"])
def test_the_exported_graph_follows_the_tower(kind: str, precision: Any, tmp_path: Path) -> None:
    """Any batch, any length, and in fp32 right under padding too."""
    tower = made(kind).product
    lower(trace(tower, tmp_path / "traced.onnx"), tmp_path / "encoder.onnx", precision)
    encode: Callable[..., Any] = onnx_encoder(tmp_path / "encoder.onnx")
    for text in TEXTS:
        ids = torch.tensor([text])
        with torch.no_grad():
            expected = tower(ids, torch.ones_like(ids)).numpy()
        found = encode(ids.numpy(), np.ones((1, len(text)), dtype=np.int64))
        assert float((found * expected).sum()) > (0.99999 if precision == "fp32" else 0.99)
    if precision == "fp32":
        with torch.no_grad():
            expected = tower(*batch(17)).numpy()
        np.testing.assert_allclose(encode(*(part.numpy() for part in batch(17))), expected, atol=1e-5)
