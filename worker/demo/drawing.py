"""The contact sheet's measures, colours and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

Uint8Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (20, 21, 26)
INK: Colour = (240, 240, 245)
MUTED: Colour = (175, 178, 190)
_COLUMNS = ("as sent", "after its adapter", "activation maps")
_CREDIT = (
    "Photographs: IDRiD (Porwal et al., Data 2018, 3, 25), CC BY 4.0, reduced; those of simulated cameras "
    "are changed by the simulation. People are made up. Research use only."
)
_OVERLAY: tuple[Colour, ...] = (
    (255, 70, 70),
    (255, 0, 255),
    (255, 220, 0),
    (0, 225, 255),
    (120, 255, 120),
    (255, 140, 0),
)


@dataclass(frozen=True)
class Measures:
    """Pixels of the sheet.

    Attributes:
        picture: Side of a picture.
        gap: Between pictures, and at the edges.
        caption: Width of the text beside them.
        heading: Height above the first row.
    """

    picture: int = 300
    gap: int = 10
    caption: int = 470
    heading: int = 146

    @property
    def row(self) -> int:
        """Height of a row."""
        return self.picture + self.gap

    @property
    def width(self) -> int:
        """Width of the sheet."""
        return len(_COLUMNS) * self.row + 3 * self.gap + self.caption


SIZE = Measures()


def column_x(column: int) -> int:
    """Left edge of a column of pictures; 3 is the caption's."""
    return SIZE.gap + column * SIZE.row + (SIZE.gap if column == len(_COLUMNS) else 0)


def overlay_colour(number: int) -> Colour:
    """Colour of an activation map, R, G, B; they begin again after the last."""
    return _OVERLAY[number % len(_OVERLAY)]


def new_sheet(rows: int, title: str, activation_labels: Sequence[str]) -> tuple[Uint8Image, int]:
    """An empty sheet with its heading, and where its first row begins (px from the top)."""
    sheet = np.full((SIZE.heading + rows * SIZE.row, SIZE.width, 3), BACKGROUND, np.uint8)
    draw_text(sheet, title, (SIZE.gap, 36), 24, INK, bold=True)
    _draw_legend(sheet, activation_labels)
    draw_text(sheet, _CREDIT, (SIZE.gap, 98), 14, MUTED)
    for number, name in enumerate(_COLUMNS):
        draw_text(sheet, name, (column_x(number), SIZE.heading - 12), 16, INK)
    return sheet, SIZE.heading


def _draw_legend(sheet: Uint8Image, labels: Sequence[str]) -> None:
    left = SIZE.gap
    for number, label in enumerate(labels):
        cv2.rectangle(sheet, (left, 56), (left + 13, 69), overlay_colour(number), cv2.FILLED)
        left = draw_text(sheet, label, (left + 20, 69), 16, MUTED) + 24


def draw_text(
    sheet: Uint8Image, text: str, origin: tuple[int, int], size: int, colour: Colour, *, bold: bool = False
) -> int:
    """Write a line with its baseline at `origin` (x, y); return where it ends (x)."""
    (end, _), _ = cv2.putText(sheet, text, origin, colour, _font(), size, weight=700 if bold else 400)
    return int(end)


@cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")
