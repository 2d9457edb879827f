"""Real photographs made ungradable, or no longer a colour photograph of a retina.

Each takes a picture float32 (S, S, 3) in 0..1, zero outside its field, and a generator, and returns the same
shape; callers clip and apply the field's mask.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.training.scenes import FloatImage, blend, colour, gradient, texture, warm

Ruin = Callable[[FloatImage, np.random.Generator], FloatImage]


def _smooth(picture: FloatImage, sigma: float) -> FloatImage:
    """Gaussian mean over the field only (normalised convolution), at a scale at which σ is 2 to 4 px."""
    size = picture.shape[0]
    low = max(16, size >> max(0, int(np.log2(max(sigma, 1.0) / 2))))
    inside = (picture.max(axis=2) > 0).astype(np.float32)
    stacked = cv2.resize(np.dstack([picture, inside]), (low, low), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(stacked, (0, 0), sigma * low / size)
    mean = spread[..., :3] / np.maximum(spread[..., 3:], np.float32(1e-3))
    return np.asarray(cv2.resize(mean, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def blurred(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Defocused beyond grading: σ of 1.4 to 5 % of the field; vessels of the second order are gone."""
    return _smooth(picture, picture.shape[0] * rng.uniform(0.014, 0.05))


def shaken(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """The eye moved: smeared along a line of 6 to 20 % of the field."""
    length = max(3, int(picture.shape[0] * rng.uniform(0.06, 0.2)))
    kernel = np.zeros((length, length), np.float32)
    middle, angle = (length - 1) / 2, rng.uniform(0, np.pi)
    step = middle * np.array([np.cos(angle), np.sin(angle)])
    first, last = (middle - step).astype(int).tolist(), (middle + step).astype(int).tolist()
    cv2.line(kernel, first, last, 1.0, 1)
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), dtype=np.float32)


