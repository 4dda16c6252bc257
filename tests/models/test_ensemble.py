"""Two encoders in one graph: its cosine is the weighted mean of theirs, and it is built and served like any other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer

from app.search.embed import Encoder
from models.ensemble import EnsembleError, combine, main
from models.training.vocabulary import prune
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import Client

TEXTS = ("steel mug", "a folding wooden lamp of oak", "bright speaker 17 inch", "mug")


def write_pruned(folder: Path, texts: tuple[str, ...] = TEXTS, seed: int = 4) -> Path:
    """Another tiny encoder, cut down to the pieces of some texts: what `aisle train` makes of kind words."""
    tiny.write_encoder(folder, seed)
    tokenizer, old = prune(Tokenizer.from_file(str(folder / "tokenizer.json")), texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = onnx.load(folder / "encoder.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "table":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[old].copy(), "table"))
    onnx.save(model, folder / "encoder.onnx")
    _seal(folder)
    return folder


def _seal(folder: Path) -> None:
    description = json.loads((folder / "encoder.json").read_text())
    for name in description["sha256"]:
        description["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "encoder.json").write_text(json.dumps(description))


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """Two encoder folders of one vocabulary, the second's cut down."""
    return tiny.write_encoder(tmp_path / "first"), write_pruned(tmp_path / "second")


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_its_cosine_is_the_weighted_mean_of_both(parts: tuple[Path, Path], tmp_path: Path, share: float) -> None:
    """Over texts that both cut alike; vectors keep length 1."""
    combine(*parts, tmp_path / "both", share=share)
    first, second, both = (Encoder(folder, "cpu").queries(TEXTS) for folder in (*parts, tmp_path / "both"))
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1.0, atol=1e-5)
    expected = (1 - share) * (first @ first.T) + share * (second @ second.T)
    np.testing.assert_allclose(both @ both.T, expected, atol=1e-5)
    assert np.abs(first @ first.T - second @ second.T).max() > 0.05


def test_a_piece_that_the_second_lacks_does_not_count_in_it(parts: tuple[Path, Path], tmp_path: Path) -> None:
    """The second part is that of the text without the piece; the first part reads all of it."""
    combine(*parts, tmp_path / "both", share=0.5)
    vectors = Encoder(tmp_path / "both", "cpu").queries(["mug", "mug zz", "zz"])
    a, b = vectors[:, : tiny.DIMENSION], vectors[:, tiny.DIMENSION :]
    np.testing.assert_allclose(b[0], b[1], atol=1e-6)
    np.testing.assert_allclose(b[2], 0.0, atol=1e-6)
    assert np.abs(a[0] - a[1]).max() > 0.01


async def test_it_is_built_and_served(parts: tuple[Path, Path], tmp_path: Path, client: Client) -> None:
    """By the encoder contract alone."""
    assert main([str(parts[0]), str(parts[1]), str(tmp_path / "both"), "--share", "0.3"]) == 0
    catalogue = tiny.write_catalogue(tmp_path / "products.jsonl", tiny.products())
    bundles = tmp_path / "bundles"
    assert aisle(["build", str(catalogue), "--encoder", str(tmp_path / "both"), "--bundles", str(bundles)]) == 0
    async with client(bundles) as http:
        response: httpx.Response = await http.post("/v1/search", json={"query": "steel mug", "k": 3})
    assert response.status_code == 200 and len(response.json()["hits"]) == 3


def test_what_does_not_go_together_is_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    """Pieces that the first does not have, towers that differ, prefixes, a share that leaves one out; nothing is
    written."""
    first, second = parts
    out = tmp_path / "both"
    with pytest.raises(EnsembleError, match="none of the first's"):
        combine(second, first, out, share=0.5)
    for share in (0.0, 1.0):
        with pytest.raises(EnsembleError, match="share"):
            combine(first, second, out, share=share)
    description = json.loads((first / "encoder.json").read_text())
    (first / "encoder.json").write_text(json.dumps({**description, "query_prefix": "query: "}))
    with pytest.raises(EnsembleError, match="prefix"):
        combine(first, second, out, share=0.5)
    (first / "encoder.json").write_text(json.dumps(description))
    (second / "product_encoder.onnx").write_bytes(b"")
    with pytest.raises(EnsembleError, match="of its own"):
        combine(first, second, out, share=0.5)
    assert not out.exists()
    assert main([str(first), str(second), str(out)]) == 1
