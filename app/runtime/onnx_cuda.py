"""Runs of fixed shapes on one CUDA device.

Inputs and output of a shape stay where they are on the device, so that ONNX Runtime captures its kernels once as a CUDA
graph and replays them: one launch instead of some fifty. ONNX Runtime keeps captured graphs by thread, and while one is
captured no other thread may touch the device; a GPU does one thing after the other anyway. So one thread of the process
does all of it, for every session. Graphs ask for I/O binding, for fixed addresses, and for every node on the
device (ONNX Runtime's documentation of its CUDA provider).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.types import Floats

Tokens = npt.NDArray[np.int64]  # [batch, tokens]
OPTIONS = {"enable_cuda_graph": "1", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
DEVICE = ThreadPoolExecutor(1, thread_name_prefix="aisle-cuda")
"""The thread that does all work on the device, FAISS's too."""


@dataclass(frozen=True, slots=True)
class _Shape:
    ids: Any
    mask: Any
    output: Any
    binding: Any
    options: Any


class CudaShapes:
    """A session whose shapes are bound, captured and replayed; made on first use."""

    def __init__(self, session: ort.InferenceSession, dimension: int) -> None:
        self._session = session
        self._dimension = dimension
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def run(self, ids: Tokens, mask: Tokens) -> Floats:
        """Vectors of padded ids, float32 [batch, dimension]."""
        return DEVICE.submit(self._run, ids, mask).result()

    def _run(self, ids: Tokens, mask: Tokens) -> Floats:
        key = (ids.shape[0], ids.shape[1])
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._bind(key)
        shape.ids.update_inplace(ids)
        shape.mask.update_inplace(mask)
        self._session.run_with_iobinding(shape.binding, shape.options)
        vectors: Floats = shape.output.numpy()
        return vectors

    def _bind(self, key: tuple[int, int]) -> _Shape:
        ids, mask = (ort.OrtValue.ortvalue_from_shape_and_type(key, np.int64, "cuda", 0) for _ in range(2))
        output = ort.OrtValue.ortvalue_from_shape_and_type((key[0], self._dimension), np.float32, "cuda", 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("input_ids", ids)
        binding.bind_ortvalue_input("attention_mask", mask)
        binding.bind_ortvalue_output("embedding", output)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._shapes) + 1))
        return _Shape(ids, mask, output, binding, options)
