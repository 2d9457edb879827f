"""Every form of the generator as an exported graph: it says what torch says, and starts as the identity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from factories.fundus import Drawing, draw
from onnx import numpy_helper

from models.networks.build import build_generator
from models.preprocess import prepare
from models.training.export import PARITY, export_adapter

SIZE = 64
EYES = np.stack([prepare(draw(Drawing(seed=seed, lesions=5)), SIZE).tensor for seed in range(2)])


def answer(graph: bytes) -> np.ndarray:
    """What a graph makes of the eyes."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["adapted"], {"image": EYES})[0])


def without_residual(file: Path) -> bytes:
    """The graph with zeros in its last layer, whose bias is 0 already: a generator as it starts."""
    model = onnx.load(file)
    (last,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("last.weight")]
    last.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(last)), last.name))
    found: bytes = model.SerializeToString()
    return found


@pytest.mark.parametrize(
    ("form", "scale"), [("affine", 1), ("affine", 2), ("affine", 4), ("additive", 1), ("additive", 4)]
)
def test_an_exported_residual_generator(form: str, scale: int, tmp_path: Path) -> None:
    # Given a generator that does something
    torch.manual_seed(0)
    generator = build_generator({"residual": True, "form": form, "scale": scale})
    torch.nn.init.normal_(generator.last.weight, 0.0, 0.1)
    file = tmp_path / "adapter.onnx"
    # When it is exported, then torch and ONNX Runtime agree
    assert export_adapter(generator, file, EYES) <= PARITY
    assert not np.array_equal(answer(file.read_bytes()), EYES)
    # And the same graph with a zero residual returns every picture to the bit
    assert np.array_equal(answer(without_residual(file)), EYES)


def test_an_exported_plain_generator(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = build_generator({"residual": False, "form": "affine", "scale": 4})
    file = tmp_path / "adapter.onnx"
    assert export_adapter(generator, file, EYES) <= PARITY
    made = answer(file.read_bytes())
    assert np.array_equal(made[..., 3], EYES[..., 3])
    assert not made[..., :3][EYES[..., 3] == 0].any()
    assert len(np.unique(made[..., :3])) > 5
