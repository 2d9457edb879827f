"""A real bundle that is tiny, fast, and whose answers can be worked out by hand.

With R, G the mean red and green (0 to 255) over the pixels inside the mask (alpha 255):

- ``cumulative[k - 1] = (G / 255) ** k`` for k = 1 … 4, so that a brighter green is a higher grade; with the
  default thresholds of 0.5 the grade follows from G as in ``GREEN_FOR_GRADE``.
- ``quality = min(R / 128, 1)``: a picture whose mean red is under 64 is ungradable; so is an empty mask (0).
- ``activation`` has two maps of S/8 × S/8, labelled ``red`` and ``green``: the mean of each channel over
  8 × 8 pixels, rounded down.
- the adapter number i (from 0) adds ``GREEN_STEP * (i + 1)`` to green inside the mask, up to 255, and leaves
  red, blue and alpha as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, seal_bundle
from models.manifest import AdapterEntry, Manifest

GREEN_FOR_GRADE: Final = (40, 150, 188, 210, 235)
"""A mean green that gives grade 0 … 4 at thresholds of 0.5, with room for JPEG's and resizing's errors."""
GREEN_STEP: Final = 20
LABELS: Final = (
    "No diabetic retinopathy",
    "Mild NPDR",
    "Moderate NPDR",
    "Severe NPDR",
    "Proliferative DR",
)
ACTIVATION_LABELS: Final = ("red", "green")
OPSET: Final = 17
_IR_VERSION: Final = 8


def write_tiny_bundle(
    folder: Path,
    *,
    size: int = 64,
    adapters: Sequence[str] = ("simulated-blue",),
    training_camera: str = "kowa-vx-10",
    bundle_id: str = "tiny",
    version: str = "1.0.0",
    thresholds: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.5),
    minimum_quality: float = 0.5,
) -> Path:
    """Write and seal the bundle that the module's docstring describes; returns the folder."""
    (folder / "adapters").mkdir(parents=True, exist_ok=True)
    onnx.save(tiny_classifier(size), folder / "classifier.onnx")
    for index, camera in enumerate(adapters):
        onnx.save(tiny_adapter(size, GREEN_STEP * (index + 1)), folder / "adapters" / f"{camera}.onnx")
    (folder / "MODEL_CARD.md").write_text(
        "# Tiny\n\nFor tests: grades by mean green. Not a model of anything.\n"
    )
    seal_bundle(
        folder,
        Manifest(
            id=bundle_id,
            version=version,
            commit="0" * 40,
            data_fingerprint="none",
            labels=LABELS,
            size=size,
            opset=OPSET,
            thresholds=thresholds,
            minimum_quality=minimum_quality,
            activation_labels=ACTIVATION_LABELS,
            training_camera=training_camera,
            adapters={camera: AdapterEntry(file=f"adapters/{camera}.onnx") for camera in adapters},
        ),
    )
    return folder


def tiny_picture(size: int = 64, *, red: int = 200, green: int = 40, blue: int = 60) -> np.ndarray:
    """A disc of one colour on black: uint8 (size, size, 4), alpha 255 inside the disc, 0 outside."""
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    inside = row**2 + column**2 <= (size / 2) ** 2
    picture: np.ndarray = inside[:, :, None] * np.array([red, green, blue, 255], np.uint8)
    return picture.astype(np.uint8)


