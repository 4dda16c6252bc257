"""The three steps from a torch encoder to the graph that is served: trace, fuse, lower.

None of them draws random numbers: the same weights and library versions give the same bytes.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from torch import nn

from models.bert import BertConfig

Precision = Literal["int8", "fp32", "fp16"]

OPSET = 17


class ExportError(RuntimeError):
    """An encoder could not be exported as it must be."""


def trace(model: nn.Module, path: Path) -> Path:
    """Writes the network as plain ONNX with batch and tokens as dynamic axes."""
    input_ids = torch.ones(2, 7, dtype=torch.int64)  # any ids that every vocabulary has: nothing branches on them
    axes = {0: "batch", 1: "tokens"}
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            model,
            (input_ids, torch.ones_like(input_ids)),
            str(path),
            dynamo=False,  # the fusion patterns below know the graphs of the tracing exporter
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["embedding"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "embedding": {0: "batch"}},
        )
    return path


def fuse(traced: Path, path: Path, config: BertConfig) -> Path:
    """Replaces the plain nodes by onnxruntime's transformer kernels; raises ExportError when any of them is missing.

    A silent miss would cost much of the speed and change no result.
    """
    with _quiet():
        model = optimizer.optimize_model(
            str(traced),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
        )
    layers = config.num_hidden_layers
    expected = {
        "EmbedLayerNormalization": 1,
        "Attention": layers,
        "BiasGelu": layers,
        "SkipLayerNormalization": 2 * layers,
    }
    found = model.get_fused_operator_statistics()
    for kernel, count in expected.items():
        if found.get(kernel, 0) != count:
            raise ExportError(f"{found.get(kernel, 0)} of {count} {kernel} were fused")
    model.save_model_to_file(str(path))
    return path


def lower(fused: Path, path: Path, precision: Precision) -> Path:
    """Writes the fused graph in `precision`; inputs and output keep their types."""
    if precision == "fp32":
        shutil.copyfile(fused, path)
    elif precision == "fp16":
        model = optimizer.OnnxModel(onnx.load(fused))
        with _quiet():
            model.convert_float_to_float16(keep_io_types=True)
        model.save_model_to_file(str(path))
    else:
        with _quiet():
            quantize_dynamic(
                str(fused),
                str(path),
                per_channel=True,  # one scale a tensor: 12 % faster, but cosine 0.96 instead of 0.99
                reduce_range=False,
                weight_type=QuantType.QInt8,  # unsigned weights: 1.3 to 1.7 times slower with VNNI
                # The fused kernels give no shape inference, so the quantiser has to be told what they return.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the screen what the libraries advise about exporters and pre-processing: both are decided here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
