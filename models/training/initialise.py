"""Where an adapter starts: the camera's fixed part, in closed form from statistics of both styles.

A camera is mostly one fixed transformation: its light, its mix of colours, its sharpness at each place of the
field. Unpaired photographs of either style determine much of it without any training. At each of 8×8 places,
local contrast has a 3×3 covariance C over many eyes, and colour a mean μ. The linear map that carries the
first style's Gaussian to the second's with least displacement (Monge-Kantorovich; Pitié & Kokaram 2007) is

    T = C1^(−1/2) · (C1^(1/2) · C2 · C1^(1/2))^(1/2) · C1^(−1/2),       x̂ = T·x + μ2 − T·μ1,

which is a residual with A = T − 1 and b = μ2 − T·μ1. The gain of fine detail is the ratio of its standard
deviations in both styles after T. Adversarial training starts there instead of at the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.networks.features import LocalContrast, gaussian_kernel, split_rgba
from models.networks.generator import BASE, FINE_SIGMA

_POOL = 8
_RIM = 9
"""Side in px of the neighbourhood that must lie inside the field for a pixel to count."""
_SHRINKAGE = 1e-7
"""Added to the diagonal of covariances (full scale squared): 1/3000 of full scale."""
_SHARPEST, _SMOOTHEST = 1.5, -0.9

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StyleStatistics:
    """Statistics of one style at each of ``BASE`` × ``BASE`` places.

    Attributes:
        mean: Mean colour, float64 (3, BASE, BASE), 0..1.
        contrast: Covariance of local contrast without the finest detail, float64 (3, 3, BASE, BASE).
        fine: Covariance of the finest detail, likewise.
    """

    mean: FloatArray
    contrast: FloatArray
    fine: FloatArray


@torch.inference_mode()
def style_statistics(pictures: npt.NDArray[np.uint8], limit: int = 96) -> StyleStatistics:
    """Statistics over at most ``limit`` pictures, evenly chosen.

    Args:
        pictures: uint8 (N, S, S, 4) of one style.
        limit: Pictures that are looked at.
    """
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(limit, len(pictures))).astype(int))
    normalise = LocalContrast(pictures.shape[1])
    total = torch.stack([_sums(np.asarray(pictures[index]), normalise) for index in chosen]).sum(0)
    spread = gaussian_kernel(1.0).double()
    reach = spread.shape[-1] // 2
    padded = functional.pad(total[:, None], (reach, reach, reach, reach), mode="replicate")
    smooth = functional.conv2d(padded, spread)[:, 0]
    means = (smooth[1:] / smooth[:1].clamp_min(1e-9)).numpy()
    cells = means.shape[-2:]
    return StyleStatistics(means[:3], means[3:12].reshape(3, 3, *cells), means[12:].reshape(3, 3, *cells))


def fixed_part(first: StyleStatistics, second: StyleStatistics) -> Tensor:
    """Coefficients of an affine residual that carries the first style to the second.

    Returns:
        float32 (1, 13, BASE, BASE) in the order of ``ResidualGenerator.coefficients``.
    """
    found = np.empty((13, BASE, BASE))
    identity = np.eye(3)
    for row in range(BASE):
        for column in range(BASE):
            at = (..., row, column)
            transport = _transport(first.contrast[at], second.contrast[at])
            found[:9, row, column] = (transport - identity).T.reshape(9)
            found[9:12, row, column] = second.mean[at] - transport @ first.mean[at]
            carried = np.trace(transport @ first.fine[at] @ transport.T)
            gain = np.sqrt(np.trace(second.fine[at]) / max(carried, 1e-12)) - 1.0
            found[12, row, column] = np.clip(gain, _SMOOTHEST, _SHARPEST)
    return torch.from_numpy(found[None]).float()


def _sums(picture: npt.NDArray[np.uint8], normalise: LocalContrast) -> Tensor:
    """Sums over places of weight, colour, products of local contrast and of detail; (22, BASE, BASE)."""
    rgb, mask = split_rgba(torch.from_numpy(picture[None]))
    rgb = rgb * mask
    core = 1.0 - functional.max_pool2d(1.0 - mask, _RIM, 1, _RIM // 2)
    low = normalise.background(functional.avg_pool2d(rgb, _POOL), functional.avg_pool2d(mask, _POOL))
    background = functional.interpolate(low, scale_factor=float(_POOL), mode="bilinear", align_corners=False)
    coarse = _smoothed(rgb, mask, FINE_SIGMA)
    contrast, fine = (coarse - background) * core, (rgb - coarse) * core
    stacked = torch.cat([core, rgb * core, _products(contrast), _products(fine)], 1)
    return functional.adaptive_avg_pool2d(stacked, BASE)[0].double()


def _smoothed(weighted: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """Gaussian mean over the field only, of a picture that is 0 outside it."""
    kernel = gaussian_kernel(sigma)
    reach, channels = kernel.shape[-1] // 2, weighted.shape[1]
    blurred = functional.conv2d(weighted, kernel.expand(channels, 1, -1, -1), padding=reach, groups=channels)
    return blurred / functional.conv2d(mask, kernel, padding=reach).clamp_min(1e-3)


def _products(planes: Tensor) -> Tensor:
    """All products of two channels, (N, 9, H, W)."""
    return (planes[:, :, None] * planes[:, None]).flatten(1, 2)


def _transport(first: FloatArray, second: FloatArray) -> FloatArray:
    """The Monge-Kantorovich map between centred Gaussians of covariances (3, 3)."""
    identity = _SHRINKAGE * np.eye(3)
    root = _root(first + identity)
    inverse = np.linalg.inv(root)
    carried: FloatArray = inverse @ _root(root @ (second + identity) @ root) @ inverse
    return carried


def _root(covariance: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    root: FloatArray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root