def tiny_classifier(size: int) -> onnx.ModelProto:
    """The classifier's graph."""
    constants = {
        "red": np.array([0]),
        "green": np.array([1]),
        "alpha": np.array([3]),
        "from": np.array([0]),
        "to": np.array([2]),
        "channels": np.array([3]),
        "full": np.array(255.0, np.float32),
        "half": np.array(128.0, np.float32),
        "one": np.array(1.0, np.float32),
        "powers": np.array([1, 2, 3, 4], np.float32),
        "sides": np.array([1, 2]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["x", "alpha"], ["alpha_255"], axis=3),
        helper.make_node("Div", ["alpha_255", "full"], ["mask"]),
        helper.make_node("ReduceSum", ["mask", "sides"], ["inside"], keepdims=0),
        helper.make_node("Max", ["inside", "one"], ["count"]),
        *_mean_inside("red"),
        *_mean_inside("green"),
        helper.make_node("Div", ["green_mean", "full"], ["green_part"]),
        helper.make_node("Pow", ["green_part", "powers"], ["cumulative"]),
        helper.make_node("Div", ["red_mean", "half"], ["red_part"]),
        helper.make_node("Min", ["red_part", "one"], ["quality"]),
        helper.make_node("Slice", ["x", "from", "to", "channels"], ["red_green"]),
        helper.make_node("Transpose", ["red_green"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Floor", ["pooled"], ["floored"]),
        helper.make_node("Cast", ["floored"], ["activation"], to=TensorProto.UINT8),
    ]
    return make_graph(nodes, classifier_outputs(size), size, constants)


def _mean_inside(channel: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["x", channel], [f"{channel}_plane"], axis=3),
        helper.make_node("Mul", [f"{channel}_plane", "mask"], [f"{channel}_inside"]),
        helper.make_node("ReduceSum", [f"{channel}_inside", "sides"], [f"{channel}_sum"], keepdims=0),
        helper.make_node("Div", [f"{channel}_sum", "count"], [f"{channel}_mean"]),
    ]


def tiny_adapter(size: int, step: int, *, alpha_step: int = 0) -> onnx.ModelProto:
    """An adapter's graph: green + step inside the mask. ``alpha_step`` makes one that breaks the contract."""
    constants = {
        "alpha": np.array([3]),
        "full": np.array(255, np.int32),
        "steps": np.array([0, step, 0, alpha_step], np.int32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.INT32),
        helper.make_node("Gather", ["x", "alpha"], ["alpha_255"], axis=3),
        helper.make_node("Div", ["alpha_255", "full"], ["mask"]),
        helper.make_node("Mul", ["mask", "steps"], ["shift"]),
        helper.make_node("Add", ["x", "shift"], ["sum"]),
        helper.make_node("Min", ["sum", "full"], ["limited"]),
        helper.make_node("Cast", ["limited"], ["adapted"], to=TensorProto.UINT8),
    ]
    outputs = [helper.make_tensor_value_info("adapted", TensorProto.UINT8, ["N", size, size, 4])]
    return make_graph(nodes, outputs, size, constants)


def constant_classifier(
    size: int,
    cumulative: Sequence[float] = (0.9, 0.8, 0.3, 0.1),
    quality: float = 1.0,
    *,
    picture_weight: float = 0.0,
    batch_weight: float = 0.0,
) -> onnx.ModelProto:
    """A classifier that says the same of every picture; also what no classifier may say.

    The weights add that times the mean of all four channels (0 to 1) to the answer: of the picture, or of the
    whole batch, on which no answer may depend.
    """
    constants = {
        "zero": np.array(0.0, np.float32),
        "picture_weight": np.array(picture_weight / 255.0, np.float32),
        "batch_weight": np.array(batch_weight / 255.0, np.float32),
        "row": np.array([cumulative], np.float32),
        "good": np.array([[quality]], np.float32),
        "map_from": np.array([0, 0, 0]),
        "map_to": np.array([2, size // 8, size // 8]),
        "map_axes": np.array([1, 2, 3]),
        "sides": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean_4d"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean_4d", "sides"], ["mean"]),
        helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
        helper.make_node("ReduceMean", ["mean"], ["batch_mean"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["mean", "picture_weight"], ["picture_shift"]),
        helper.make_node("Mul", ["batch_mean", "batch_weight"], ["batch_shift"]),
        helper.make_node("Sum", ["picture_shift", "batch_shift", "row"], ["cumulative"]),
        helper.make_node("Add", ["zeros", "good"], ["quality"]),
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["planes", "map_from", "map_to", "map_axes"], ["activation"]),
    ]
    return make_graph(nodes, classifier_outputs(size), size, constants)


def classifier_outputs(size: int) -> list[onnx.ValueInfoProto]:
    """What a classifier declares that it returns."""
    return [
        helper.make_tensor_value_info("cumulative", TensorProto.FLOAT, ["N", 4]),
        helper.make_tensor_value_info("quality", TensorProto.FLOAT, ["N", 1]),
        helper.make_tensor_value_info("activation", TensorProto.UINT8, ["N", 2, size // 8, size // 8]),
    ]


def replace_graph(folder: Path, name: str, model: onnx.ModelProto) -> Path:
    """Put another graph in a bundle's place of that name, and seal the bundle again; returns the folder."""
    manifest = Bundle.load(folder).manifest
    onnx.save(model, folder / name)
    seal_bundle(folder, manifest)
    return folder


def make_graph(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    size: int,
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    """A checked model whose input is ``image``, uint8 (N, size, size, 4)."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 4])],
        list(outputs),
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model
