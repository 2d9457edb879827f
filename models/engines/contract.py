"""The contract of a bundle's graphs: names, types and shapes before they run, values after.

A graph that breaks it is refused by name. Nothing is repaired in silence: what is trimmed is rounding, at
most ``TOLERANCE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.engines.base import ChainOutput
from models.manifest import Manifest

TOLERANCE: Final = 1e-4
"""How far a probability may leave 0 … 1, or rise from k to k + 1, and still pass for rounding."""

Dimension = int | str | None
"""A fixed size, or a name (or nothing) where the size is dynamic."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape of one input or output; a ``None`` in the shape stands for any size.

    The first dimension is the batch and must be dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def problem(self, dtype: str, shape: Sequence[Dimension]) -> str | None:
        """What is wrong with a tensor that a graph declares so, or None."""
        if dtype != self.dtype:
            return f"'{self.name}' is {dtype}, not {self.dtype}"
        if len(shape) != len(self.shape):
            return f"'{self.name}' has {len(shape)} dimensions, not {len(self.shape)}"
        if isinstance(shape[0], int):
            return f"'{self.name}' is fixed to batches of {shape[0]}: the first dimension must be dynamic"
        for wanted, found in zip(self.shape[1:], shape[1:], strict=True):
            if wanted is not None and isinstance(found, int) and found != wanted:
                return f"'{self.name}' has shape {tuple(shape)}, where {wanted} was expected for {found}"
        return None

    def admits(self, array: np.ndarray, batch: int) -> bool:
        """Whether an array is a value of this tensor for a batch of that many pictures."""
        shape = (batch, *self.shape[1:])
        fits = all(wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=False))
        return array.dtype.name == self.dtype and array.ndim == len(shape) and fits


@dataclass(frozen=True)
class GraphSpec:
    """What a graph takes and returns; further outputs are allowed and never computed."""

    image: TensorSpec
    outputs: tuple[TensorSpec, ...]


def adapter_spec(manifest: Manifest) -> GraphSpec:
    """Contract of an adapter's graph."""
    image = _image(manifest)
    return GraphSpec(image, (TensorSpec(manifest.tensors.adapted, image.dtype, image.shape),))


def classifier_spec(manifest: Manifest) -> GraphSpec:
    """Contract of the classifier's graph."""
    names = manifest.tensors
    maps = len(manifest.activation_labels)
    return GraphSpec(
        _image(manifest),
        (
            TensorSpec(names.cumulative, "float32", (None, 4)),
            TensorSpec(names.quality, "float32", (None, 1)),
            TensorSpec(names.activation, "uint8", (None, maps, None, None)),
        ),
    )


def _image(manifest: Manifest) -> TensorSpec:
    return TensorSpec(manifest.tensors.image, "uint8", (None, manifest.size, manifest.size, 4))


def output_problem(output: ChainOutput, batch: int, manifest: Manifest) -> str | None:
    """What is wrong with a classifier's answer for that many pictures, or None."""
    arrays = (output.cumulative, output.quality, output.activation)
    for spec, array in zip(classifier_spec(manifest).outputs, arrays, strict=True):
        if not spec.admits(array, batch):
            return f"'{spec.name}' came back as {array.dtype.name} {array.shape} for {batch} pictures"
    names = manifest.tensors
    for name, array in ((names.cumulative, output.cumulative), (names.quality, output.quality)):
        if not np.isfinite(array).all():
            return f"'{name}' holds a value that is not a finite number"
        if array.min() < -TOLERANCE or array.max() > 1 + TOLERANCE:
            return f"'{name}' reaches from {array.min():.6g} to {array.max():.6g}, outside 0 to 1"
    rise = float(np.diff(output.cumulative, axis=1).max())
    if rise > TOLERANCE:
        return f"'{names.cumulative}' rises by {rise:.6g} from one grade to the next"
    return None


def without_rounding(cumulative: np.ndarray) -> np.ndarray:
    """Probabilities that passed ``output_problem``: float64 (N, 4), exactly in 0 … 1 and non-increasing."""
    exact: np.ndarray = np.minimum.accumulate(np.clip(cumulative.astype(np.float64), 0.0, 1.0), axis=1)
    return exact