def dark(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Flash failed: 2 to 8 % of the light, and read noise."""
    dim = picture * np.float32(rng.uniform(0.02, 0.08))
    return dim + np.float32(0.01) * rng.standard_normal(picture.shape, dtype=np.float32)


def saturated(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Overexposed: four to ten times the light, channels clipped."""
    return picture * np.float32(rng.uniform(4.0, 10.0)) + np.float32(rng.uniform(0.1, 0.4))


def hazed(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A dense cataract or a fogged lens: 70 to 95 % veil over a picture that scattered light has softened."""
    veil = np.array([0.55, 0.5, 0.45]) * rng.uniform(0.5, 1.5) * rng.uniform(0.8, 1.2, 3)
    share = np.float32(rng.uniform(0.7, 0.95))
    soft = _smooth(picture, picture.shape[0] * rng.uniform(0.005, 0.02))
    return np.asarray(soft * (1 - share) + veil * share, dtype=np.float32)


def drowned(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Noise of 25 to 60 % of full scale, as of a dark exposure amplified."""
    strength = np.float32(rng.uniform(0.25, 0.6))
    return picture + strength * rng.standard_normal(picture.shape, dtype=np.float32)


def occluded(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A lid, lashes or the iris in front of well over half of the field."""
    size = picture.shape[0]
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, -0.15)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size * 2 - 1
    edge = columns * np.cos(angle) + rows * np.sin(angle) - reach
    cover = (1 / (1 + np.exp(-edge / rng.uniform(0.01, 0.15)))).astype(np.float32)[..., None]
    lid = rng.uniform(0.0, 1.0) * np.array([0.8, 0.55, 0.45], np.float32)
    hidden: FloatImage = picture * (1 - cover) + cover * (lid + 0.1 * texture(size, rng))
    return hidden


def monochrome(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Red-free, infrared or autofluorescence: one channel in grey, stretched, inverted half of the time."""
    grey = _stretched(picture[..., int(rng.integers(3))])
    grey = 1.0 - grey if rng.random() < 0.5 else grey
    return np.asarray(np.repeat(grey[..., None], 3, axis=2) * rng.uniform(0.6, 1.0), dtype=np.float32)


def angiogram(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Fluorescein or ICG angiography: bright vessels on a dark ground, tinted; or red-free in one hue."""
    green = picture[..., 1]
    local = green - _smooth(picture, picture.shape[0] / 25)[..., 1]
    glow = _stretched(green) * 0.3 - 5.0 * local if rng.random() < 0.7 else _stretched(green)
    tint = np.array([(0.3, 1.0, 0.3), (1.0, 0.7, 0.1), (0.2, 0.5, 1.0), (1.0, 0.15, 0.1)][rng.integers(4)])
    tint = np.clip(tint + rng.uniform(-0.15, 0.15, 3), 0, 1)
    return np.asarray(np.clip(glow, 0, 1)[..., None] * tint, dtype=np.float32)


def recoloured(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Channels in a wrong order, blue brightest: no camera's white balance does that."""
    order = [(2, 1, 0), (1, 2, 0), (2, 0, 1)][int(rng.integers(3))]
    return np.ascontiguousarray(picture[..., order]) * np.float32(rng.uniform(0.7, 1.4))


def inverted(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A negative, of all channels."""
    return np.float32(rng.uniform(0.7, 1.0)) - picture * np.float32(rng.uniform(0.7, 1.0))


def posterised(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Three to five levels a channel: a broken export, a palette."""
    steps = int(rng.integers(2, 5))
    return np.asarray(np.round(_stretched(picture) * steps) / steps, dtype=np.float32)


def magnified(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A detail, 3.5 to 7 times enlarged, that fills the field."""
    size = picture.shape[0]
    side = max(4, int(size / rng.uniform(3.5, 7.0)))
    top, left = (int(value) for value in rng.integers(size // 5, size * 4 // 5 - side + 1, 2))
    return np.asarray(cv2.resize(picture[top : top + side, left : left + side], (size, size)), np.float32)


def tiled(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A contact sheet: the whole picture repeated in rows of two to six."""
    size, count = picture.shape[0], int(rng.integers(2, 7))
    small = cv2.resize(picture, (-(-size // count),) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(np.tile(small, (count, count, 1))[:size, :size], dtype=np.float32)


def shuffled(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Square pieces of the picture in a wrong order, three to eight a side: retina's parts, not a retina."""
    size, count = picture.shape[0], int(rng.integers(3, 9))
    side = size // count
    result = picture.copy()
    corners = [(row * side, column * side) for row in range(count) for column in range(count)]
    for (to_row, to_column), place in zip(corners, rng.permutation(len(corners)), strict=True):
        row, column = corners[int(place)]
        piece = picture[row : row + side, column : column + side]
        result[to_row : to_row + side, to_column : to_column + side] = piece
    return np.where(result.max(axis=2, keepdims=True) > 0, result, picture.mean(axis=(0, 1)))


def warped(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Torn by a random displacement of up to a quarter of the field: a retina's colours, not its shapes."""
    size = picture.shape[0]
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    reach = size * rng.uniform(0.25, 0.5)
    shift = [(texture(size, rng)[..., 0] - 0.5) * np.float32(reach) for _ in range(2)]
    moved = cv2.remap(
        picture, columns + shift[0], rows + shift[1], cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
    )
    return np.asarray(moved, dtype=np.float32)


def emptied(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A lit field without an eye: the picture's own illumination alone, σ of a tenth of it and more."""
    even = _smooth(picture, picture.shape[0] * rng.uniform(0.1, 0.25))
    if rng.random() < 0.3:
        even = 0.5 * even + 0.5 * gradient(picture.shape[0], rng)
    grain = blend(texture(picture.shape[0], rng), warm(rng)[0], colour(rng)) - np.float32(0.5)
    return np.asarray(even + np.float32(rng.uniform(0, 0.1)) * grain, dtype=np.float32)


def _stretched(picture: FloatImage) -> FloatImage:
    spread: FloatImage = (picture - picture.min()) / max(float(np.ptp(picture)), 1e-3)
    return spread


RUINS: tuple[Ruin, ...] = (
    blurred,
    blurred,
    blurred,
    shaken,
    dark,
    saturated,
    hazed,
    drowned,
    occluded,
    monochrome,
    angiogram,
    recoloured,
    inverted,
    posterised,
    magnified,
    tiled,
    shuffled,
    warped,
    emptied,
)
"""What ruins a real photograph; blur most often, it is the commonest and the hardest."""
