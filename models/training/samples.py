"""Sample sheets: what a generator does to pictures, for people to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.data import DataError

SHOWN = 4
"""Pictures of each style on a sheet."""
GAIN = 3.0
"""Factor by which residuals are amplified."""
_TILE, _MARGIN, _LABEL = 192, 6, 22
_INK, _PAPER = (235, 235, 235), 24
Canvas = npt.NDArray[np.uint8]


def sheet(
    first: tuple[Tensor, Tensor], translated: Tensor, second: tuple[Tensor, Tensor], title: str
) -> Canvas:
    """Rows of first style, translated, residual and second style, labelled.

    The residual is shown as ½ + ``GAIN``·(x̂ − x): mid-grey is 0. The last row shows other people's pictures,
    for the look that the second row should have, not for their content.

    Args:
        first: RGB float32 (N, 3, S, S), 0..1, and mask (N, 1, S, S).
        translated: x̂ of these, not clamped.
        second: As ``first``.
        title: What stands above.

    Returns:
        RGB uint8 (H, W, 3).
    """
    (rgb, mask), (other, other_mask) = first, second
    shown = translated.clamp(0.0, 1.0) * mask
    rows = {
        "first style (the new camera)": rgb * mask,
        "translated": shown,
        f"residual x {GAIN:g} (mid-grey is 0)": 0.5 + GAIN * (shown - rgb * mask),
        "second style (the labelled camera, other people)": other * other_mask,
    }
    width = SHOWN * (_TILE + _MARGIN) + _MARGIN
    parts = [_text(title, width)]
    for label, pictures in rows.items():
        parts += [_text(label, width), _row(pictures, width)]
    return np.concatenate(parts)


def write_sheet(file: Path, rgb: Canvas) -> None:
    """Write a sheet as PNG.

    Raises:
        DataError: It cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(file), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{file} cannot be written")


def _row(pictures: Tensor, width: int) -> Canvas:
    row = np.full((_TILE + _MARGIN, width, 3), _PAPER, np.uint8)
    with torch.inference_mode():
        values = pictures[:SHOWN].clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    for place, picture in enumerate(values.permute(0, 2, 3, 1).cpu().numpy()):
        left = _MARGIN + place * (_TILE + _MARGIN)
        way = cv2.INTER_AREA if picture.shape[0] > _TILE else cv2.INTER_NEAREST
        row[:_TILE, left : left + _TILE] = cv2.resize(picture, (_TILE, _TILE), interpolation=way)
    return row


def _text(text: str, width: int) -> Canvas:
    strip = np.full((_LABEL, width, 3), _PAPER, np.uint8)
    cv2.putText(strip, text, (_MARGIN, _LABEL - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.48, _INK, 1, cv2.LINE_AA)
    return strip
