"""One ONNX model, run on the CPU or on CUDA; the only place that knows ONNX Runtime.

On a CPU every text runs alone: dynamic int8 quantises activations per tensor, so a vector would otherwise depend on
its batch mates (cosine 0.98 to 0.99 between alone and in a batch of 16), and a batch brings almost no speed there. One
intra-op thread a session call: with int8 a second thread makes one query slower, and the second core serves another
query meanwhile. On a GPU texts are padded to a fixed grid of shapes, because every new shape is slow once, and each
shape is captured as a CUDA graph; not so a model of dynamic int8, whose vectors would depend on batch mates and padding
there as well: fp16 or fp32 is what belongs on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.errors import CorruptPart, EncoderUnavailable
from app.metrics import STAGE_FAILURES
from app.types import Floats

# ONNX Runtime reports to its vendor otherwise; it looks when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from app.runtime.onnx_cuda import OPTIONS as CUDA_OPTIONS
from app.runtime.onnx_cuda import CudaShapes

Provider = Literal["auto", "cpu", "cuda"]
Tokens = npt.NDArray[np.int64]  # [batch, tokens]
_GRID_TOKENS = (8, 16, 32, 64, 128, 256, 512)
_GRID_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ONES = np.ones((1, _GRID_TOKENS[-1]), dtype=np.int64)
_ONES.flags.writeable = False


class OnnxEncoder:
    """`input_ids, attention_mask` (int64, [batch, tokens]) → `embedding` (float32, [batch, dimension], unit length)."""

    def __init__(self, path: Path, provider: Provider = "auto", *, alone: bool = False) -> None:
        """Load the model. `provider="cuda"` raises EncoderUnavailable when no CUDA device can run it; "auto" falls back
        to the CPU, and `self.provider` tells which was taken. `alone` runs every text by itself whatever the device.
        Raises CorruptPart for a file that is no such model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # A spinning pool burns the core that the next query wants; with one thread there is no pool to wake anyway.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session, self.captured = _session(path, options, _providers(provider), graphs=not alone)
        self._alone = alone
        taken = self._session.get_providers()[0]
        self.provider = "cuda" if taken == "CUDAExecutionProvider" else "cpu"
        if provider == "cuda" and self.provider != "cuda":
            raise EncoderUnavailable("AISLE_PROVIDER=cuda, but ONNX Runtime could not start its CUDA provider")
        names = {one.name for one in self._session.get_inputs()}
        if names != {"input_ids", "attention_mask"}:
            raise CorruptPart(f"{path.name}: inputs are {sorted(names)}, expected input_ids and attention_mask")
        found = self._session.get_outputs()[0]
        self._wanted, shape = [found.name], found.shape
        if len(shape) != 2:
            raise CorruptPart(f"{path.name}: output has shape {shape}, expected [batch, dimension]")
        fixed = self.batches and isinstance(shape[1], int)
        self._shapes = CudaShapes(self._session, shape[1]) if fixed else None

    @property
    def batches(self) -> bool:
        """Whether several texts at once are faster, and near enough to the same vectors, here."""
        return self.provider == "cuda" and not self._alone

    def encode(self, token_ids: Sequence[Sequence[int]]) -> Floats:
        """Vectors of the token sequences, [n, dimension]; each row is independent of its neighbours on a CPU.

        Raises EncoderUnavailable when the session fails or a vector is not finite."""
        try:
            if self.batches:
                vectors = self._encode_padded(token_ids)
            else:
                each = [self._run_one(ids) for ids in token_ids]
                vectors = each[0] if len(each) == 1 else np.concatenate(each)
        except Exception as error:
            STAGE_FAILURES.labels("embed", "raised").inc()
            raise EncoderUnavailable(f"the encoder failed: {type(error).__name__}") from error
        flat = vectors.reshape(-1)
        if not isfinite(np.dot(flat, flat)):  # they are of unit length; a third of the time of a look at each number
            STAGE_FAILURES.labels("embed", "not_finite").inc()
            raise EncoderUnavailable("the encoder gave a vector that is not finite")
        return vectors

    def warm(self, longest: int) -> None:
        """Run every shape of the grid up to `longest` tokens once where shapes matter: a shape's first run is slow."""
        if not self.batches:
            return
        for tokens in (size for size in _GRID_TOKENS if size < 2 * longest):
            for batch in _GRID_BATCH:
                self.encode([[0] * min(tokens, longest)] * batch)

    def _run_one(self, ids: Sequence[int]) -> Floats:
        row = np.array([ids], dtype=np.int64)
        return self._run(row, _ONES[:, : len(ids)] if len(ids) <= _ONES.shape[1] else np.ones_like(row))

    def _encode_padded(self, token_ids: Sequence[Sequence[int]]) -> Floats:
        order = sorted(range(len(token_ids)), key=lambda i: len(token_ids[i]))
        parts: list[Floats] = []
        for start in range(0, len(order), _GRID_BATCH[-1]):
            chunk = order[start : start + _GRID_BATCH[-1]]
            parts.append(self._run_grid([token_ids[i] for i in chunk]))
        stacked = np.concatenate(parts)
        result = np.empty_like(stacked)
        result[order] = stacked
        return result

    def _run_grid(self, chunk: list[Sequence[int]]) -> Floats:
        tokens = _fit(max(len(ids) for ids in chunk), _GRID_TOKENS)
        batch = _fit(len(chunk), _GRID_BATCH)
        ids = np.zeros((batch, tokens), dtype=np.int64)
        lengths = np.ones(batch, dtype=np.int64)  # an empty row would divide by zero in the mean pooling
        lengths[: len(chunk)] = [len(sequence) for sequence in chunk]
        mask = np.arange(tokens) < lengths[:, None]
        held = mask[: len(chunk)]
        ids[: len(chunk)][held] = np.fromiter(chain.from_iterable(chunk), np.int64, int(lengths[: len(chunk)].sum()))
        return self._run(ids, mask.astype(np.int64))[: len(chunk)]

    def _run(self, ids: Tokens, mask: Tokens) -> Floats:
        if self._shapes is not None:
            return self._shapes.run(ids, mask)
        output = self._session.run(self._wanted, {"input_ids": ids, "attention_mask": mask})[0]
        vectors: Floats = np.asarray(output, dtype=np.float32)
        return vectors


