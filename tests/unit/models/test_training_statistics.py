from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.cameras import CAMERAS, simulate
from models.training.camera_statistics import of_folder, of_photograph
from models.training.data import read_rgb

PHOTOGRAPHS = sorted((Path(__file__).parents[3] / "worker" / "demo" / "images").glob("*.jpg"))[::2]
# Measured on real photographs of real cameras: mean R, G, B, standard deviation R, G, B, rim over centre.
REAL = {
    "blue": (117, 87, 68, 33, 24, 17, 0.79),
    "pale": (167, 113, 72, 24, 14, 8, 0.97),
    "mist": (167, 113, 72, 24, 14, 8, 0.97),
    "crisp": (159, 95, 57, 41, 32, 23, 0.72),
    "dusk": (92, 62, 29, 24, 14, 8, 0.97),
    "soft": (164, 95, 58, 29, 18, 9, 0.85),
}


def disc(centre: int = 200, rim: int = 100) -> np.ndarray:
    """A disc of radius 240 in a frame of 600 px, ``centre`` inside half of its radius, ``rim`` outside."""
    rows, columns = np.mgrid[:600, :600]
    reach = np.hypot(rows - 299.5, columns - 299.5)
    grey = np.where(reach < 120, centre, np.where(reach < 240, rim, 0))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def test_statistics_are_those_of_the_field_alone() -> None:
    found = of_photograph(disc())
    # A quarter of the disc is 200, the rest 100: mean 125, standard deviation 43.3; rim 100 over centre 200
    assert (found.red, found.green, found.blue) == pytest.approx((125, 125, 125), abs=2)
    assert found.green_std == pytest.approx(43.3, abs=1.5)
    assert found.rim_to_centre == pytest.approx(0.5, abs=0.02)
    assert found.share == pytest.approx(np.pi * 240**2 / 600**2, abs=0.01)


def test_blur_lowers_sharpness() -> None:
    sharp = read_rgb(PHOTOGRAPHS[0])
    soft = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 3.0), dtype=np.uint8)
    assert of_photograph(soft).sharpness < 0.6 * of_photograph(sharp).sharpness


def test_every_named_camera_has_the_statistics_of_a_real_one() -> None:
    assert set(CAMERAS) == set(REAL)


@pytest.mark.parametrize("name", sorted(REAL))
def test_colour_and_light_of_a_named_camera_are_near_the_real_ones(name: str, tmp_path: Path) -> None:
    # Given a few photographs; the fit was made on 30, and a camera is a fixed transformation, so that means
    # of other photographs lie around the measured ones and not on them
    paths = []
    for index, photograph in enumerate(PHOTOGRAPHS):
        paths.append(tmp_path / f"{index}.png")
        taken = simulate(read_rgb(photograph), CAMERAS[name], index)
        assert cv2.imwrite(str(paths[-1]), taken[:, :, ::-1])
    found = of_folder(paths, lambda *_: None)
    *colours, rim = REAL[name]
    means = np.array([found.red, found.green, found.blue])
    deviations = np.array([found.red_std, found.green_std, found.blue_std])
    assert np.abs(means - colours[:3]).max() < 25
    assert np.abs(deviations - colours[3:]).max() < 12
    assert found.rim_to_centre == pytest.approx(rim, abs=0.15)
