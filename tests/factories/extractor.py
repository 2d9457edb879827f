"""The tiny bundle with a feature extractor in its classifier, as the exporter leaves it there."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from factories.bundle import replace_graph, tiny_classifier, write_tiny_bundle
from onnx import numpy_helper
from torch import nn

from models.networks.features import LesionTrunk


def lived_trunk(seed: int = 0) -> LesionTrunk:
    """A trunk whose weights and normalisations are random, as after a training, in evaluation mode."""
    torch.manual_seed(seed)
    trunk = LesionTrunk()
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.running_mean = torch.randn(module.num_features) * 0.2
            module.running_var = torch.rand(module.num_features) + 0.5
    return trunk.eval()


def write_bundle_with_extractor(folder: Path, trunk: LesionTrunk, *, size: int = 64) -> Path:
    """Write and seal the tiny bundle with the constants of ``trunk`` in its classifier's graph."""
    write_tiny_bundle(folder, size=size)
    model = tiny_classifier(size)
    for name, value in folded(trunk).items():
        model.graph.initializer.append(numpy_helper.from_array(value, f"trunk.{name}"))
    return replace_graph(folder, "classifier.onnx", model)


def folded(trunk: LesionTrunk) -> dict[str, np.ndarray]:
    """Weights with the normalisations folded in, under the names that the exporter gives them."""
    found: dict[str, np.ndarray] = {}
    for name, block in trunk.named_modules():
        if not isinstance(block, nn.Sequential):
            continue
        for index, (layer, norm) in enumerate(pairwise(block)):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                gain = norm.weight / (norm.running_var + norm.eps).sqrt()
                found[f"{name}.{index}.weight"] = _array(layer.weight * gain[:, None, None, None])
                found[f"{name}.{index}.weight_bias"] = _array(norm.bias - norm.running_mean * gain)
    found["lesions.weight"], found["lesions.bias"] = _array(trunk.lesions.weight), _array(trunk.lesions.bias)
    return found


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return np.asarray(tensor.detach().numpy(), np.float32)
