"""Adaptation without training: colour and contrast moved towards the labelled camera's statistics.

Each baseline sees the shifted picture and the second style (pictures of the labelled camera, of other people,
no labels), never the unshifted photograph. All work inside the field of view and leave alpha untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Uint8Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]
Baseline = Callable[[Uint8Image, int], Uint8Image]
"""From a picture uint8 (S, S, 4) and its number (which seeds what is random) to uint8 (S, S, 4)."""

_LOCAL_SIGMA = 25.0
"""The side S over the local window's deviation: that of the classifier's own local contrast."""
_POOL = 8
"""Local statistics are kept at 1/8 scale; the window is far above 8 px."""
_GAIN = (0.25, 4.0)
"""Bounds of the local contrast gain: without them, flat tissue becomes noise."""
_FLAT = 1.0
"""Deviation in grey levels below which a place counts as flat."""


@dataclass(frozen=True)
class SecondStyle:
    """What the baselines know of the labelled camera.

    Attributes:
        lab_mean: Mean over pictures of the mean L*, a*, b* inside the field, float32 (3,).
        lab_deviation: Mean over pictures of their standard deviations, float32 (3,).
        histogram: Mean over pictures of the R, G, B histograms inside the field, float64 (3, 256), sums 1.
        local_mean: Mean over pictures of the local mean, float32 (S/8, S/8, 3), grey levels.
        local_deviation: Mean over pictures of the local standard deviation, likewise.
        pictures: The pictures themselves, uint8 (N, S, S, 4): Fourier adaptation draws one.
    """

    lab_mean: FloatImage
    lab_deviation: FloatImage
    histogram: npt.NDArray[np.float64]
    local_mean: FloatImage
    local_deviation: FloatImage
    pictures: Uint8Image

    @classmethod
    def of(cls, pictures: Uint8Image) -> SecondStyle:
        """Collect the statistics of uint8 (N, S, S, 4).

        Raises:
            ValueError: There is no picture.
        """
        if len(pictures) == 0:
            raise ValueError("the second style needs at least one picture")
        moments = [_lab_moments(picture) for picture in pictures]
        local = [local_statistics(picture) for picture in pictures]
        weights = sum((weight for _, _, weight in local), np.zeros_like(local[0][2]))
        known = np.maximum(weights, 1e-3)
        return cls(
            lab_mean=np.mean([mean for mean, _ in moments], axis=0),
            lab_deviation=np.mean([deviation for _, deviation in moments], axis=0),
            histogram=np.mean([_histograms(picture) for picture in pictures], axis=0),
            local_mean=np.asarray(sum(mean * weight for mean, _, weight in local) / known, np.float32),
            local_deviation=np.asarray(sum(spread * w for _, spread, w in local) / known, np.float32),
            pictures=pictures,
        )


def baselines(style: SecondStyle, beta: float, seed: int) -> dict[str, Baseline]:
    """The training-free rows by key; each ``…+local`` normalises local contrast after the first."""
    plain: dict[str, Baseline] = {
        "none": lambda picture, _number: picture,
        "reinhard": lambda picture, _number: reinhard(picture, style),
        "histogram": lambda picture, _number: match_histogram(picture, style),
        "fourier": lambda picture, number: fourier(picture, style, beta, seed + number),
    }
    found: dict[str, Baseline] = {}
    for key, apply in plain.items():
        found[key] = apply
        found[f"{key}+local"] = _with_local_contrast(apply, style)
    return found


def reinhard(picture: Uint8Image, style: SecondStyle) -> Uint8Image:
    """Colour transfer of Reinhard et al. 2001: y = (x − μ)·σ_target/σ + μ_target, per channel of a Lab space.

    CIE L*a*b* stands in for the paper's lαβ (Ruderman 1998), as in most implementations; the target is the
    second style's mean statistics instead of one picture's.
    """
    mean, deviation = _lab_moments(picture)
    lab = cv2.cvtColor(picture[..., :3].astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2LAB)
    moved = (lab - mean) * (style.lab_deviation / np.maximum(deviation, 1e-3)) + style.lab_mean
    rgb = cv2.cvtColor(np.asarray(moved, np.float32), cv2.COLOR_LAB2RGB)
    return _merged(np.asarray(rgb, np.float32) * np.float32(255.0), picture)


def match_histogram(picture: Uint8Image, style: SecondStyle) -> Uint8Image:
    """Histogram matching per channel: y = F_target⁻¹(F(x)), F the cumulative histograms inside the field.

    A level takes the middle of its own step of F, so that matching a picture to its own histogram changes
    no level (Gonzalez & Woods, section 3.3).
    """
    result = picture.copy()
    own = _histograms(picture)
    for channel in range(3):
        middle = np.cumsum(own[channel]) - 0.5 * own[channel]
        target = np.cumsum(style.histogram[channel]) - 0.5 * style.histogram[channel]
        occupied = style.histogram[channel] > 0
        levels = np.interp(middle, target[occupied], np.flatnonzero(occupied))
        table = np.asarray(np.round(levels), np.uint8)
        result[..., channel] = np.where(picture[..., 3] > 0, table[picture[..., channel]], 0)
    return result


def fourier(picture: Uint8Image, style: SecondStyle, beta: float, seed: int) -> Uint8Image:
    """Fourier domain adaptation (Yang & Soatto 2020, eq. 3): second-style low-frequency amplitudes.

    The amplitudes of the frequencies |u|, |v| ≤ ⌊β·S⌋ are those of a picture drawn at random, the phases and
    all other amplitudes are the picture's own.

    Args:
        picture: uint8 (S, S, 4).
        style: Second style.
        beta: Half width of the window as a share of S; the paper tries 0.01, 0.05 and 0.09.
        seed: Seed of the draw.
    """
    chosen = int(np.random.default_rng(seed).integers(len(style.pictures)))
    size = picture.shape[0]
    reach = int(np.floor(beta * size))
    near = np.r_[0 : reach + 1, size - reach : size]
    own, other = (
        np.fft.fft2(tensor[..., :3].astype(np.float32), axes=(0, 1))
        for tensor in (picture, style.pictures[chosen])
    )
    window = np.ix_(near, near)
    own[window] = np.abs(other[window]) * np.exp(1j * np.angle(own[window]))
    return _merged(np.asarray(np.fft.ifft2(own, axes=(0, 1)).real, np.float32), picture)


def local_contrast(picture: Uint8Image, style: SecondStyle) -> Uint8Image:
    """Local contrast normalisation (Wallis 1976): y = (x − μ(p))·σ_target(p)/σ(p) + μ_target(p).

    μ, σ: Gaussian local mean and deviation of the picture, σ = S/25 px, over pixels of the field only; the
    targets are the means over the second style at the same place of the disc. So brightness, colour cast,
    illumination and the strength of contrast all become the labelled camera's, lesion or not.

    The classifier's own preprocessing subtracts a local mean of the same window and clips at a *fixed* scale.
    What this row adds to "no adaptation" is therefore the scale (and what clipping takes); the part that
    subtracting the mean buys is in every row, unadapted ones too, and cannot be taken out without another
    classifier.
    """
    mean, deviation, _ = local_statistics(picture)
    gain = np.clip(style.local_deviation / np.maximum(deviation, _FLAT), *_GAIN)
    size = (picture.shape[1], picture.shape[0])
    enlarged = [
        np.asarray(cv2.resize(maps.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), np.float32)
        for maps in (mean, gain, style.local_mean)
    ]
    centred = picture[..., :3].astype(np.float32) - enlarged[0]
    return _merged(np.asarray(centred * enlarged[1] + enlarged[2], np.float32), picture)


def local_statistics(picture: Uint8Image) -> tuple[FloatImage, FloatImage, FloatImage]:
    """Local mean and standard deviation over the field, and how much of the window the field fills.

    Returns:
        float32 (S/8, S/8, 3) in grey levels, twice, and (S/8, S/8, 1) in 0..1.
    """
    side = max(1, picture.shape[0] // _POOL)
    sigma = picture.shape[0] / _LOCAL_SIGMA / _POOL
    inside = (picture[..., 3:] > 0).astype(np.float32)
    rgb = picture[..., :3].astype(np.float32) * inside
    blurred = [_blurred(channels, side, sigma) for channels in (inside, rgb, rgb * rgb)]
    weight = blurred[0].reshape(side, side, 1)
    known = np.maximum(weight, np.float32(1e-3))
    mean = np.asarray(blurred[1] / known, np.float32)
    variance = np.maximum(blurred[2] / known - mean * mean, 0.0)
    return mean, np.asarray(np.sqrt(variance), np.float32), weight


def _blurred(channels: FloatImage, side: int, sigma: float) -> FloatImage:
    small = cv2.resize(channels, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT), np.float32)


def _with_local_contrast(apply: Baseline, style: SecondStyle) -> Baseline:
    return lambda picture, number: local_contrast(apply(picture, number), style)


def _lab_moments(picture: Uint8Image) -> tuple[FloatImage, FloatImage]:
    """Mean and standard deviation of L*, a*, b* inside the field, float32 (3,) each."""
    lab = cv2.cvtColor(picture[..., :3].astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2LAB)
    inside = np.asarray(lab, np.float32)[picture[..., 3] > 0]
    if len(inside) == 0:
        return np.zeros(3, np.float32), np.zeros(3, np.float32)
    return inside.mean(axis=0), inside.std(axis=0)


def _histograms(picture: Uint8Image) -> npt.NDArray[np.float64]:
    """R, G, B histograms inside the field, float64 (3, 256), each summing to 1."""
    inside = picture[picture[..., 3] > 0]
    counts = np.stack([np.bincount(inside[:, channel], minlength=256) for channel in range(3)])
    return counts / max(len(inside), 1)


def _merged(rgb: FloatImage, picture: Uint8Image) -> Uint8Image:
    """Colours in grey levels, rounded and clipped, 0 outside the field, beside the picture's own alpha."""
    result = picture.copy()
    rounded = np.clip(np.round(rgb), 0.0, 255.0).astype(np.uint8)
    result[..., :3] = np.where(picture[..., 3:] > 0, rounded, 0)
    return result
