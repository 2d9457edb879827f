"""RGB or YBR? Uncompressed samples under a label that vendors get wrong, and the conversion to RGB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint8]

_SAMPLED_PIXELS = 65_536
_DARK = 24
_NEUTRAL = 128
_BLACK_CONVERTED = 135
_NEUTRAL_WIDTH = 16
_SMALLEST_SHARE = 0.005
_CLEAR_RATIO = 4
_ROWS_AT_ONCE = 128


def samples_are_ybr(samples: Samples, *, stated_ybr: bool) -> bool:
    """Whether three-channel samples are luminance and chrominance (YBR_FULL) rather than RGB.

    A photograph of a fundus is a bright reddish disc on black. Black is (0, 0, 0) in RGB and
    (0, 128, 128) in YBR_FULL (PS3.3 C.7.6.3.1.2), so the dark surround decides against any label.
    Without one, RGB stated is believed, and YBR stated is believed unless only the reading as
    RGB is reddish.

    Args:
        samples: uint8 (H, W, 3).
        stated_ybr: Whether the header states a YBR photometric interpretation.
    """
    thinned = _thinned(samples)
    dark = thinned[thinned[:, 0] < _DARK].astype(np.int16)
    neutral = int((np.abs(dark[:, 1:] - _NEUTRAL) < _NEUTRAL_WIDTH).all(axis=1).sum())
    black = int((dark[:, 1:] < _DARK).all(axis=1).sum())
    least = max(1, round(len(thinned) * _SMALLEST_SHARE))
    if neutral >= least and neutral > _CLEAR_RATIO * black:
        return True
    if black >= least and black > _CLEAR_RATIO * neutral:
        return False
    if not stated_ybr:
        return False
    as_read = ybr_to_rgb(np.ascontiguousarray(thinned[np.newaxis]))
    return _reddish(as_read) or not _reddish(thinned)


def was_rgb_already(rgb: Samples) -> bool:
    """Whether RGB samples were taken for YBR_FULL and converted: their black surround is green then.

    (0, 0, 0) read as YBR_FULL is (0, 135, 0), a colour that no photograph of a fundus has beside no black.

    Args:
        rgb: uint8 (H, W, 3), as converted.
    """
    thinned = _thinned(rgb)
    dark = thinned[(thinned[:, 0] < _DARK) & (thinned[:, 2] < _DARK)].astype(np.int16)
    green = int((np.abs(dark[:, 1] - _BLACK_CONVERTED) < _NEUTRAL_WIDTH).sum())
    black = int((dark[:, 1] < _DARK).sum())
    return green >= max(1, round(len(thinned) * _SMALLEST_SHARE)) and green > _CLEAR_RATIO * black


def _thinned(samples: Samples) -> Samples:
    """Evenly spread pixels of (H, W, 3), as (N, 3)."""
    step = max(1, round((samples.shape[0] * samples.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    return samples[::step, ::step].reshape(-1, 3)


def ybr_to_rgb(samples: Samples) -> Samples:
    """YBR_FULL as RGB (PS3.3 C.7.6.3.1.2, inverse), rounded and clamped.

    Args:
        samples: uint8 (H, W, 3), channels Y, Cb, Cr.

    Returns:
        uint8 (H, W, 3), C-contiguous.
    """
    rgb = np.empty(samples.shape, np.uint8)
    for top in range(0, samples.shape[0], _ROWS_AT_ONCE):  # bounds the memory of the wide integers
        block = samples[top : top + _ROWS_AT_ONCE].astype(np.int32)
        y, cb, cr = block[..., 0] << 16, block[..., 1] - 128, block[..., 2] - 128
        half = 1 << 15
        channels = (y + 91881 * cr, y - 22554 * cb - 46802 * cr, y + 116130 * cb)
        for index, channel in enumerate(channels):
            rgb[top : top + _ROWS_AT_ONCE, :, index] = np.clip((channel + half) >> 16, 0, 255)
    return rgb


def expand_422(content: npt.NDArray[np.uint8], rows: int, columns: int) -> Samples:
    """Uncompressed YBR_FULL_422 as YBR_FULL: two pixels are Y, Y, Cb, Cr (PS3.3 C.7.6.3.1.2).

    Args:
        content: uint8 (rows * columns * 2,).
        rows: Lines, in pixels.
        columns: Pixels a line, even.
    """
    pairs = content.reshape(rows, columns // 2, 4)
    full = np.empty((rows, columns, 3), np.uint8)
    full[..., 0] = pairs[..., :2].reshape(rows, columns)
    full[..., 1:] = np.repeat(pairs[..., 2:], 2, axis=1)
    return full


def _reddish(rgb: Samples) -> bool:
    """Whether the mean colour is that of a fundus: red over green over blue."""
    red, green, blue = rgb.reshape(-1, 3).mean(axis=0)
    return bool(red > green > blue)
