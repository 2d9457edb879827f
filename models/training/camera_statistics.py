"""What a camera's photographs look like, in a few numbers: to compare cameras, and to simulate one.

All inside the field of view: mean and standard deviation of R, G, B in grey levels; brightness of the rim
(outer 15 % of the radius) relative to the centre (inner 30 %), in green; sharpness, the standard deviation of
the Laplacian of green at 512 px; the share of the frame that the field covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np

from models.preprocess import Uint8Image, prepare
from models.training.data import read_rgb
from models.training.progress import Progress

_SIZE = 512
_RIM, _CENTRE = 0.85, 0.3
_CORE = 9
"""Side in px of the neighbourhood that must lie inside the field for sharpness to count."""


@dataclass(frozen=True)
class CameraStatistics:
    """Statistics of one photograph, or the mean over several; grey levels unless said otherwise.

    Attributes:
        red: Mean of red.
        green: Mean of green.
        blue: Mean of blue.
        red_std: Standard deviation of red.
        green_std: Standard deviation of green.
        blue_std: Standard deviation of blue.
        rim_to_centre: Green at the rim over green in the centre.
        sharpness: Standard deviation of the Laplacian of green.
        share: Share of the frame that the field covers.
    """

    red: float
    green: float
    blue: float
    red_std: float
    green_std: float
    blue_std: float
    rim_to_centre: float
    sharpness: float
    share: float


def of_photograph(rgb: Uint8Image) -> CameraStatistics:
    """Statistics of one photograph, uint8 (H, W, 3).

    Raises:
        NoFieldOfViewError: It shows no lit disc.
    """
    prepared = prepare(rgb, _SIZE)
    inside = prepared.tensor[..., 3] > 0
    colours = prepared.tensor[..., :3].astype(np.float64)
    means, deviations = colours[inside].mean(axis=0), colours[inside].std(axis=0)
    axis = (np.arange(_SIZE) + 0.5) / (_SIZE / 2) - 1.0
    reach = np.hypot(axis[:, None], axis[None])
    green = colours[..., 1]
    rim, centre = green[inside & (reach > _RIM)].mean(), green[inside & (reach < _CENTRE)].mean()
    core = cv2.erode(inside.astype(np.uint8), np.ones((_CORE, _CORE), np.uint8)) > 0
    sharpness = cv2.Laplacian(green, cv2.CV_64F)[core].std()
    numbers = (*means, *deviations, rim / max(centre, 1.0), sharpness, prepared.field.fraction)
    return CameraStatistics(*(float(number) for number in numbers))


def of_folder(paths: Sequence[Path], progress: Progress) -> CameraStatistics:
    """Mean statistics over photographs.

    Raises:
        NoFieldOfViewError: One shows no lit disc.
        DataError: One cannot be read.
    """
    rows = []
    for index, path in enumerate(paths):
        rows.append(astuple(of_photograph(read_rgb(path))))
        progress("photographs", index + 1, len(paths), {})
    return CameraStatistics(*(float(value) for value in np.mean(rows, axis=0)))
