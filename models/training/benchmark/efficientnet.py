"""EfficientNet-B0 (Tan & Le 2019, table 1) as an ONNX graph with random weights: a yardstick of cost only.

Seven stages of MBConv blocks (Sandler et al. 2018) with squeeze and excitation at ratio 1/4 of the block's
input; SiLU; batch normalisation folded into the convolutions, as a serving graph has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEM, HEAD, CLASSES = 32, 1280, 1000
STAGES = (
    # expansion, output channels, blocks, stride of the first block, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_OPSET, _IR_VERSION = 17, 8


class _Graph:
    """Nodes and random weights under construction; every method returns the name of its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weight(self, shape: tuple[int, ...], scale: float) -> str:
        name = f"w{len(self.weights)}"
        values = (self._rng.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(
        self, x: str, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> str:
        fan_in = inputs // groups * kernel * kernel
        weight = self.weight((outputs, inputs // groups, kernel, kernel), fan_in**-0.5)
        bias = self.weight((outputs,), 0.01)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.add("Conv", [x, weight, bias], group=groups, **shape)

    def silu(self, x: str) -> str:
        return self.add("Mul", [x, self.add("Sigmoid", [x])])

    def excited(self, x: str, channels: int, squeezed: int) -> str:
        """Squeeze and excitation (Hu et al. 2018)."""
        pooled = self.add("GlobalAveragePool", [x])
        narrow = self.silu(self.convolution(pooled, channels, squeezed))
        return self.add("Mul", [x, self.add("Sigmoid", [self.convolution(narrow, squeezed, channels)])])

    def block(self, x: str, inputs: int, outputs: int, *, expansion: int, stride: int, kernel: int) -> str:
        """MBConv: expand 1×1, depthwise k×k, excite, project 1×1, add where the shape allows."""
        wide, inner = x, inputs * expansion
        if expansion > 1:
            wide = self.silu(self.convolution(x, inputs, inner))
        wide = self.silu(self.convolution(wide, inner, inner, kernel=kernel, stride=stride, groups=inner))
        projected = self.convolution(self.excited(wide, inner, max(1, inputs // 4)), inner, outputs)
        return self.add("Add", [projected, x]) if stride == 1 and inputs == outputs else projected


def efficientnet_b0(seed: int = 0) -> onnx.ModelProto:
    """The graph: ``image`` float32 (N, 3, H, W) to ``logits`` float32 (N, 1000)."""
    graph = _Graph(seed)
    x, channels = graph.silu(graph.convolution("image", 3, STEM, kernel=3, stride=2)), STEM
    for expansion, outputs, blocks, stride, kernel in STAGES:
        for index in range(blocks):
            first = stride if index == 0 else 1
            x = graph.block(x, channels, outputs, expansion=expansion, stride=first, kernel=kernel)
            channels = outputs
    x = graph.silu(graph.convolution(x, channels, HEAD))
    flat = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    weights = [graph.weight((HEAD, CLASSES), HEAD**-0.5), graph.weight((CLASSES,), 0.01)]
    graph.nodes.append(helper.make_node("Gemm", [flat, *weights], ["logits"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    made = helper.make_graph(graph.nodes, "efficientnet-b0", [image], [logits], graph.weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
