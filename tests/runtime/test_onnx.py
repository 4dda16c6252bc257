"""The encoder's session: vectors that do not depend on company, a visible provider, models that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from app.errors import CorruptPart, EncoderUnavailable
from app.runtime.onnx import OnnxEncoder, Provider
from app.search.embed import Encoder
from tests.tiny import DIMENSION

TEXTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 13], [1, 2, 3]]


@pytest.fixture
def encoder(tiny_encoder: Path) -> OnnxEncoder:
    """The tiny model on the CPU."""
    return OnnxEncoder(tiny_encoder / "encoder.onnx", "cpu")


def test_a_text_alone_and_among_others_has_one_vector(encoder: OnnxEncoder) -> None:
    """Bit for bit, unit length, in the order given."""
    together = encoder.encode(TEXTS)
    assert together.shape == (4, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    assert all(np.array_equal(encoder.encode([ids])[0], row) for ids, row in zip(TEXTS, together, strict=True))
    assert np.array_equal(together[0], together[3])


def test_padding_to_the_grid_changes_nothing_but_rounding(encoder: OnnxEncoder) -> None:
    """The path of a GPU, run on the CPU with an fp32 model: order kept, padding masked, rows of filling cut off."""
    padded = encoder._encode_padded(TEXTS * 30)
    np.testing.assert_allclose(padded, np.tile(encoder.encode(TEXTS), (30, 1)), atol=1e-5)


def test_cuda_that_is_asked_for_and_not_there_is_an_error(tiny_encoder: Path) -> None:
    """Never a silent fall-back; "auto" falls back and says what it took."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(EncoderUnavailable, match="CUDA"):
        OnnxEncoder(tiny_encoder / "encoder.onnx", "cuda")
    assert OnnxEncoder(tiny_encoder / "encoder.onnx", "auto").provider == "cpu"


@pytest.mark.promise("D7", "an encoder's NaN is an error")
def test_vectors_that_are_not_finite_are_an_error(encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN never leaves the encoder."""
    monkeypatch.setattr(encoder, "_run", lambda ids, mask: np.full((len(ids), DIMENSION), np.nan, np.float32))
    with pytest.raises(EncoderUnavailable, match="finite"):
        encoder.encode([[1]])


def test_a_session_that_fails_is_the_services_own_error(encoder: OnnxEncoder) -> None:
    """A token that the model does not know of: no foreign exception leaves the file."""
    with pytest.raises(EncoderUnavailable, match="failed"):
        encoder.encode([[10**9]])


def test_a_failing_provider_does_not_move_the_session_unseen(
    encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime would go on with a new session on the CPU, while `provider` and `batches` still speak of the GPU."""
    session, tried = encoder._session, 0
    held = session._sess

    class Lost:
        def __getattr__(self, name: str) -> object:
            return getattr(held, name)

        def run(self, *arguments: object) -> object:
            nonlocal tried
            tried += 1
            raise EPFail("CUDA error 999")

    monkeypatch.setattr(session, "_sess", Lost())
    for _ in range(2):
        with pytest.raises(EncoderUnavailable, match="EPFail"):
            encoder.encode([[1]])
    assert tried == 2


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_device_that_cannot_start_is_not_held_against_the_model(
    wanted: Provider, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime raises where CUDA_PATH is set and CUDA is broken: "auto" takes the CPU, "cuda" says what is missing,
    and a broken file is still a broken file."""
    whole, tried = onnxruntime.InferenceSession, 0

    def start(path: str, options: object, providers: list[str], provider_options: list[object]) -> object:
        nonlocal tried
        if "CUDAExecutionProvider" in providers:
            tried += 1
            raise RuntimeError("CUDA_PATH is set but CUDA wasn't able to be loaded")
        return whole(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    if wanted == "auto":
        assert OnnxEncoder(tiny_encoder / "encoder.onnx", wanted).provider == "cpu"
    else:
        with pytest.raises(EncoderUnavailable, match="CUDA"):
            OnnxEncoder(tiny_encoder / "encoder.onnx", wanted)
    (tmp_path / "encoder.onnx").write_bytes(b"no model")
    with pytest.raises(CorruptPart):
        OnnxEncoder(tmp_path / "encoder.onnx", wanted)
    assert tried == 4  # with CUDA graphs and without, of the whole file and of the broken one


@pytest.mark.parametrize(("precision", "batches"), [("int8", False), ("fp16", True)])
def test_a_quantised_model_encodes_every_text_alone_on_a_gpu_too(
    precision: str, batches: bool, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamic int8 takes one scale a tensor: padding and company would change the vector, and so the score."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    description = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**description, "precision": precision}))
    encoder = Encoder(folder, "cpu")
    monkeypatch.setattr(encoder._query_model, "provider", "cuda")
    assert encoder.batches is batches


@pytest.mark.parametrize("fault", ["garbage", "absent", "other inputs", "other output"])
def test_a_file_that_is_no_encoder_is_refused(fault: str, tmp_path: Path) -> None:
    """By name."""
    path = tmp_path / "encoder.onnx"
    if fault == "garbage":
        path.write_bytes(b"no model")
    elif fault != "absent":
        names = ("ids", "mask") if fault == "other inputs" else ("input_ids", "attention_mask")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in names]
        node = helper.make_node("Cast", [names[0]], ["embedding"], to=TensorProto.FLOAT)
        shape = ["b", "t", "d"] if fault == "other output" else ["b", "t"]
        if fault == "other output":
            node = helper.make_node("Cast", ["wide"], ["embedding"], to=TensorProto.FLOAT)
        nodes = [helper.make_node("Unsqueeze", [names[0], "axis"], ["wide"]), node]
        axis = helper.make_tensor("axis", TensorProto.INT64, [1], [2])
        output = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(nodes, "g", inputs, output, [axis])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    with pytest.raises(CorruptPart, match=r"encoder\.onnx"):
        OnnxEncoder(path, "cpu")


@pytest.mark.parametrize("cuts", [1, 7])
def test_external_data_outside_the_model_is_not_followed(cuts: int, tmp_path: Path) -> None:
    """A model that names a file elsewhere for its weights is refused."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 64)
    folder = tmp_path / "model"
    folder.mkdir()
    tensor = helper.make_tensor("table", TensorProto.FLOAT, [2, 8], np.zeros(16, np.float32))
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    location = tensor.external_data.add()
    location.key, location.value = "location", "../secret.bin" if cuts == 1 else str(secret)
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in ("input_ids", "attention_mask")]
    output = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", "t", 8])]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["embedding"])], "g", inputs, output, [tensor]
    )
    path = folder / "encoder.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    with pytest.raises(CorruptPart):
        OnnxEncoder(path, "cpu")
