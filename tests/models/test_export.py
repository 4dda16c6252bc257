"""The shipped encoder is what its description says, and the export that made it refuses to ship anything worse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from app.search.embed import Encoder
from app.search.probes import Probes, cosines
from models.parity import SAMPLE, Parity, Vectors, compare, encode_each, encode_padded, onnx_encoder, token_ids

SHIPPED = Path(__file__).parents[2] / "models" / "weights" / "all-MiniLM-L6-v2-int8"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def embed(*texts: str) -> Vectors:
    """Each text alone through the shipped encoder."""
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    return encode_each(onnx_encoder(SHIPPED / "encoder.onnx"), token_ids(tokenizer, texts, 128))


# The shipped artefact: needs onnxruntime and tokenizers.


def test_the_shipped_description_gives_the_digests_of_its_files() -> None:
    """encoder.json cannot stand beside files that it does not describe."""
    description = json.loads((SHIPPED / "encoder.json").read_text("utf-8"))
    assert description["sha256"] == {name: sha256(SHIPPED / name) for name in ("encoder.onnx", "tokenizer.json")}
    assert description["base"]["licence"] == "Apache-2.0"
    assert description["name"] == SHIPPED.name


def test_the_shipped_encoder_is_small_enough_for_a_repository() -> None:
    """25 MB is the bound; the fp32 graph would be 90."""
    assert (SHIPPED / "encoder.onnx").stat().st_size <= 25_000_000


def test_the_shipped_vectors_have_unit_length_and_the_stated_dimension() -> None:
    """A dot product of two of them is a cosine."""
    vectors = embed(*SAMPLE)
    assert vectors.shape == (len(SAMPLE), json.loads((SHIPPED / "encoder.json").read_text("utf-8"))["dimension"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_text_alone_has_the_same_vector_every_time() -> None:
    """Bit for bit, whatever was encoded before it and in whichever session."""
    first = embed("wireless headphones")
    np.testing.assert_array_equal(embed(*SAMPLE[::-1], "wireless headphones")[-1:], first)


def test_the_shipped_tokenizer_neither_pads_nor_cuts_by_itself() -> None:
    """The upstream file pads everything to 128 tokens, which would make a query five times slower."""
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    assert tokenizer.padding is None
    assert tokenizer.truncation is None
    assert tokenizer.encode("wireless headphones").tokens == ["[CLS]", "wireless", "head", "##phones", "[SEP]"]


@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        ("wireless headphones", "bluetooth over-ear headset", "garden hose"),
        ("something to keep coffee hot", "insulated travel mug", "coffee table with drawer"),
        ("puppy chew toy", "rubber bone for young dogs", "cat litter"),
        ("notebook computer", "14 inch laptop", "spiral ruled paper pad"),
    ],
)
def test_the_shipped_encoder_knows_what_words_mean(query: str, near: str, far: str) -> None:
    """No word is shared with the nearer text, or a word is shared with the farther one."""
    vectors = embed(query, near, far)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.05


def test_the_shipped_encoder_lost_no_more_than_its_bounds() -> None:
    """The figures in encoder.json are those of an export that passed."""
    parity = json.loads((SHIPPED / "encoder.json").read_text("utf-8"))["parity"]
    assert parity["fp32_to_torch"]["max_abs_difference"] <= 1e-4
    assert parity["int8_to_fp32"]["mean_cosine"] >= 0.98
    assert parity["int8_to_fp32"]["top10_overlap"] >= 0.9


def test_parity_is_the_agreement_of_vectors_and_of_neighbours() -> None:
    """Four points on a circle, one of which moves past its neighbour."""
    before = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    after = np.array([[1, 0], [0, 1], [-1, 0], [0.6, -0.8]], dtype=np.float32)
    assert compare(after, before) == Parity(
        4, mean_cosine=0.95, min_cosine=0.8, top10_overlap=1.0, max_abs_difference=0.6
    )


# The export itself: needs torch, which the service never does.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with seeded random weights over a vocabulary of letters."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from safetensors.torch import save_file

    from models.bert import BertConfig, BertEncoder

    folder = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {
        "vocab_size": len(words), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 160,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu", **sizes}))
    torch.manual_seed(7)
    weights = BertEncoder(BertConfig(**sizes)).state_dict()
    save_file({f"bert.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def test_an_export_follows_the_contract_and_pytorch(checkpoint: Path, tmp_path: Path) -> None:
    """fp32 ONNX and PyTorch give the same vectors, padded or not, and the folder says what it is."""
    from models.export import export

    report = export(checkpoint, tmp_path / "out", precision="fp32", max_query_tokens=32, query_prefix="query: ")
    assert report.fp32.max_abs_difference <= 1e-4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "encoder.json",
        "encoder.onnx",
        "tokenizer.json",
    ]
    description = json.loads((tmp_path / "out" / "encoder.json").read_text("utf-8"))
    assert description["sha256"]["encoder.onnx"] == sha256(tmp_path / "out" / "encoder.onnx")
    assert (description["dimension"], description["max_query_tokens"], description["query_prefix"]) == (
        64,
        32,
        "query: ",
    )
    assert description["base"]["sha256"] == sha256(checkpoint / "model.safetensors")
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).padding is None
    probes = Probes.of(description)
    assert probes is not None and probes.weights == sha256(checkpoint / "model.safetensors")
    assert cosines(probes.vectors, Encoder(tmp_path / "out").queries(probes.texts)).min() > 0.9999


def test_padding_does_not_change_an_fp32_vector(checkpoint: Path, tmp_path: Path) -> None:
    """The mask takes the padding out of attention and of the mean."""
    from models.export import export

    export(checkpoint, tmp_path, precision="fp32")
    encode = onnx_encoder(tmp_path / "encoder.onnx")
    ids = token_ids(
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")), ("ab", "a much longer text of many letters"), 64
    )
    assert ids[0].shape != ids[1].shape
    np.testing.assert_allclose(encode_padded(encode, ids), encode_each(encode, ids), atol=1e-5)


def test_exporting_twice_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    """A published digest can be reproduced from the checkpoint."""
    from models.export import export

    for name in ("one", "two"):
        export(checkpoint, tmp_path / name, name="same")
    for part in ("encoder.onnx", "tokenizer.json", "encoder.json"):
        assert sha256(tmp_path / "one" / part) == sha256(tmp_path / "two" / part)


def test_a_pickled_checkpoint_gives_the_same_encoder(checkpoint: Path, tmp_path: Path) -> None:
    """pytorch_model.bin is read as tensors only; the exported graph does not depend on the container."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from safetensors.torch import load_file

    from models.export import export

    torch.save(load_file(checkpoint / "model.safetensors"), tmp_path / "pytorch_model.bin")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    export(tmp_path, tmp_path / "pickled", precision="fp32")
    export(checkpoint, tmp_path / "safe", precision="fp32")
    assert sha256(tmp_path / "pickled" / "encoder.onnx") == sha256(tmp_path / "safe" / "encoder.onnx")


