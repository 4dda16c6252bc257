"""The float16 graphs for a GPU: the shipped weights, no longer quantised on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.errors import CorruptPart
from app.runtime.onnx import OnnxEncoder
from app.search.embed import DESCRIPTION, HALF, MODEL, PRODUCT_MODEL, Encoder
from app.search.probes import Probes, cosines
from app.search.searcher import Searcher
from app.search.versions import Encoders
from models.half import NotInt8, float_graph, with_half
from models.parity import PROBE_TEXTS, SAMPLE, compare, encode_each, encode_padded, onnx_encoder, token_ids
from scripts.build import DEFAULT_ENCODER
from tests.bench.bench_gpu import LEAST_FP16, LEAST_INT8, LEAST_OVERLAP, overlap, texts


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped encoder with its graphs in float16."""
    return with_half(DEFAULT_ENCODER, tmp_path_factory.mktemp("half"))


def test_float16_makes_the_vectors_of_float32(half: Path, tmp_path: Path) -> None:
    """Within the bounds that are stated; int8, which quantises every activation, is held to its own."""
    ids = token_ids(Encoder(half, "cpu")._query_tokens, SAMPLE, 64)
    for name in (MODEL, PRODUCT_MODEL):
        float_graph(DEFAULT_ENCODER / name, tmp_path / name, np.float32)
        exact = encode_each(onnx_encoder(tmp_path / name), ids)
        fp16 = compare(encode_each(onnx_encoder(half / HALF[name]), ids), exact)
        int8 = compare(encode_each(onnx_encoder(half / name), ids), exact)
        assert fp16.min_cosine >= LEAST_FP16 and fp16.top10_overlap >= LEAST_OVERLAP
        assert int8.mean_cosine >= LEAST_INT8
        assert int8.mean_cosine < fp16.mean_cosine, "the control: what int8 loses is seen"
        padded = encode_padded(onnx_encoder(tmp_path / name), ids)
        assert compare(padded, exact).min_cosine > 0.99999


def test_nothing_of_the_graph_is_left_to_the_cpu(half: Path) -> None:
    """No shape is computed, so that CUDA can capture the whole as one graph."""
    import onnx

    kinds = {node.op_type for node in onnx.load(half / HALF[MODEL]).graph.node}
    assert {"EmbedLayerNormalization", "Attention", "SkipLayerNormalization"} <= kinds
    assert not kinds & {"Shape", "ConstantOfShape", "DynamicQuantizeLinear", "MatMulInteger"}


def test_the_folder_is_an_encoder_that_serves_int8_on_a_cpu(half: Path) -> None:
    """The graphs for a GPU are named in the description, and change nothing where there is none."""
    assert set(json.loads((half / DESCRIPTION).read_bytes())["sha256"]) >= set(HALF.values())
    shipped, both = Encoder(DEFAULT_ENCODER, "cpu"), Encoder(half, "cpu")
    assert both.precision == "int8" and np.array_equal(both.queries(["garden hose"]), shipped.queries(["garden hose"]))


def test_a_graph_that_is_not_int8_is_refused(half: Path, tmp_path: Path) -> None:
    """Instead of a file that only looks right."""
    with pytest.raises(NotInt8, match="int8"):
        float_graph(half / HALF[MODEL], tmp_path / "again.onnx")


def test_an_encoder_that_strays_on_this_machine_is_not_served(half: Path, tmp_path: Path) -> None:
    """Its network said other vectors of the probe texts; the word names the machine's precision and how far it strayed.
    An encoder that does as its network did is served."""
    from app.index.bundle import Manifest, file_digest

    def manifest(folder: Path) -> Manifest:
        parts = {path.name: (file_digest(path), path.stat().st_size) for path in folder.iterdir()}
        return Manifest("default", "", parts, {}, "")

    assert Encoders("cpu", checked=True).load(half, manifest(half)).strayed() is None
    for path in half.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    value = json.loads((tmp_path / DESCRIPTION).read_bytes())
    probes = Probes.of(value)
    assert probes is not None and probes.texts == PROBE_TEXTS
    wrong = Probes(probes.weights, probes.texts, np.roll(probes.vectors, 1, axis=0))
    assert cosines(wrong.vectors, probes.vectors).mean() < 0.5
    (tmp_path / DESCRIPTION).write_text(json.dumps({**value, "probes": wrong.to_json()}))
    with pytest.raises(CorruptPart, match=r"int8 on this machine's cpu .* mean cosine 0\.\d+ over 16 texts"):
        Encoders("cpu", checked=True).load(tmp_path, manifest(tmp_path))
    Encoders("cpu").load(tmp_path, manifest(tmp_path))  # the gate looks for itself


def test_int8_finds_what_float32_finds(esci: Searcher, tmp_path: Path) -> None:
    """Over the shipped queries and the vectors that are served: mean cosine, and the ten nearest products in common."""
    float_graph(DEFAULT_ENCODER / MODEL, tmp_path / "fp32.onnx", np.float32)
    asked = texts()
    ids = [esci.encoder._query_tokens.encode(text).ids for text in asked]
    exact, served = OnnxEncoder(tmp_path / "fp32.onnx", "cpu").encode(ids), esci.encoder.queries(asked)
    held = np.stack([esci.vectors.vector(row) for row in range(len(esci.catalog))])
    assert cosines(exact, served).mean() >= LEAST_INT8
    assert overlap(exact, served, held) >= 0.95
    assert overlap(exact, np.roll(served, 1, axis=0), held) < 0.2, "the control: other queries' products"
