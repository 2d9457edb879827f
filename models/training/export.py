"""Export networks to ONNX graphs with the bundle's contract, and check that the graphs say the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from models.errors import ModelError
from models.networks.build import Generator
from models.networks.classifier import FundusClassifier
from models.networks.generator import Adapter

OPSET = 18
"""ONNX opset of every exported graph."""
CLASSIFIER_OUTPUTS = ("cumulative", "quality", "activation", "macular_oedema")
"""The first three are the contract; ``macular_oedema``, P(risk ≥ 1, 2), is there for who asks for it."""
PARITY = 1e-3
"""Largest difference between torch and ONNX Runtime that passes, for outputs in 0..1."""


class ParityError(ModelError):
    """An exported graph does not compute what the network computes; nothing was written to the bundle."""


def export_classifier(classifier: FundusClassifier, path: Path, example: npt.NDArray[np.uint8]) -> float:
    """Write ``classifier.onnx``: image uint8 (N, S, S, 4) to ``CLASSIFIER_OUTPUTS``; N is dynamic.

    Args:
        classifier: Trained, in evaluation mode.
        path: Where to write.
        example: Photographs for the parity check, uint8 (N, S, S, 4).

    Returns:
        Largest difference between torch and ONNX Runtime.

    Raises:
        ParityError: It is above ``PARITY``.
    """
    _export(classifier, path, classifier.size, CLASSIFIER_OUTPUTS)
    return check_parity(classifier, path, example)


def export_adapter(generator: Generator, path: Path, example: npt.NDArray[np.uint8]) -> float:
    """Write ``adapters/<camera>.onnx``: image uint8 (N, S, S, 4) to adapted, same shape; clamped here only.

    Returns and raises as ``export_classifier``; the difference is in units of the full scale.
    """
    network = Adapter(generator).eval()
    _export(network, path, example.shape[1], ("adapted",))
    return check_parity(network, path, example)


def check_parity(network: nn.Module, path: Path, example: npt.NDArray[np.uint8]) -> float:
    """Compare a network with its graph on the same pictures.

    Returns:
        Largest absolute difference over all float outputs; for uint8 outputs the mean difference / 255
        (single steps are rounding).

    Raises:
        ParityError: The difference is above ``PARITY``.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs: Sequence[npt.NDArray[np.generic]] = session.run(None, {"image": example})
    with torch.inference_mode():
        found = network(torch.from_numpy(np.array(example)))
    ours = [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]
    worst = max(_difference(our, their) for our, their in zip(ours, theirs, strict=True))
    if not worst <= PARITY:
        raise ParityError(
            f"{path.name}: torch and ONNX Runtime differ by {worst:.2e}, more than {PARITY:.0e}"
        )
    return worst


def _difference(ours: npt.NDArray[np.generic], theirs: npt.NDArray[np.generic]) -> float:
    difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return float(difference.mean() / 255.0) if ours.dtype == np.uint8 else float(difference.max())


def _export(network: nn.Module, path: Path, size: int, outputs: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = torch.zeros(2, size, size, 4, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's deprecation notices are about its own insides
        program = torch.onnx.export(
            network.eval(),
            (image,),
            input_names=["image"],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ParityError(f"{path.name}: the exporter returned no graph")
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # stack traces of the machine that exported
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
