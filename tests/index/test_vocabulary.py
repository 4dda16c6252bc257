"""A vocabulary against a list and a dict of the same terms, and what it refuses."""

from __future__ import annotations

import sys
import tracemalloc
from bisect import bisect_left
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import CorruptPart
from app.index import string_kernels as kernels
from app.index.arrays import is_utf8
from app.index.columns import StringTable
from app.index.spelling import Spelling
from app.index.vocabulary import Vocabulary

# Of one to four bytes, at the edges of each; without surrogates, which no file holds, and without line feeds.
LETTERS = "\0\tab~\x7f\x80é\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"
TERMS = st.lists(st.text(LETTERS, min_size=1, max_size=5), unique=True, max_size=40).map(sorted)
ASKED = st.text(f"{LETTERS}\n\ud800\udfff", max_size=6)


@settings(deadline=None)  # the first example compiles
@given(terms=TERMS, asked=st.lists(ASKED, max_size=20))
def test_it_answers_as_a_list_and_a_dict_do(terms: list[str], asked: list[str]) -> None:
    """Numbers, places and terms; of texts that no term can be, too."""
    vocabulary = Vocabulary.of(terms)
    numbers = {term: number for number, term in enumerate(terms)}
    assert [vocabulary[number] for number in range(len(vocabulary))] == terms
    for text in (*terms, *asked, "", "\U0010ffff" * 3):
        assert vocabulary.number(text) == numbers.get(text, -1)
        assert vocabulary.place(text) == bisect_left(terms, text)


def test_a_saved_vocabulary_is_the_same(tmp_path: Path) -> None:
    """Of many terms, of one, and of none."""
    for terms in ([f"term{number:05}" for number in range(10_000)], ["é"], []):
        Vocabulary.of(terms).save(tmp_path / "vocabulary")
        loaded = Vocabulary.load(tmp_path / "vocabulary")
        assert [loaded[number] for number in range(len(loaded))] == terms
        assert [*map(loaded.number, terms)] == [*range(len(terms))]


@pytest.mark.parametrize("terms", [["b", "a"], ["a", "a"], ["a\nb"], [""], ["b", "a\nc"]])
def test_terms_that_it_could_not_tell_apart_are_refused(terms: list[str]) -> None:
    """Out of order, twice, or with a line feed; in order they are taken."""
    with pytest.raises(ValueError):
        Vocabulary.of(terms)
    assert len(Vocabulary.of(["a", "b"])) == 2


@pytest.mark.parametrize(
    "written",
    [b"a\nb\n", b"a\n\nb", b"\n", b"\n\n", b"b\na", b"a\na", b"a\n\xff", b"\xc3", b"a\n\xe2\x82", b"a\xf0\x9f\nb",
     b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"],
)  # fmt: skip
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, written: bytes) -> None:
    """Characters cut off, at the end of the file or of a line; lines out of order, and an empty one after another."""
    (tmp_path / "vocabulary").write_bytes(written)
    with pytest.raises(ValueError):
        Vocabulary.load(tmp_path / "vocabulary")
    (tmp_path / "vocabulary").write_bytes(b"a\nb")
    assert Vocabulary.load(tmp_path / "vocabulary").number("b") == 1


def test_any_bytes_are_refused_or_read_as_what_they_are(tmp_path: Path) -> None:
    """A few bytes changed, cut or doubled: what is taken answers as its own lines do. Both happen."""
    draw = np.random.default_rng(0)
    whole = bytearray("\n".join(sorted({f"é{number % 97}€{number}" for number in range(60)})).encode())
    taken = refused = 0
    for _ in range(600):
        raw = bytearray(whole)
        for at in draw.integers(0, len(raw), draw.integers(1, 4)):
            raw[at] = int(draw.choice([0, 10, 0x41, 0x80, 0xC3, 0xF4, 0xFF, draw.integers(256)]))
        if draw.random() < 0.3:
            del raw[draw.integers(len(raw)) :]
        (tmp_path / "vocabulary").write_bytes(raw)
        try:
            read = Vocabulary.load(tmp_path / "vocabulary")
        except ValueError:
            refused += 1
            continue
        taken += 1
        lines = raw.decode().split("\n") if raw else []
        assert lines == sorted(set(lines)) == [read[number] for number in range(len(read))]
        assert [*map(read.number, lines)] == [*range(len(lines))]
        Spelling(read, np.arange(len(read) + 1)).near("abcdefghi", 2)
    assert taken > 20 and refused > 20


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(CorruptPart, match="vocabulary"):
        Vocabulary.load(tmp_path / "vocabulary")


def test_the_same_term_a_million_times_is_refused_at_once() -> None:
    """Equal terms would all want one slot: the order is looked at before the table is made."""
    began = perf_counter()
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(b"a\n" * 1_000_000 + b"a")
    assert perf_counter() - began < 5.0  # in the table it would be half a trillion steps


def test_every_hash_finds_a_slot() -> None:
    """Equal and negative hashes go on to the next free slot, round the end; a third of the slots stays free."""
    for hashes in ([7] * 50, [-1] * 50, [*range(-25, 25)], []):
        table = kernels.slots(np.array(hashes, np.int64))
        assert sorted(table[table >= 0].tolist()) == [*range(len(hashes))]
        assert 3 * np.count_nonzero(table < 0) >= len(table)


def test_it_costs_a_quarter_of_the_python_objects() -> None:
    """Bytes kept for the same terms; the list and the dict are the control."""
    terms = sorted({f"{number * 7919 % 100_003:x}word" for number in range(30_000)})

    def kept(make: object) -> int:
        tracemalloc.start()
        held = make()  # type: ignore[operator]
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(held) == len(terms)
        return size

    def objects() -> dict[str, int]:
        return {sys.intern(term + "."): number for number, term in enumerate(terms)}

    Vocabulary.of(terms)  # compiled by now
    assert kept(lambda: Vocabulary.of(terms)) * 4 < kept(objects)


def test_pieces_of_a_check_may_cut_characters() -> None:
    """Text longer than what is looked at in one go, with characters across the borders; half a one is refused."""
    text = ("a" + "€" * 50_000).encode()
    assert is_utf8(np.frombuffer(text, np.uint8))
    assert not is_utf8(np.frombuffer(text[:-1], np.uint8))
    assert not is_utf8(np.frombuffer(text.replace("€".encode(), b"\xff", 1), np.uint8))


def test_strings_that_share_a_character_are_refused(tmp_path: Path) -> None:
    """Whole the bytes are UTF-8; no entry is. Cut between the characters they are taken."""
    stem = tmp_path / "strings"
    (tmp_path / "strings.bin").write_bytes("aé".encode())
    np.save(tmp_path / "strings.offsets.npy", np.array([0, 2, 3], np.int64))
    with pytest.raises(CorruptPart, match="UTF-8"):
        StringTable.load(stem)
    np.save(tmp_path / "strings.offsets.npy", np.array([0, 1, 3], np.int64))
    assert StringTable.load(stem)[1] == "é"
