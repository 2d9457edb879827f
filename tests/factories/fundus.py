"""Drawn fundus photographs: a lit disc with an optic disc, vessels and lesions at known places."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Drawing:
    """What to draw; lengths in pixels of the frame.

    Attributes:
        width: Of the frame.
        height: Of the frame; a disc that does not fit is cut.
        radius: Of the disc.
        shift_x: Of the disc's centre from the frame's.
        shift_y: Likewise, downwards.
        vignetting: Loss of light at the rim, 0 to 1.
        notch: Whether the rim has a notch at the upper right.
        text: Whether there is white text in the frame's upper left corner.
        lesions: Number of dark and of bright lesions each.
        seed: Of vessels, lesions and noise.
    """

    width: int = 400
    height: int = 270
    radius: float = 160.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    vignetting: float = 0.2
    notch: bool = False
    text: bool = False
    lesions: int = 0
    seed: int = 0

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the disc, x and y, counted between the centres of pixels."""
        return (self.width - 1) / 2 + self.shift_x, (self.height - 1) / 2 + self.shift_y


def draw(drawing: Drawing | None = None) -> Picture:
    """Draw a photograph, uint8 (height, width, 3) RGB."""
    plan = drawing or Drawing()
    rng = np.random.default_rng(plan.seed)
    (x, y), radius = plan.centre, plan.radius
    picture = np.empty((plan.height, plan.width, 3), np.float32)
    picture[:] = (170.0, 85.0, 30.0)
    disc = (x + rng.choice((-0.45, 0.45)) * radius, y + rng.uniform(-0.15, 0.15) * radius)
    _vessels(picture, plan, disc, rng)
    cv2.circle(picture, (round(disc[0]), round(disc[1])), round(0.12 * radius), (240.0, 190.0, 110.0), -1)
    for colour in ((110.0, 30.0, 10.0), (235.0, 215.0, 110.0)):
        for _ in range(plan.lesions):
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.4) * radius
            place = (round(x + reach * np.cos(angle)), round(y + reach * np.sin(angle)))
            cv2.circle(picture, place, max(1, round(0.015 * radius)), colour, -1)
    columns, rows = np.meshgrid(np.arange(plan.width), np.arange(plan.height))
    reach = np.hypot(columns - x, rows - y) / radius
    picture *= (1.0 - plan.vignetting * reach**2).astype(np.float32)[..., None]
    inside = reach <= 1.0
    if plan.notch:
        angle = np.degrees(np.arctan2(rows - y, columns - x))
        inside &= ~((reach > 0.97) & (np.abs(angle + 25) < 4))
    picture[~inside] = 3.0
    if plan.text:
        _label(picture)
    noisy = picture + rng.normal(0.0, 1.5, picture.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _vessels(
    picture: npt.NDArray[np.float32], plan: Drawing, disc: tuple[float, float], rng: np.random.Generator
) -> None:
    start = np.array(disc)
    for _ in range(8):
        place, angle = start.copy(), rng.uniform(0, 2 * np.pi)
        for _ in range(12):
            angle += rng.normal(0.0, 0.25)
            target = place + 0.09 * plan.radius * np.array([np.cos(angle), np.sin(angle)])
            ends = [(round(float(p[0])), round(float(p[1]))) for p in (place, target)]
            cv2.line(picture, ends[0], ends[1], (120.0, 35.0, 12.0), max(1, round(plan.radius / 40)))
            place = target


def _label(picture: npt.NDArray[np.float32]) -> None:
    """Strokes like a line of text; OpenCV writes letters on uint8 only."""
    for column in range(4, 44, 4):
        picture[4 : 12 + column % 3, column : column + 2] = 255.0
