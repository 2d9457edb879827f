"""Small disturbances of local contrast: the trunk must not hang on the last bit of sharpness or noise.

What an adapter leaves behind is a little blur, noise and a wrong gain. A trunk that has seen such
disturbances of the labelled camera's own patches decides the same on them; no picture of another camera is
needed.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_SOURCE_SCALE = (1.4, 2.2)
"""Side of the camera's own picture, relative to the prepared one."""
_KEPT_CONTRAST = (0.35, 1.0)
_BLUR = 0.9
"""Largest standard deviation of the optical blur in px of the camera's own picture; half stay sharp."""
_NOISE = 0.008
"""Largest standard deviation of the sensor's noise, in full scale."""
_JPEG_QUALITY = (75, 96)


def perturbed(
    contrast: FloatArray, rng: np.random.Generator, *, gain: float, channel: float, noise: float, blur: float
) -> FloatArray:
    """Disturb patches of local contrast, each patch differently.

    Args:
        contrast: Patches, float32 (B, 3, p, p), -2..2 (``LocalContrast``).
        rng: Source of all choices.
        gain: Largest relative change of a patch's contrast, both ways.
        channel: Largest further relative change of one channel, both ways.
        noise: Largest standard deviation of white noise, in units of contrast (32 grey levels each).
        blur: Largest standard deviation of a Gaussian blur, px; half of the patches stay sharp.

    Returns:
        float32 (B, 3, p, p), clipped to -2..2.
    """
    count = len(contrast)
    factors = rng.uniform(1 - gain, 1 + gain, (count, 1)) * rng.uniform(1 - channel, 1 + channel, (count, 3))
    result = contrast * factors.astype(np.float32)[:, :, None, None]
    for index in range(count):
        sigma = rng.uniform(-blur, blur)
        if sigma > 0.2:  # below, a Gaussian is a single pixel
            planes = np.ascontiguousarray(result[index].transpose(1, 2, 0))
            result[index] = cv2.GaussianBlur(planes, (0, 0), sigma).transpose(2, 0, 1)
        deviation = np.float32(rng.uniform(0.0, noise))
        result[index] += deviation * rng.standard_normal(result[index].shape, dtype=np.float32)
    return np.asarray(np.clip(result, -2.0, 2.0), dtype=np.float32)


def degraded(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """What is left of a photograph after a poorer camera and a perfect adapter.

    Contrast is reduced, then the optics blur, the sensor adds noise, the file is compressed, and contrast is
    restored, with a small error. The detail and noise that this costs are what no adapter gives back; colour,
    contrast and illumination, which one does, stay as they were.

    Args:
        picture: Prepared photograph, uint8 (S, S, 4).
        rng: Source of all choices.

    Returns:
        uint8 (S, S, 4), same mask.
    """
    size = picture.shape[0]
    side = round(size * rng.uniform(*_SOURCE_SCALE))
    source = cv2.resize(
        picture[..., :3].astype(np.float32) / 255.0, (side, side), interpolation=cv2.INTER_CUBIC
    )
    kept = rng.uniform(*_KEPT_CONTRAST)
    veil = (1.0 - kept) * rng.uniform(0.2, 0.6, 3)
    signal: npt.NDArray[np.floating] = source * kept + veil
    sigma = rng.uniform(-_BLUR, _BLUR)
    if sigma > 0.2:  # below, a Gaussian is a single pixel
        signal = np.asarray(cv2.GaussianBlur(signal, (0, 0), sigma), dtype=np.float32)
    signal = signal + rng.normal(0.0, rng.uniform(0.0, _NOISE), signal.shape)
    stored = _stored(signal, int(rng.integers(*_JPEG_QUALITY)))
    restored = (stored.astype(np.float32) / 255.0 - veil) / kept * rng.uniform(0.94, 1.06, 3)
    reduced = cv2.resize(restored.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    levels = np.clip(np.round(reduced * 255.0), 0, 255).astype(np.uint8)
    return np.dstack([levels * (picture[..., 3:] > 0), picture[..., 3]])


def _stored(signal: npt.NDArray[np.floating], quality: int) -> npt.NDArray[np.uint8]:
    """A JPEG file's pixels, uint8 (H, W, 3)."""
    levels = np.clip(np.round(signal * 255.0), 0, 255).astype(np.uint8)
    done, stream = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not compress the picture")
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]
