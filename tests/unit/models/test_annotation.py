from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from factories.fundus import Drawing, draw

import worker.demo
from models.annotation import text_in_field
from models.preprocess import prepare

Picture = npt.NDArray[np.uint8]
PHOTOGRAPHS = sorted((Path(worker.demo.__file__).parent / "images").glob("*.jpg"))
WHITE, YELLOW, GREEN, GREY = (255, 255, 255), (255, 255, 0), (0, 255, 0), (200, 200, 200)


def photograph(path: Path) -> Picture:
    read = cv2.imread(str(path))
    assert read is not None
    return np.ascontiguousarray(read[..., ::-1])


def labelled(picture: Picture, at: tuple[float, float], colour: tuple[int, int, int]) -> Picture:
    """The picture with a clock whose letters are 3 % of its width high; `at` in widths and heights."""
    height, width = picture.shape[:2]
    place, scale = (round(at[0] * width), round(at[1] * height)), width / 800
    drawn = picture.copy()
    cv2.putText(drawn, "12:31", place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, max(1, width // 700))
    return drawn


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_no_photograph_is_taken_for_one_with_text(path: Path) -> None:
    assert not text_in_field(prepare(photograph(path), 512).tensor)


@pytest.mark.parametrize("colour", [WHITE, YELLOW, GREEN, GREY], ids=["white", "yellow", "green", "grey"])
@pytest.mark.parametrize("path", PHOTOGRAPHS[:3], ids=lambda path: path.stem)
def test_text_over_the_retina_is_seen(path: Path, colour: tuple[int, int, int]) -> None:
    assert text_in_field(prepare(labelled(photograph(path), (0.4, 0.75), colour), 512).tensor)


def test_text_beside_the_disc_changes_nothing_that_a_model_sees() -> None:
    plain = draw(Drawing(width=500, height=400, shift_x=60, lesions=3))
    beside = labelled(labelled(plain, (0.02, 0.12), WHITE), (0.02, 0.95), GREEN)

    tensor = prepare(beside, 128).tensor

    assert (beside != plain).any()
    np.testing.assert_array_equal(tensor, prepare(plain, 128).tensor)
    assert not text_in_field(tensor)


@pytest.mark.parametrize("size", [32, 64, 128, 512])
def test_a_drawn_retina_with_bright_and_dark_lesions_has_no_text_at_any_size(size: int) -> None:
    assert not text_in_field(prepare(draw(Drawing(lesions=8, vignetting=0.5)), size).tensor)


def test_a_picture_in_one_colour_is_no_text() -> None:
    green = draw(Drawing()) * np.array([0, 1, 0], np.uint8)

    assert not text_in_field(prepare(green, 512).tensor)
