"""From a shipped int8 encoder to the same weights in float16, for a GPU; needs the package onnx, not torch.

    int8 weights × their scales → float weights
    QEmbedLayerNormalization, QAttention, DynamicQuantizeLinear … MatMulInteger
    → EmbedLayerNormalization, Attention, MatMul

On a GPU dynamic int8 brings nothing and must not be batched; float16 batches, and no activation is quantised any more.
Nothing of the graph is left to the CPU, so that CUDA can capture it whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from app.index.bundle import file_digest
from app.search.embed import DESCRIPTION, HALF, MODEL, PRODUCT_MODEL, TOKENIZER

Array = npt.NDArray[np.generic]
_MASK = "attention_mask_int32"
_IDS = "input_ids_int32"


class NotInt8(ValueError):
    """A graph that is not what `models.graph` makes of a BERT in int8."""


def float_graph(source: Path, target: Path, precision: npt.DTypeLike = np.float16) -> None:
    """Writes the graph of `source` with float weights; inputs and output keep their types. Raises NotInt8."""
    model = onnx.load(source)
    graph = _Graph(model, np.dtype(precision))
    graph.convert()
    onnx.save(graph.model(), target)


class _Graph:
    """One pass over the nodes in their order; what quantised a tensor on the way is skipped, and `same` says under
    which name the tensor itself goes on."""

    def __init__(self, model: onnx.ModelProto, precision: np.dtype[np.generic]) -> None:
        self._old = model
        self._held = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self._precision = precision
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, Array] = {}
        self._same: dict[str, str] = {}
        self._quantised: dict[str, str] = {}

    def convert(self) -> None:
        found = {node.op_type for node in self._old.graph.node}
        if not {"QEmbedLayerNormalization", "QAttention", "MatMulInteger"} <= found:
            raise NotInt8("no BERT in dynamic int8: export it with --precision int8 first")
        handlers = {
            "QEmbedLayerNormalization": self._embedding,
            "QAttention": self._attention,
            "MatMulInteger": self._product,
            "DynamicQuantizeLinear": self._quantising,
        }
        for node in self._old.graph.node:
            handle = handlers.get(node.op_type)
            if handle is not None:
                handle(node)
            elif not self._is_scaling(node):
                self._plain(node)

    def model(self) -> onnx.ModelProto:
        initializers = [numpy_helper.from_array(value, name) for name, value in self._weights.items()]
        graph = helper.make_graph(
            self._nodes, "encoder", self._old.graph.input, self._old.graph.output, initializer=initializers
        )
        made = helper.make_model(graph, opset_imports=self._old.opset_import)
        made.ir_version = self._old.ir_version
        onnx.checker.check_model(made)
        return made

    def _embedding(self, node: NodeProto) -> None:
        ids, _, *names = node.input[:7]
        scales, zeros = node.input[8:13], node.input[13:18]
        words, places, segments, gamma, beta = (
            self._dequantised(name, scale, zero) for name, scale, zero in zip(names, scales, zeros, strict=True)
        )
        # There is one segment: its vector goes into the positions, and no ids of segments need to be made.
        inputs = [
            ids, "", self._weight("words", words), self._weight("places", places + segments[0]), "",
            self._weight("embedding.gamma", gamma), self._weight("embedding.beta", beta), _MASK,
        ]  # fmt: skip
        self._add("EmbedLayerNormalization", inputs, list(node.output[:2]), epsilon=_attribute(node, "epsilon", 1e-12))

    def _attention(self, node: NodeProto) -> None:
        weight = self._dequantised(node.input[1], node.input[4], node.input[7])
        inputs = [
            self._quantised[node.input[0]], self._weight(node.input[1], weight),
            self._weight(node.input[2], self._held[node.input[2]]), _MASK,
        ]  # fmt: skip
        self._add("Attention", inputs, list(node.output[:1]), num_heads=_attribute(node, "num_heads", 0))

    def _product(self, node: NodeProto) -> None:
        name = node.input[1]
        weight = self._dequantised(name, name.removesuffix("_quantized") + "_scale", node.input[3])
        self._nodes.append(
            helper.make_node("MatMul", [self._quantised[node.input[0]], self._weight(name, weight)], [node.output[0]])
        )
        self._same[node.output[0]] = node.output[0]

    def _quantising(self, node: NodeProto) -> None:
        self._quantised[node.output[0]] = self._name(node.input[0])

    def _is_scaling(self, node: NodeProto) -> bool:
        """What turned an integer product into a float one: Cast, then Mul by both scales, which are one now."""
        if node.op_type == "Mul" and node.input[0].endswith("_scale"):
            return True
        if node.op_type in ("Cast", "Mul") and node.input[0] in self._same:
            self._same[node.output[0]] = self._same[node.input[0]]
            return True
        return node.op_type in ("Shape", "ConstantOfShape") or (
            node.op_type == "Cast" and "ConstantOfShape" in node.input[0]
        )

    def _plain(self, node: NodeProto) -> None:
        inputs = [self._name(name) for name in node.input]
        pooled = node.op_type == "Mul" and any(name.endswith("Cast_1_output_0") for name in inputs)
        if pooled:  # the last layer leaves in float32, as the output does
            self._nodes.append(helper.make_node("Cast", [inputs[0]], ["hidden_float32"], to=TensorProto.FLOAT))
            inputs[0] = "hidden_float32"
        copy = NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(self._weight(name, self._held[name]) if name in self._held else name for name in inputs)
        self._nodes.append(copy)

    def _name(self, name: str) -> str:
        return self._same.get(name, name)

    def _dequantised(self, name: str, scale: str, zero: str) -> npt.NDArray[np.float32]:
        held = self._held[name].astype(np.float32) - self._held[zero].astype(np.float32)
        value: npt.NDArray[np.float32] = held * self._held[scale].astype(np.float32)
        return value

    def _weight(self, name: str, value: Array) -> str:
        self._weights[name] = value.astype(self._precision) if value.dtype == np.float32 else value
        return name

    def _add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain="com.microsoft", **attributes))


def _attribute(node: NodeProto, name: str, default: float) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def with_half(folder: Path, out: Path) -> Path:
    """Copies an int8 encoder folder to `out` and adds its graphs in float16. Raises NotInt8."""
    out.mkdir(parents=True, exist_ok=True)
    description = json.loads((folder / DESCRIPTION).read_bytes())
    for name in (MODEL, PRODUCT_MODEL, TOKENIZER):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    for name, half in HALF.items():
        if (folder / name).exists():
            float_graph(folder / name, out / half)
            description["sha256"][half] = file_digest(out / half)
    (out / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return out