def test_an_export_that_lost_parity_fails_and_leaves_the_folder_alone(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong precision step is refused with exit code 1; the same command with the right one passes."""
    onnx = pytest.importorskip("onnx", reason="needs the train extra")
    pytest.importorskip("torch", reason="needs the train extra")
    import models.export

    def ruin(fused: Path, path: Path, precision: str) -> Path:
        model = onnx.load(fused)
        for tensor in model.graph.initializer:
            if list(tensor.dims) == [64, 192]:  # the joint projection to queries, keys and values
                tensor.raw_data = np.roll(onnx.numpy_helper.to_array(tensor), 64, axis=1).tobytes()
        onnx.save(model, path)
        return path

    arguments = [str(checkpoint), str(tmp_path), "--precision", "fp32"]
    with monkeypatch.context() as patch:
        patch.setattr(models.export, "lower", ruin)
        assert models.export.main(arguments) == 1
    assert "cosine to fp32 is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert models.export.main(arguments) == 0


def test_a_missing_attention_fusion_fails_the_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fused kernels the encoder would be right and slow, which no parity check sees."""
    pytest.importorskip("torch", reason="needs the train extra")
    from models.bert import SelfAttention
    from models.export import ExportError, export

    plain = SelfAttention.split_heads
    monkeypatch.setattr(SelfAttention, "split_heads", lambda self, x: plain(self, x).abs())
    with pytest.raises(ExportError, match="0 of 2 Attention were fused"):
        export(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("figure", ["mean_cosine", "min_cosine", "top10_overlap"])
def test_a_figure_that_is_not_a_number_breaks_its_bound(figure: str) -> None:
    """A vector of NaN must not pass because every comparison with it is false."""
    pytest.importorskip("torch", reason="needs the train extra")
    from models.export import broken_bounds

    good: dict[str, Any] = {
        "texts": 3, "mean_cosine": 1.0, "min_cosine": 1.0, "top10_overlap": 1.0, "max_abs_difference": 0.0,
    }  # fmt: skip
    assert broken_bounds(Parity(**good), Parity(**good), "int8") == ()
    assert len(broken_bounds(Parity(**good), Parity(**{**good, figure: float("nan")}), "int8")) == 1


@pytest.mark.parametrize(("key", "value"), [("model_type", "roberta"), ("hidden_act", "gelu_new")])
def test_a_network_of_another_kind_is_refused(checkpoint: Path, tmp_path: Path, key: str, value: str) -> None:
    """It would load and give wrong vectors."""
    pytest.importorskip("torch", reason="needs the train extra")
    from models.bert import BertConfig

    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ValueError, match=f"{key} is '{value}'"):
        BertConfig.read(tmp_path / "config.json")


def test_a_base_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not trusted; only the digests are, and nothing is written when they differ."""
    from models import fetch_base

    monkeypatch.setattr(fetch_base, "_installed", lambda: dict.fromkeys(fetch_base.FILES, b"other"))
    with pytest.raises(fetch_base.UntrustedBase, match=r"model\.safetensors"):
        fetch_base.fetch_base(tmp_path / "base")
    assert not (tmp_path / "base").exists()
