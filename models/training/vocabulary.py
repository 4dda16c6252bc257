"""A WordPiece tokenizer cut down to the pieces that a catalogue uses. Needs tokenizers alone.

WordPiece takes the longest piece that fits, so a text whose pieces are all kept is cut exactly as before, while a word
of other pieces falls into smaller ones. Every single character is kept, so nothing becomes unknown that was known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer

_CHUNK = 1000


def used_pieces(tokenizer: Tokenizer, texts: Iterable[str]) -> set[int]:
    """Ids of the pieces that the texts are cut into."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    used: set[int] = set()
    waiting: list[str] = []
    for text in texts:
        waiting.append(text)
        if len(waiting) == _CHUNK:
            used.update(*(one.ids for one in tokenizer.encode_batch(waiting)))
            waiting = []
    used.update(*(one.ids for one in tokenizer.encode_batch(waiting)))
    return used


def prune(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[Tokenizer, list[int]]:
    """The tokenizer with the special, the single-character and the used pieces alone, renumbered in their old order;
    and, for every new id, the old one. Raises ValueError for another model than WordPiece."""
    state = json.loads(tokenizer.to_str())
    if state["model"]["type"] != "WordPiece":
        raise ValueError(f"only WordPiece can be pruned, not {state['model']['type']}")
    special = {one["id"] for one in state["added_tokens"]} | {state["model"]["vocab"].get(state["model"]["unk_token"])}
    used = used_pieces(tokenizer, texts)
    old = sorted(
        (number, piece)
        for piece, number in state["model"]["vocab"].items()
        if number in special or number in used or len(piece.removeprefix("##")) == 1
    )
    new = {piece: number for number, (_, piece) in enumerate(old)}
    state["model"]["vocab"] = new
    for one in state["added_tokens"]:
        one["id"] = new[one["content"]]
    _renumber(state.get("post_processor"), new)
    pruned = Tokenizer.from_str(json.dumps(state))
    pruned.no_padding()
    pruned.no_truncation()
    return pruned, [number for number, _ in old]


def _renumber(processor: dict[str, Any] | None, new: dict[str, int]) -> None:
    """The template's special tokens carry their ids; the older form carries (token, id) pairs."""
    if processor is None:
        return
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[piece] for piece in token["tokens"]]
    for name in ("sep", "cls"):
        if name in processor:
            piece = processor[name][0]
            processor[name] = [piece, new[piece]]
