"""Small disturbances of local contrast: the trunk must not hang on the last bit of sharpness or noise.

What an adapter leaves behind is a little blur, noise and a wrong gain. A trunk that has seen such
disturbances of the labelled camera's own patches decides the same on them; no picture of another camera is
needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
_SOURCE_SCALE = (1.4, 2.2)
"""Side of the camera's own picture, relative to the prepared one."""
_KEPT_CONTRAST = (0.4, 1.0)
"""What haze leaves of the contrast."""
_LEAK = 0.3
"""Largest share of one colour in another channel of the sensor."""
_BRIGHTEST = (0.55, 1.04)
"""Where the white balance puts a channel's 99th percentile, in full scale: above 1 it is cut off."""
_GAMMA = (0.75, 1.45)
_BLUR = 0.9
"""Largest standard deviation of the optical blur in px of the camera's own picture; half stay sharp."""
_SHARP = 0.2
"""Standard deviation in px below which a Gaussian is a single pixel."""
_NOISE = 0.007
"""Largest standard deviation of the sensor's noise, in full scale."""
_JPEG_QUALITY = (80, 97)
_BACKGROUND = 25
"""The background of the local contrast is a Gaussian of 1/25 of the picture's side."""


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
        if sigma > _SHARP:
            planes = np.ascontiguousarray(result[index].transpose(1, 2, 0))
            result[index] = cv2.GaussianBlur(planes, (0, 0), sigma).transpose(2, 0, 1)
        deviation = np.float32(rng.uniform(0.0, noise))
        result[index] += deviation * rng.standard_normal(result[index].shape, dtype=np.float32)
    return np.asarray(np.clip(result, -2.0, 2.0), dtype=np.float32)


def degraded(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """What is left of a photograph after a random camera and a nearly perfect adapter: there and back.

    There: haze, a sensor's mix of colours, white balance, tone curve, blur, noise, compression. Back: the
    inverse of mix, balance, tone and haze, some sharpening of what was blurred, and an error of at most 7 %
    in each channel's contrast. What this costs (detail, noise, cut-off highlights) is what no adapter gives
    back; colour, contrast and illumination, which one does, stay as they were.

    Args:
        picture: Prepared photograph, uint8 (S, S, 4).
        rng: Source of all choices.

    Returns:
        uint8 (S, S, 4), same mask.
    """
    size = picture.shape[0]
    side = round(size * rng.uniform(*_SOURCE_SCALE))
    light = cv2.resize(
        picture[..., :3].astype(np.float32) / 255.0, (side, side), interpolation=cv2.INTER_CUBIC
    )
    inside = cv2.resize(picture[..., 3], (side, side), interpolation=cv2.INTER_NEAREST) > 0
    sensor = _Sensor.drawn(np.maximum(light, 0.0), inside, rng)
    signal, sigma = sensor.takes(np.maximum(light, 0.0)), rng.uniform(-_BLUR, _BLUR)
    blurred = bool(sigma > _SHARP)
    if blurred:
        signal = np.asarray(cv2.GaussianBlur(signal, (0, 0), sigma), dtype=np.float32)
    noise = np.float32(rng.uniform(0.0, _NOISE)) * rng.standard_normal(signal.shape, dtype=np.float32)
    restored = sensor.undone(_stored(signal + noise, int(rng.integers(*_JPEG_QUALITY))))
    reduced = np.asarray(cv2.resize(restored, (size, size), interpolation=cv2.INTER_AREA), dtype=np.float32)
    sharpness = sigma * rng.uniform(0.0, 0.7) if blurred else rng.uniform(-0.25, 0.1)
    levels = np.clip(np.round(_imperfect(reduced, sharpness, rng) * 255.0), 0, 255).astype(np.uint8)
    return np.dstack([levels * (picture[..., 3:] > 0), picture[..., 3]])


@dataclass(frozen=True)
class _Sensor:
    """Haze, mix of colours, white balance, tone curve of a random camera: clip(gains·(M·(k·x + v)))^γ."""

    kept: float
    veil: Float64Array
    mix: Float64Array
    gains: Float64Array
    gamma: float

    @staticmethod
    def drawn(light: FloatArray, inside: npt.NDArray[np.bool_], rng: np.random.Generator) -> _Sensor:
        """One whose white balance fits the picture, float32 (H, W, 3) with its field, bool (H, W)."""
        kept = rng.uniform(*_KEPT_CONTRAST)
        veil = (1.0 - kept) * rng.uniform(0.2, 0.6, 3)
        leak = rng.uniform(0.0, _LEAK, (3, 3)) * (1.0 - np.eye(3))
        mix = leak + np.diag(1.0 - leak.sum(axis=1))
        few = (light * kept + veil)[::4, ::4][inside[::4, ::4]] @ mix.T
        gains = rng.uniform(*_BRIGHTEST, 3) / np.percentile(few, 99.0, axis=0)
        return _Sensor(kept, veil, mix, gains, rng.uniform(*_GAMMA))

    def takes(self, light: FloatArray) -> FloatArray:
        """The sensor's signal, float32 (H, W, 3), 0..1."""
        mixed = (light * self.kept + self.veil) @ self.mix.T
        signal = np.clip(mixed * self.gains, 0.0, 1.0).astype(np.float32)
        return np.asarray(signal ** np.float32(self.gamma), dtype=np.float32)

    def undone(self, stored: npt.NDArray[np.uint8]) -> FloatArray:
        """The light that the stored picture, uint8 (H, W, 3), tells of, float32."""
        signal = stored.astype(np.float32) / 255.0
        mixed = signal ** (1.0 / self.gamma) / self.gains
        return np.asarray((mixed @ np.linalg.inv(self.mix).T - self.veil) / self.kept, dtype=np.float32)


def _imperfect(picture: FloatArray, sharpness: float, rng: np.random.Generator) -> FloatArray:
    """Detail amplified by ``sharpness`` and each channel's local contrast wrong by at most 7 %."""
    picture = picture + sharpness * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
    background = cv2.GaussianBlur(picture, (0, 0), picture.shape[0] / _BACKGROUND)
    error = rng.uniform(0.93, 1.07, 3).astype(np.float32)
    return np.asarray(background + (picture - background) * error, dtype=np.float32)


def _stored(signal: npt.NDArray[np.floating], quality: int) -> npt.NDArray[np.uint8]:
    """A JPEG file's pixels, uint8 (H, W, 3)."""
    levels = np.clip(np.round(signal * 255.0), 0, 255).astype(np.uint8)
    done, stream = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not compress the picture")
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]
