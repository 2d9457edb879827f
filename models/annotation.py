"""Text and drawings over the retina: a name, a clock, a laterality mark or a ruler, burned into the picture.

Beside the disc such things do not matter: `preprocess.prepare` blanks everything there. Over it they hide
tissue, and their edges are like nothing that the models were trained on.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_STROKE = 9 / 512
"""Width of the widest stroke, in sides of the tensor; what is as bright in a retina is wider."""
_RIM = 13 / 512
"""Width of the rim that is left out, in sides of the tensor: the disc's own edge is sharp."""
_WHITE, _COLOURED, _YELLOW = 90, 90, 110
"""Grey levels by which a stroke stands out from what is around it."""
_LEAST = 48 / 512**2
"""Share of the tensor: two or three letters 2 % of the disc high."""


def text_in_field(tensor: npt.NDArray[np.uint8]) -> bool:
    """Whether thin strokes of a colour that no retina has lie in the field of view.

    Tissue is red over green over blue. Strokes that are seen: white or grey (the least channel stands out),
    green, cyan or blue (over red), yellow (green over blue, by more than exudates do). Not seen: black ones.

    Args:
        tensor: uint8 (S, S, 4), RGB and the field's mask, as `preprocess.prepare` makes it.
    """
    side = tensor.shape[0]
    inside = cv2.erode(tensor[..., 3], _square(_RIM * side)) > 0
    red, green, blue = cv2.split(tensor[..., :3])
    stroke = _square(_STROKE * side)
    found = np.zeros(inside.shape, np.bool_)
    for colour, least in (
        (cv2.min(red, cv2.min(green, blue)), _WHITE),
        (cv2.subtract(cv2.max(green, blue), red), _COLOURED),
        (cv2.subtract(green, blue), _YELLOW),
    ):
        found |= cv2.morphologyEx(colour, cv2.MORPH_TOPHAT, stroke) >= least
    strokes = np.count_nonzero(found & inside)
    return bool(strokes > max(_LEAST * side * side, 16))


def _square(width: float) -> npt.NDArray[np.uint8]:
    """A structuring element of about that width in pixels, odd and at least 3."""
    odd = max(3, round(width) | 1)
    return np.ones((odd, odd), np.uint8)
