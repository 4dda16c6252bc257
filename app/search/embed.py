"""Stage 3: text becomes a vector, by the encoder that the bundle brings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from app.errors import CorruptPart, EncoderUnavailable
from app.index.bundle import file_digest
from app.metrics import STAGE_FAILURES
from app.runtime.onnx import OnnxEncoder, Provider, cuda_is_built_in
from app.runtime.standby import Standby
from app.runtime.watch import Watch
from app.search.pieces import Reader
from app.search.probes import Probes, cosines
from app.types import Floats

MODEL = "encoder.onnx"
PRODUCT_MODEL = "product_encoder.onnx"
HALF = {MODEL: "encoder.fp16.onnx", PRODUCT_MODEL: "product_encoder.fp16.onnx"}
"""The same weights for a GPU, by the file they stand in for; there where the version was built with --gpu."""
TOKENIZER = "tokenizer.json"
DESCRIPTION = "encoder.json"
LEAST_COSINE = {"int8": 0.98, "fp16": 0.999, "fp32": 0.999}
"""Mean cosine to the fp32 network, by precision; a byte a number is kept of the probes, which costs 0.0001."""
_TOGETHER = 16  # texts from which on the tokenizer's own threads pay
_MOST = 65_536  # numbers of a vector, tokens of a text
Model = OnnxEncoder | Standby
_READINGS = 64  # texts whose tokens are remembered: as many as are under way at once


class Encoder:
    """Query and product encoder of one bundle (they may be the same model). Thread-safe."""

    def __init__(self, folder: Path, provider: Provider = "auto") -> None:
        """Load `encoder.onnx` (and `product_encoder.onnx` where the towers differ), `tokenizer.json` and
        `encoder.json`, which holds their digests. Raises CorruptPart when they do not fit together."""
        self.description: dict[str, Any] = _description(folder)
        self.dimension: int = self.description["dimension"]
        self._query_model, self.precision = _model(folder, MODEL, provider, self.description)
        self._product_model = self._query_model
        if (folder / PRODUCT_MODEL).exists():
            self._product_model, _ = _model(folder, PRODUCT_MODEL, provider, self.description)
        # Of everything that a vector depends on, prefixes and limits too: cached vectors are kept under it.
        self.digest = f"{file_digest(folder / DESCRIPTION)} {self.precision}"
        # A fast tokenizer keeps truncation and padding from its last use: one object a purpose, set once.
        self._query_tokens = _tokenizer(folder, self.description["max_query_tokens"])
        self._product_tokens = _another(self._query_tokens, folder, self.description["max_product_tokens"])
        reader = Reader(self._query_tokens)  # not self: an encoder that nobody uses is let go at once
        self._read = lru_cache(_READINGS)(reader.read)
        self._query_prefix = str(self.description.get("query_prefix", ""))
        self._product_prefix = str(self.description.get("product_prefix", ""))
        self._marks = reader.marks
        self._warm = False
        self.watch = Watch()
        if self._query_model.encode(_token_ids(self._query_tokens, "", ["probe"])).shape[1] != self.dimension:
            raise CorruptPart(f"{MODEL}: its vectors do not have {self.dimension} dimensions")

    @property
    def provider(self) -> str:
        """Where queries are encoded now."""
        return self._query_model.provider

    @property
    def stood_in(self) -> bool:
        """Whether the CPU made the calling thread's last query vectors in the place of a device, which would have made
        slightly others."""
        return isinstance(self._query_model, Standby) and self._query_model.stood_in

    @property
    def batches(self) -> bool:
        """Whether encoding several texts at once pays here (a GPU does)."""
        return self._query_model.batches

    def as_teacher(self) -> Encoder:
        """The same with queries by the product tower: the encoder that a distilled query tower was taught to follow."""
        teacher = copy(self)
        teacher._query_model = self._product_model
        return teacher

    def strayed(self) -> str | None:
        """Where this machine makes other vectors than the network that was exported, within the bounds of its
        precision, a sentence that says how far; None where it does not, or where no probes tell."""
        probes = Probes.of(self.description)
        if probes is None:
            return None
        mean = float(cosines(self.queries(probes.texts), probes.vectors).mean())
        least = LEAST_COSINE.get(self.precision, LEAST_COSINE["int8"])
        if mean >= least:
            return None
        return (
            f"{self.precision} on this machine's {self.provider} gives other vectors than the network itself: "
            f"mean cosine {mean:.4f} over {len(probes.texts)} texts, the least is {least}"
        )

    def warm(self) -> None:
        """Run every shape that a search can bring once; versions that share an encoder find it warm."""
        if not self._warm:
            self._query_model.warm(int(self.description["max_query_tokens"]))
            self._warm = True

    def knows(self, word: str) -> bool:
        """Whether a lower-case word is one token: then it is no misspelling, whatever the catalogue holds."""
        return self._query_tokens.token_to_id(word) is not None

    @property
    def vocabulary(self) -> int:
        """Number of word pieces that the tokenizer knows."""
        return int(self._query_tokens.get_vocab_size())

    def pieces(self, text: str) -> list[int]:
        """Word pieces of a normalised query text, cut at the encoder's limit, without the marks around them."""
        ids, cut = self._read(text)
        if not cut:
            return ids[self._marks[0] : len(ids) - self._marks[1]]
        # What was cut may be as long without marks.
        return list(self._query_tokens.encode(text, add_special_tokens=False).ids)

    def cuts(self, text: str) -> bool:
        """Whether a normalised query text is longer than the encoder reads: its vector is of the beginning."""
        text = self._query_prefix + text
        if len(text.encode()) + sum(self._marks) <= self.description["max_query_tokens"]:
            return False  # a token has a byte at least
        return self._read(text)[1]

    def piece_vectors(self, pieces: Sequence[int]) -> Floats:
        """Unit vectors of queries of one piece each, float32 [n, dimension]. Raises EncoderUnavailable."""
        frame = self._query_tokens.encode(self._query_prefix + "a")
        place = len(frame.ids) - 1 - frame.special_tokens_mask[::-1].index(0)  # between the marks, after the prefix
        before, after = frame.ids[:place], frame.ids[place + 1 :]
        return self._query_model.encode([[*before, piece, *after] for piece in pieces])

    def queries(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of normalised query texts, float32 [n, dimension]. Raises EncoderUnavailable."""
        # Remembered: each is read once for the network and for the table of looked-up vectors.
        return self._vectors(self._query_model, [self._read(self._query_prefix + text)[0] for text in texts])

    def products(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of normalised product texts, float32 [n, dimension]. Raises EncoderUnavailable."""
        return self._vectors(self._product_model, _token_ids(self._product_tokens, self._product_prefix, texts))

    def _vectors(self, model: Model, token_ids: Sequence[Sequence[int]]) -> Floats:
        if self.watch.rests():
            STAGE_FAILURES.labels("embed", "stalled").inc()
            raise EncoderUnavailable("somebody stands still in the encoder; it is tried again shortly")
        with self.watch:
            vectors = model.encode(token_ids)
        if vectors.shape != (len(token_ids), self.dimension):
            STAGE_FAILURES.labels("embed", "shape").inc()
            raise EncoderUnavailable(f"the encoder gave vectors of the shape {vectors.shape}")
        return vectors

    @property
    def rests(self) -> bool:
        """Whether searches do without the network for now: somebody stands still in it."""
        return self.watch.rests()


def _token_ids(tokenizer: Tokenizer, prefix: str, texts: Sequence[str]) -> list[list[int]]:
    if len(texts) < _TOGETHER:
        return [tokenizer.encode(prefix + text).ids for text in texts]
    return [one.ids for one in tokenizer.encode_batch_fast([prefix + text for text in texts])]


def _model(folder: Path, name: str, provider: Provider, description: Mapping[str, Any]) -> tuple[Model, str]:
    """The model and its precision: float16 on a GPU, where there is one and the folder has it; on any GPU with the CPU
    at hand."""
    precision = str(description.get("precision"))
    alone = precision == "int8"
    half = folder / HALF[name]
    if half.exists() and provider != "cpu" and cuda_is_built_in():
        model = OnnxEncoder(half, provider)
        if model.provider == "cuda":
            return _guarded(model, half, False, OnnxEncoder(folder / name, "cpu", alone=alone), description), "fp16"
    model = OnnxEncoder(folder / name, provider, alone=alone)
    if model.provider != "cuda":
        return model, precision
    spare = OnnxEncoder(folder / name, "cpu", alone=alone)
    return _guarded(model, folder / name, alone, spare, description), precision


def _guarded(
    model: OnnxEncoder, path: Path, alone: bool, spare: OnnxEncoder, description: Mapping[str, Any]
) -> Standby:
    def again() -> OnnxEncoder:
        device = OnnxEncoder(path, "cuda", alone=alone)
        device.warm(int(description["max_query_tokens"]))
        return device

    return Standby(model, spare, again)


def product_side(description: Mapping[str, Any]) -> tuple[Any, ...]:
    """All of a description that a product's vector depends on: versions that agree in it can share vectors."""
    digests = description["sha256"]
    settings = (description.get(key) for key in ("dimension", "max_product_tokens", "product_prefix", "precision"))
    return (digests.get(PRODUCT_MODEL, digests[MODEL]), digests[TOKENIZER], *settings)


def _description(folder: Path) -> dict[str, Any]:
    try:
        value = dict(json.loads((folder / DESCRIPTION).read_bytes()))
        for key in ("dimension", "max_query_tokens", "max_product_tokens"):
            if not isinstance(value[key], int) or not 1 <= value[key] <= _MOST:
                raise CorruptPart(f"{DESCRIPTION}: {key} is {value[key]!r}, not 1 to {_MOST}")
        for name in (MODEL, PRODUCT_MODEL, TOKENIZER, *HALF.values()):
            if (folder / name).exists() and file_digest(folder / name) != value["sha256"][name]:
                raise CorruptPart(f"{name}: not the file that {DESCRIPTION} was written for (its sha256 differs)")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptPart(f"{DESCRIPTION}: not an encoder's description ({type(error).__name__})") from error
    return value


def _tokenizer(folder: Path, longest: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises bare Exception
        raise CorruptPart(f"{TOKENIZER}: unreadable") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer


def _another(tokenizer: Tokenizer, folder: Path, longest: int) -> Tokenizer:
    """The same with another limit, over the same table of word pieces, which is nearly all of its memory (some 8 MB).
    Where something should not have come along, it is read anew."""
    shared = Tokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (held := getattr(tokenizer, part)) is not None:
            setattr(shared, part, held)
    for _, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        (shared.add_special_tokens if token.special else shared.add_tokens)([token])
    shared.enable_truncation(**(tokenizer.truncation or {}))
    if shared.to_str() != tokenizer.to_str():
        return _tokenizer(folder, longest)
    shared.enable_truncation(longest)
    return shared