def _session(
    path: Path, options: ort.SessionOptions, providers: list[str], *, graphs: bool
) -> tuple[ort.InferenceSession, bool]:
    """The session, and whether its shapes can be captured as CUDA graphs."""
    cuda = providers[0] == "CUDAExecutionProvider"
    given = [{**CUDA_OPTIONS, "enable_cuda_graph": str(int(graphs))} if cuda else {}, {}][: len(providers)]
    try:
        session = ort.InferenceSession(str(path), options, providers=providers, provider_options=given)
    except Exception as error:
        if cuda and graphs:  # some node of the model cannot run on the device
            return _session(path, options, providers, graphs=False)
        if len(providers) > 1:  # the model's fault or the device's (onnxruntime issue 21424)? The CPU tells.
            return _session(path, options, providers[1:], graphs=False)
        raise CorruptPart(f"{path.name}: ONNX Runtime refused it: {type(error).__name__}") from error
    # Else ONNX Runtime moves a session whose provider fails to the CPU for good, and nobody is told.
    session.disable_fallback()
    return session, cuda and graphs


def cuda_is_built_in() -> bool:
    """Whether this ONNX Runtime knows CUDA at all; whether a device can start is another question."""
    return "CUDAExecutionProvider" in ort.get_available_providers()


def _providers(wanted: Provider) -> list[str]:
    if wanted == "cpu" or not cuda_is_built_in():
        return ["CPUExecutionProvider"]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA libraries that came as wheels, so no CUDA base image is needed
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _fit(length: int, grid: tuple[int, ...]) -> int:
    return next((size for size in grid if size >= length), length)
