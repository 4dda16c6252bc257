"""What an export lost: one encoder against another over a sample of texts.

Needs onnxruntime and tokenizers only. Texts are encoded one at a time, as the service does on a CPU: dynamic int8
takes one activation scale a tensor, so in a batch a vector would depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from app.index.analysis import normalize_text

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Encode = Callable[[Ids, Ids], Vectors]

SAMPLE = (
    "wireless headphones", "bluetooth over-ear headset with noise cancelling", "wired earbuds with microphone 3.5mm",
    "garden hose", "expandable garden hose 50 ft with 10 function spray nozzle", "soaker hose for flower beds",
    "coffee", "espresso machine 15 bar with milk frother", "french press 34 oz stainless steel",
    "paper coffee filters number 4, 100 count", "insulated travel mug 16 oz", "electric kettle 1.7 l without plastic",
    "running shoes women", "men's trail running shoe waterproof size 11", "kids sneakers with lights",
    "leather dress shoes brown", "winter boots womens wide calf", "shoe laces 45 inch black 2 pair",
    "iphone 11 case", "shockproof clear phone case compatible with galaxy s20 ultra", "usb c to usb c cable 6ft",
    "type-c fast charger 65w", "screen protector tempered glass 3 pack", "car phone mount dashboard",
    "queen mattress", "12 inch gel memory foam mattress, medium firm, CertiPUR-US certified, queen",
    "deep pocket sheet set 1800 thread count king grey", "weighted blanket 15 lbs", "down alternative pillow 2 pack",
    "blackout curtains 84 inch", "17-inch laptop backpack", "carry on luggage with spinner wheels 22x14x9",
    "hiking backpack 50L rain cover included", "lunch box for kids", "diaper bag backpack",
    "gaming laptop 16GB RAM 1TB SSD RTX", "mechanical keyboard hot-swappable brown switches", "wireless mouse",
    "27 inch 4k monitor", "hdmi to displayport adapter", "external hard drive 2tb", "ssd 1tb nvme m.2",
    "dog food grain free", "salmon and sweet potato dry dog food for small breeds, 15 lb bag", "cat litter unscented",
    "aquarium heater 100w", "chew toys for puppies", "retractable leash",
    "c++ programming book", "the hobbit paperback", "children's picture book about dinosaurs", "sudoku large print",
    "vitamin d3 5000 iu", "whey protein powder chocolate 5 lbs", "shampoo without sulfate", "electric toothbrush heads",
    "moisturizer for dry sensitive skin, fragrance free, 16 fl oz", "hair dryer ionic 1875w",
    "cordless drill 20v", "impact driver kit with two 4Ah batteries and charger in a tool bag", "led bulb e26 60w",
    "extension cord 25 ft outdoor", "wood screws #8 x 2", "air filter 16x25x1 merv 11 pack of 6",
    "yoga mat", "adjustable dumbbells 5-52.5 lb pair", "resistance bands set", "inflatable kayak 2 person",
    "lego star wars", "wooden train set 100 pieces for toddlers", "board games for family night", "baby monitor",
    "ñandú", "电饭煲 1.5L", "a",
    ("This countertop air fryer roasts, bakes, dehydrates and reheats. Eight presets, a dishwasher-safe basket, "
    "a 5.8 quart capacity for four people, a recipe book with 30 dishes, and a viewing window. Preheats in three "
    "minutes. Non-stick coating without PFOA. Shake reminder, auto shut-off and cool-touch handle for safety. "
    "Dimensions 11 x 14 x 12 inch, 120 V, 1700 W. One year warranty and service from the manufacturer. "
    "Fries vegetables, chicken wings, salmon and frozen food with up to 85% less oil than a deep fryer."),
)  # fmt: skip

PROBE_TEXTS = tuple(normalize_text(text) for text in SAMPLE[::5])
"""What the description of an encoder holds its network's vectors of (app.search.probes)."""


@dataclass(frozen=True)
class Parity:
    """Agreement of an encoder with its reference over `texts` texts; cosines are of unit vectors."""

    texts: int
    mean_cosine: float
    min_cosine: float
    top10_overlap: float
    max_abs_difference: float


def load_session(path: Path) -> ort.InferenceSession:
    """A single-threaded CPU session, the setting in which a query is encoded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_encoder(path: Path) -> Encode:
    """The encoder of an ONNX file: (input_ids, attention_mask) → unit vectors [batch, dimension]."""
    session = load_session(path)

    def encode(input_ids: Ids, attention_mask: Ids) -> Vectors:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        return np.asarray(session.run(["embedding"], feeds)[0], dtype=np.float32)

    return encode


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[Ids]:
    """One [1, tokens] array a text, cut at `max_tokens` with [CLS] and [SEP] kept."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return [np.array([encoding.ids], dtype=np.int64) for encoding in tokenizer.encode_batch(list(texts))]


def encode_each(encode: Encode, ids: Sequence[Ids]) -> Vectors:
    """[texts, dimension], every text alone."""
    return np.concatenate([encode(row, np.ones_like(row)) for row in ids])


def encode_padded(encode: Encode, ids: Sequence[Ids]) -> Vectors:
    """[texts, dimension], all texts in one batch padded to the longest: what the mask must make harmless."""
    longest = max(row.shape[1] for row in ids)
    rows = [np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in ids]
    mask = [np.pad(np.ones_like(row), ((0, 0), (0, longest - row.shape[1]))) for row in ids]
    return encode(np.concatenate(rows), np.concatenate(mask))


def compare(vectors: Vectors, reference: Vectors) -> Parity:
    """Row by row, both [texts, dimension]; the overlap is that of each text's ten nearest other texts."""
    cosines = np.sum(vectors * reference, axis=1, dtype=np.float64)
    pairs = zip(_nearest(vectors, 10), _nearest(reference, 10), strict=True)
    overlap = np.mean([len(set(ours) & set(theirs)) / len(theirs) for ours, theirs in pairs])
    return Parity(
        texts=len(vectors),
        mean_cosine=round(float(cosines.mean()), 6),
        min_cosine=round(float(cosines.min()), 6),
        top10_overlap=round(float(overlap), 4),
        max_abs_difference=float(f"{np.abs(vectors - reference).max():.3g}"),
    )


def _nearest(vectors: Vectors, k: int) -> NDArray[np.int64]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(k, len(vectors) - 1)]
