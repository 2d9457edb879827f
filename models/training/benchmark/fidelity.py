"""How close a picture is to the unshifted photograph: PSNR, SSIM, lesion contrast, invented lesions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.preprocess import FieldOfView
from models.training.data import LESIONS

Uint8Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

GRADED_LESIONS = LESIONS[:4]
"""Lesion types whose contrast is measured: those that the grade depends on."""
LEAST_AREA = 3.0
"""Pixels that a type must cover in a photograph for its contrast to be measured there."""
_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
_COMPONENT_LEVEL = 127
"""Activation in 1/255 above which a place belongs to a component: probability above 0.5."""
_NEAR = 2
"""Cells of the activation map within which a component is the same one."""


def truth_of(rgb: Uint8Image, field: FieldOfView, picture: Uint8Image) -> Uint8Image:
    """The unshifted photograph in exactly the geometry of a shifted one.

    The field of view is found anew in every picture and may differ by a pixel; what PSNR and SSIM are to
    measure is the picture and not that pixel. Same integer square, same reduction as ``models.preprocess``.

    Args:
        rgb: The unshifted photograph, uint8 (H, W, 3).
        field: Where the disc was found in the shifted one.
        picture: The prepared shifted one, uint8 (S, S, 4); gives size and alpha.

    Returns:
        uint8 (S, S, 4).
    """
    size = picture.shape[0]
    side = max(2, round(2.0 * field.radius))
    left, top = (round(centre - (side - 1) / 2.0) for centre in (field.centre_x, field.centre_y))
    square = cv2.warpAffine(
        rgb, np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]]), (side, side), flags=cv2.INTER_NEAREST
    )
    shrinking = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(square, (size, size), interpolation=shrinking), np.uint8)
    result = picture.copy()
    result[..., :3] = np.where(picture[..., 3:] > 0, small, 0)
    return result


def psnr(picture: Uint8Image, truth: Uint8Image) -> float:
    """Peak signal-to-noise ratio in dB over RGB inside the field, 10·log₁₀(255²/MSE); 99 where equal."""
    inside = picture[..., 3] > 0
    difference = picture[..., :3][inside].astype(np.float64) - truth[..., :3][inside]
    error = float(np.mean(difference**2)) if inside.any() else 0.0
    return float(min(10.0 * np.log10(255.0**2 / error), 99.0)) if error > 0 else 99.0


def ssim(picture: Uint8Image, truth: Uint8Image) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13) of luma, mean where the window is in the field.

    Gaussian window of σ = 1.5 px and 11×11, C₁ = (0.01·255)², C₂ = (0.03·255)², as in the paper.
    """
    x, y = (
        cv2.cvtColor(np.ascontiguousarray(tensor[..., :3]), cv2.COLOR_RGB2GRAY).astype(np.float32)
        for tensor in (picture, truth)
    )
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    )
    whole = cv2.erode((picture[..., 3] > 0).astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    return float(similarity[whole].mean()) if whole.any() else float("nan")


def _window(values: FloatImage) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), np.float32)


@dataclass(frozen=True)
class LesionPlaces:
    """Where one photograph's lesions and their surroundings are.

    Attributes:
        inside: Share of each pixel that a type covers, float32 (4, S, S), in the order of ``GRADED_LESIONS``.
        around: The ring around a type, without any lesion or what lies outside the field, float32 (4, S, S).
    """

    inside: FloatImage
    around: FloatImage

    @classmethod
    def of(cls, masks: FloatImage, alpha: Uint8Image) -> LesionPlaces:
        """Places from masks float32 (5, S, S) and the field's mask uint8 (S, S).

        The ring lies 2 to 7 px (at S = 512; in proportion otherwise) from the lesion: far enough for the
        blur of its rim, near enough for the same background.
        """
        size = alpha.shape[0]
        gap, reach = max(1, round(size * 2 / 512)), max(3, round(size * 7 / 512))
        field = cv2.erode((alpha > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        graded = masks[: len(GRADED_LESIONS)] * field
        anything = _dilated((masks.max(axis=0) > 0).astype(np.uint8), gap)
        rings = [_dilated((lesion > 0).astype(np.uint8), reach) * (1 - anything) * field for lesion in graded]
        return cls(graded, np.stack(rings).astype(np.float32))

    def contrast(self, picture: Uint8Image) -> npt.NDArray[np.float64]:
        """Mean green inside minus mean green around, float64 (4,) in grey levels; nan where there is none."""
        green = picture[..., 1].astype(np.float64)
        area, ring = self.inside.sum(axis=(1, 2)), self.around.sum(axis=(1, 2))
        measurable = (area >= LEAST_AREA) & (ring >= LEAST_AREA)
        within = (self.inside * green).sum(axis=(1, 2)) / np.maximum(area, 1e-6)
        outside = (self.around * green).sum(axis=(1, 2)) / np.maximum(ring, 1e-6)
        return np.where(measurable, within - outside, np.nan)


def box_mean(values: FloatImage, side: int) -> FloatImage:
    """Mean over squares of ``side`` px, same shape; zero outside."""
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32)


def _dilated(flags: Uint8Image, reach: int) -> Uint8Image:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(flags, kernel), np.uint8)


def components(activation: Uint8Image, oracle: Uint8Image) -> tuple[int, int]:
    """Components of lesion maps above 0.5, and those that the oracle's maps do not have.

    Args:
        activation: Maps of one picture, uint8 (K, h, w), probability in 1/255.
        oracle: Those of the unshifted picture.

    Returns:
        Count over all types, and the count of those that touch no component of the same type within 2 cells.
    """
    total = fresh = 0
    for own, other in zip(activation, oracle, strict=True):
        count, labels = cv2.connectedComponents((own > _COMPONENT_LEVEL).astype(np.uint8), connectivity=8)
        known = _dilated((other > _COMPONENT_LEVEL).astype(np.uint8), _NEAR) > 0
        total += count - 1
        fresh += count - 1 - len(set(np.unique(labels[known]).tolist()) - {0})
    return total, fresh
