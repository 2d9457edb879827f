"""Activation maps of the classifier, drawn over the photograph that they were computed from.

Nothing is drawn that the graph did not return: each map is the classifier's own output for that picture, the
one from which it counts what it grades. It is no segmentation to measure by.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Uint8Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

SHOWN_FROM: Final = 0.3
"""Activation (0 to 1) from which a place is coloured: the lowest at which the classifier counts areas."""
OUTLINED_FROM: Final = 0.5
"""Activation from which a place is outlined as well."""
_COLOURS: Final[tuple[Colour, ...]] = (
    (0, 224, 255),
    (255, 0, 170),
    (70, 255, 70),
    (70, 110, 255),
    (255, 235, 0),
    (255, 255, 255),
)


def map_colours(count: int) -> list[Colour]:
    """Return the colour (R, G, B) of each of `count` maps; they repeat after the sixth."""
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def draw_activation(picture: Uint8Image, activation: Uint8Image) -> Uint8Image:
    """Colour the places that the maps name.

    Args:
        picture: uint8 (T, T, 4), a photograph as ``models.preprocess.prepare`` makes it, of any side T.
        activation: uint8 (K, h, w), the classifier's maps for the same photograph, 0 to 255.

    Returns:
        uint8 (T, T, 3) RGB: as `picture`, blended with the maps' colours where they reach ``SHOWN_FROM``,
        outlined where they reach ``OUTLINED_FROM``. Outside the field of view it is black.
    """
    side = picture.shape[0]
    inside = picture[..., 3] > 0
    drawn = picture[..., :3].astype(np.float32)
    for plane, colour in zip(activation, map_colours(len(activation)), strict=True):
        level = cv2.resize(plane.astype(np.float32) / 255.0, (side, side), interpolation=cv2.INTER_LINEAR)
        weight = np.where((level >= SHOWN_FROM) & inside, 0.15 + 0.45 * level, 0.0)[..., None]
        drawn = (drawn * (1.0 - weight) + np.array(colour) * weight).astype(np.float32)
    result = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    for plane, colour in zip(activation, map_colours(len(activation)), strict=True):
        level = cv2.resize(plane.astype(np.float32) / 255.0, (side, side), interpolation=cv2.INTER_LINEAR)
        strong = ((level >= OUTLINED_FROM) & inside).astype(np.uint8)
        outlines, _ = cv2.findContours(strong, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outlines, -1, colour, max(1, side // 512), cv2.LINE_8)
    result[~inside] = 0
    return result
