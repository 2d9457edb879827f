"""Measures of the page, and what writes on it from top to bottom. Lengths are in points."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader, simpleSplit

from worker.printed.lettering import REGULAR, fitted

Ink = tuple[float, float, float]

WIDTH, HEIGHT = A4
MARGIN = 42.0
GAP = 16.0
COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2
PICTURE = (COLUMN - 24) / 2
BODY, SMALL = 8.6, 7.2
INK, GREY, RULE, PALE = (0.1, 0.12, 0.15), (0.38, 0.41, 0.45), (0.78, 0.8, 0.83), (0.945, 0.95, 0.96)
WHITE, BLUE, RED = (1.0, 1.0, 1.0), (0.09, 0.27, 0.45), (0.72, 0.09, 0.09)
FOOTER_TOP = 96.0


class Pen:
    """Writes on the canvas from top to bottom; `y` is the top of what comes next, in points."""

    def __init__(self, canvas: Any) -> None:
        self.canvas = canvas
        self.y = HEIGHT - MARGIN

    def line(self, text: str, x: float, *, size: float = BODY, font: str = REGULAR, ink: Ink = INK) -> None:
        """Write one line; `y` stays."""
        self.canvas.setFont(font, size)
        self.canvas.setFillColorRGB(*ink)
        self.canvas.drawString(x, self.y - size, text)

    def prose(
        self, text: str, x: float, width: float, *, size: float = BODY, font: str = REGULAR, ink: Ink = INK
    ) -> None:
        """Write text wrapped to `width`, and go on below; nothing is written over the footer."""
        for part in simpleSplit(text, font, size, width):
            if self.y - size * 1.3 < FOOTER_TOP:
                return
            self.line(fitted(part, font, size, width), x, size=size, font=font, ink=ink)
            self.y -= size * 1.32

    def rule(self) -> None:
        """Draw a line across the page."""
        self.canvas.setStrokeColorRGB(*RULE)
        self.canvas.setLineWidth(0.6)
        self.canvas.line(MARGIN, self.y, WIDTH - MARGIN, self.y)

    def box(self, x: float, width: float, height: float, fill: Ink) -> None:
        """Fill a rectangle whose top is `y`."""
        self.canvas.setFillColorRGB(*fill)
        self.canvas.rect(x, self.y - height, width, height, stroke=0, fill=1)

    def picture(self, jpeg: bytes, x: float, side: float) -> None:
        """Draw a square picture whose top is `y`."""
        self.canvas.drawImage(ImageReader(BytesIO(jpeg)), x, self.y - side, side, side)

    def label(
        self, text: str, centre: float, y: float, *, size: float, font: str = REGULAR, ink: Ink
    ) -> None:
        """Write a line centred at `centre`, its base line at `y`."""
        self.canvas.setFont(font, size)
        self.canvas.setFillColorRGB(*ink)
        self.canvas.drawCentredString(centre, y, text)
