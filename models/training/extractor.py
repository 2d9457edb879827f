"""The task-specific feature extractor of a classifier: from its run folder, or from a sealed bundle alone.

A bundle needs no file of its own for it. The weights that training needs are those that serve: they are read
back from the initialisers of ``classifier.onnx``, which the bundle's checksum covers, and so can never be of
another classifier than the one that grades.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from models.bundle import Bundle
from models.networks.features import LesionTrunk
from models.training.data import DataError

_PREFIX = "trunk."
_WEIGHT, _BIAS = ".weight", ".weight_bias"
_LEVELS = ("down1", "down2", "down3", "down4")
_REMEDY = (
    "use a bundle that `fundus-train reproduce reference` made, or give --classifier-run, the run folder of "
    "`fundus-train classifier`"
)


def bundle_extractor(bundle: Bundle) -> LesionTrunk:
    """The trunk of a bundle's classifier, in evaluation mode, float32.

    The exporter folds each batch normalisation into the convolution before it: of a trunk with convolution
    w, mean μ, variance v, scale γ and shift β the graph holds w·γ/√(v + ε) and β − μ·γ/√(v + ε). The trunk
    that is returned has these as its convolutions' weights and as its normalisations' shifts, with mean 0
    and γ/√(v + ε) = 1, and so computes what the graph computes.

    Args:
        bundle: A checked bundle.

    Returns:
        The trunk; its features and lesion maps are those of the graph to float32 rounding.

    Raises:
        DataError: The classifier's graph holds no such trunk; the message says what to do.
    """
    values = _initialisers(bundle)
    try:
        first, second, third, fourth = (len(values[f"{level}.0{_WEIGHT}"]) for level in _LEVELS)
        trunk = LesionTrunk((first, second, third, fourth)).eval()
        for name, module in trunk.named_modules():
            if isinstance(module, nn.Sequential):
                _fill_block(module, name, values)
        _set(trunk.lesions.weight, values["lesions.weight"])
        _set(trunk.lesions.bias, values["lesions.bias"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{bundle.classifier_path} holds no feature extractor for training ({error}): {_REMEDY}"
        ) from error
    return trunk


def _initialisers(bundle: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    """The trunk's constants in the classifier's graph, by their name without ``trunk.``."""
    graph = onnx.load(bundle.classifier_path).graph
    return {
        each.name.removeprefix(_PREFIX): numpy_helper.to_array(each).astype(np.float32)
        for each in graph.initializer
        if each.name.startswith(_PREFIX)
    }


def _fill_block(block: nn.Sequential, name: str, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Give the convolutions of a block their weights, and the normalisation after each its shift."""
    layers = list(block)
    for index, (layer, after) in enumerate(pairwise(layers)):
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            _set(layer.weight, values[f"{name}.{index}{_WEIGHT}"])
            _set(after.bias, values[f"{name}.{index}{_BIAS}"])
            nn.init.constant_(after.weight, math.sqrt(1.0 + after.eps))  # running mean 0 and variance 1


def _set(parameter: torch.Tensor | None, value: npt.NDArray[np.float32]) -> None:
    if parameter is None or tuple(parameter.shape) != value.shape:
        raise ValueError(f"a constant has the unexpected shape {value.shape}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(value.copy()))
