"""How far two cameras' photographs are apart, from unlabelled photographs alone.

Pictures of different people are compared as sets, never one with another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.networks.features import LesionTrunk, LocalContrast, split_rgba
from models.training.divergence import style_difference
from models.training.progress import Progress

SAMPLE = 40
"""Photographs of each style that are compared at most, evenly spread over the folder."""
_EPSILON = 1e-3
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StyleDistance:
    """Distance between two sets of photographs; 0 is the same style.

    Attributes:
        colour: Largest difference of a channel's mean or standard deviation, 0..1.
        sharpness: |ln| of the ratio of the standard deviations of fine detail.
        features: Mean over the classifier's deepest features of the distance of their means, in standard
            deviations of the second style, and of |ln| of the ratio of their standard deviations.
    """

    colour: float
    sharpness: float
    features: float


@dataclass(frozen=True)
class StyleDistances:
    """Distances to the labelled camera.

    Attributes:
        before: Of the new camera's photographs.
        after: Of the same through the adapter.
        within: Between two halves of the labelled camera's own: what other people alone make out.
    """

    before: StyleDistance
    after: StyleDistance
    within: StyleDistance


def sample(pictures: Pictures, count: int = SAMPLE) -> Pictures:
    """At most ``count`` pictures, evenly spread, uint8 (n, S, S, 4)."""
    return np.asarray(pictures[spread(len(pictures), count)])


def spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` of the places 0 to ``count`` - 1, evenly spread, int64 (n,)."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def style_distances(
    first: Pictures, adapted: Pictures, second: Pictures, trunk: LesionTrunk, progress: Progress
) -> StyleDistances:
    """Measure what an adapter did to the distance between two cameras.

    Args:
        first: Photographs of the new camera, uint8 (N1, S, S, 4).
        adapted: The same through its adapter.
        second: Photographs of the labelled camera, uint8 (N2, S, S, 4), N2 at least 2.
        trunk: Feature extractor, on the CPU, in evaluation mode.
        progress: Told every set.
    """
    sets = []
    for done, pictures in enumerate((first, adapted, second)):
        sets.append(_Described.of(pictures, trunk))
        progress("style distance", done + 1, 3, {})
    before, after, own = sets
    halves = own.part(slice(0, None, 2)), own.part(slice(1, None, 2))
    return StyleDistances(_distance(before, own), _distance(after, own), _distance(*halves))


@dataclass(frozen=True)
class _Described:
    """Pictures with the features of each: RGB (N, 3, S, S), mask (N, 1, S, S), features a list of (C, n)."""

    rgb: Tensor
    mask: Tensor
    features: list[Tensor]

    @classmethod
    def of(cls, pictures: Pictures, trunk: LesionTrunk) -> _Described:
        rgb, mask = split_rgba(torch.from_numpy(np.ascontiguousarray(pictures)))
        normalise = LocalContrast(pictures.shape[1])
        with torch.inference_mode():
            found = [
                _inside(trunk.encode(normalise(rgb[i : i + 1], mask[i : i + 1]))[-1], mask[i : i + 1])
                for i in range(len(rgb))
            ]
        return cls(rgb, mask, found)

    def part(self, places: slice) -> _Described:
        return _Described(self.rgb[places], self.mask[places], self.features[places])


def _inside(features: Tensor, mask: Tensor) -> Tensor:
    """Features (1, C, h, w) at the places that lie wholly in the field, (C, n)."""
    reduced = functional.avg_pool2d(mask, mask.shape[-1] // features.shape[-1])
    return features[0][:, reduced[0, 0] > 1.0 - _EPSILON]


def _distance(one: _Described, other: _Described) -> StyleDistance:
    difference = style_difference((one.rgb, one.mask), (other.rgb, other.mask))
    found, wanted = torch.cat(one.features, 1), torch.cat(other.features, 1)
    spread = wanted.std(1) + _EPSILON
    apart = (found.mean(1) - wanted.mean(1)).abs() / spread
    apart = apart + ((found.std(1) + _EPSILON) / spread).log().abs()
    return StyleDistance(difference.colour, difference.sharpness, float(apart.mean()))
