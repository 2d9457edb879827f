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
