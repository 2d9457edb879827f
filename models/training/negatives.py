"""Pictures that must not be graded: ruined photographs, and pictures that show no retina at all.

All are prepared tensors, uint8 (S, S, 4), in the field of a real photograph, so that the quality head learns
content and not the crop's shape. What is drawn is often given the photograph's colours and a camera's own
traces (blur, noise, vignetting, compression): neither colour nor sharpness alone may tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.preprocess import Uint8Image
from models.training.ruins import RUINS, Ruin
from models.training.scenes import SCENES as EVERYDAY_SCENES
from models.training.scenes import FloatImage, Scene
from models.training.scenes_medical import MEDICAL_SCENES

__all__ = ["RUINS", "SCENES", "Negative", "Ruin", "Scene", "negative", "negative_of", "random_negative"]

SCENES: tuple[Scene, ...] = EVERYDAY_SCENES + MEDICAL_SCENES
"""What is no retina."""
_RUINED = 0.45
"""Share of negatives made from the photograph itself."""
_IN_ITS_COLOURS = 0.5
"""Share of scenes that get the photograph's mean and spread of each channel."""


@dataclass(frozen=True)
class Negative:
    """A picture that must not be graded.

    Attributes:
        picture: uint8 (S, S, 4), alpha as in the photograph it replaces.
        kind: Name of the ``Ruin`` or ``Scene`` that made it.
    """

    picture: Uint8Image
    kind: str


def negative(photograph: Uint8Image, rng: np.random.Generator) -> Uint8Image:
    """A picture of a random kind that must not be graded, uint8 (S, S, 4); see ``negative_of``."""
    return random_negative(photograph, rng).picture


def random_negative(photograph: Uint8Image, rng: np.random.Generator) -> Negative:
    """A negative of a random kind: a ruin of ``photograph`` or a scene in its field."""
    kinds: tuple[Ruin, ...] | tuple[Scene, ...] = RUINS if rng.random() < _RUINED else SCENES
    return negative_of(kinds[int(rng.integers(len(kinds)))], photograph, rng)


def negative_of(make: Ruin | Scene, photograph: Uint8Image, rng: np.random.Generator) -> Negative:
    """A negative of one kind.

    Args:
        make: One of ``RUINS`` or ``SCENES``.
        photograph: A prepared photograph, uint8 (S, S, 4); gives the field, and what a ruin ruins.
        rng: Source of all that varies.
    """
    colours, inside = photograph[..., :3].astype(np.float32) / np.float32(255), photograph[..., 3] > 0
    if make in RUINS:
        picture = make(colours, rng)
    else:
        picture = np.clip(make(photograph.shape[0], rng), 0, 1)
        if rng.random() < _IN_ITS_COLOURS:
            picture = _in_colours_of(picture, colours, inside)
        picture = _as_a_camera_takes_it(picture, rng)
    bytes_ = np.clip(np.round(picture * 255.0), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        bytes_ = _compressed(bytes_, int(rng.integers(70, 97)))
    return Negative(np.dstack([bytes_ * inside[..., None], photograph[..., 3]]), make.__name__)


def _in_colours_of(picture: FloatImage, photograph: FloatImage, inside: npt.NDArray[np.bool_]) -> FloatImage:
    """Each channel moved to the photograph's mean and standard deviation (Reinhard 2001, in RGB)."""
    mask = inside.astype(np.uint8)
    source_mean, source_std = (found[:, 0] for found in cv2.meanStdDev(picture, mask=mask))
    target_mean, target_std = (found[:, 0] for found in cv2.meanStdDev(photograph, mask=mask))
    # A flat scene must not become amplified noise.
    gain = np.minimum(target_std / np.maximum(source_std, 1e-3), 3.0).astype(np.float32)
    return np.asarray(picture * gain + (target_mean - source_mean * gain).astype(np.float32), np.float32)


def _as_a_camera_takes_it(picture: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Vignetting, a lens's blur, noise: each half of the time."""
    size = picture.shape[0]
    if rng.random() < 0.5:
        steps = np.linspace(-1, 1, size, dtype=np.float32)
        radius_squared = np.minimum(steps[None] ** 2 + steps[:, None] ** 2, np.float32(1))
        picture = picture * (1 - np.float32(rng.uniform(0, 0.9)) * radius_squared)[..., None]
    if rng.random() < 0.5:
        sigma = size / 512 * float(rng.uniform(0.3, 3.0))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.float32)
    if rng.random() < 0.5:
        strength = np.float32(rng.uniform(0, 0.03))
        picture = picture + strength * rng.standard_normal(picture.shape, dtype=np.float32)
    return picture


def _compressed(rgb: Uint8Image, quality: int) -> Uint8Image:
    done, stream = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR) if done else None
    if decoded is None:
        raise RuntimeError("OpenCV could not compress the picture")
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)
