from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from factories.bundle import ACTIVATION_LABELS, write_tiny_bundle
from factories.demo import result, withheld_result
from factories.dicom import synthetic_fundus, write_fundus

from models.bundle import Bundle
from models.predictor import Predictor
from worker.demo.contact_sheet import (
    Tile,
    draw_contact_sheet,
    make_tiles,
    overlay,
    verdict_colour,
    write_png,
)
from worker.demo.drawing import BACKGROUND, SIZE, column_x, overlay_colour
from worker.demo.results import Result

RESULTS = [
    result(1, "R"),
    withheld_result(2, "L", camera=None, route="unknown", adapter=None),
    result(3, "R", camera="kowa-vx-10", route="labelled", adapter=None),
]


@pytest.fixture
def tiles(tmp_path: Path) -> list[Tile]:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "bundle"))
    write_fundus(tmp_path / "photograph.dcm", synthetic_fundus(256))
    names = [each.sop_instance_uid for each in RESULTS]
    files = dict.fromkeys(names, tmp_path / "photograph.dcm")
    return make_tiles(Predictor(bundle), RESULTS, files, dict.fromkeys(names, 2))


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = SIZE.heading + row * SIZE.row, column_x(column)
    return sheet[top : top + SIZE.picture, left : left + SIZE.picture]


def test_the_adapted_picture_is_the_bundles_own(tiles: list[Tile]) -> None:
    adapted = tiles[0].prediction.adapted

    assert adapted is not None
    inside = adapted[:, :, 3] == 255
    difference = adapted[:, :, 1].astype(int) - tiles[0].original[:, :, 1]
    assert set(difference[inside]) == {20}  # what the tiny bundle's first adapter adds to green
    assert tiles[1].prediction.adapted is None
    assert [tile.reference_grade for tile in tiles] == [2, 2, 2]


def test_a_row_shows_the_original_the_adapted_picture_and_the_overlay(tiles: list[Tile]) -> None:
    sheet = draw_contact_sheet(tiles, "A title", ACTIVATION_LABELS)

    assert sheet.shape == (SIZE.heading + len(RESULTS) * SIZE.row, SIZE.width, 3)
    original, adapted, seen = (cell(sheet, 0, column).astype(int) for column in range(3))
    middle = slice(SIZE.picture // 3, 2 * SIZE.picture // 3)
    assert (adapted - original)[middle, middle, 1].mean() == pytest.approx(20, abs=1)
    assert np.ptp(original[middle, middle], axis=2).mean() > 20  # in colour
    assert not np.array_equal(seen, adapted)


def test_a_row_without_an_adapter_says_so_in_place_of_a_picture(tiles: list[Tile]) -> None:
    sheet = draw_contact_sheet(tiles, "A title", ACTIVATION_LABELS)

    for row in (1, 2):
        written = np.any(cell(sheet, row, 1) != BACKGROUND, axis=2).mean()
        assert 0.001 < written < 0.1
    assert not np.array_equal(cell(sheet, 1, 1), cell(sheet, 2, 1))  # two reasons


def test_every_row_has_a_caption(tiles: list[Tile]) -> None:
    sheet = draw_contact_sheet(tiles, "A title", ACTIVATION_LABELS)

    captions = [cell(sheet, row, 3) for row in range(len(RESULTS))]
    assert all(np.any(caption != BACKGROUND) for caption in captions)
    assert not np.array_equal(captions[0], captions[1])


def test_an_activation_covers_the_grey_picture_with_its_colour() -> None:
    rgb = np.full((4, 4, 3), 100, np.uint8)
    activation = np.zeros((2, 2, 2), np.uint8)
    activation[1, :, :] = 255

    mixed = overlay(rgb, activation)

    expected = [round(80 * 0.15 + 0.85 * channel) for channel in overlay_colour(1)]
    assert mixed.shape == (4, 4, 3)
    assert mixed.dtype == np.uint8
    assert mixed[0, 0].tolist() == pytest.approx(expected, abs=1)
    assert overlay(rgb, np.zeros((2, 2, 2), np.uint8))[0, 0].tolist() == [80, 80, 80]


def test_there_is_a_colour_for_any_number_of_maps() -> None:
    assert len({overlay_colour(number) for number in range(6)}) == 6
    assert overlay_colour(6) == overlay_colour(0)


@pytest.mark.parametrize(
    ("shown", "reference", "strongest"),
    [(result(), 2, "green"), (result(), 1, "red"), (result(grade=0, referable=False), 0, "green")],
)
def test_the_verdict_is_green_when_the_reference_agrees(
    shown: Result, reference: int, strongest: str
) -> None:
    colour = dict(zip(("red", "green", "blue"), verdict_colour(shown, reference), strict=True))

    assert max(colour, key=lambda name: colour[name]) == strongest


def test_a_withheld_verdict_is_grey() -> None:
    assert np.ptp(verdict_colour(withheld_result(), 2)) <= 10


def test_the_picture_is_written_in_the_right_colours(tmp_path: Path) -> None:
    red = np.zeros((3, 5, 3), np.uint8)
    red[:, :, 0] = 255

    write_png(tmp_path / "red.png", red)

    read = cv2.imread(str(tmp_path / "red.png"))
    assert read is not None
    assert read[0, 0].tolist() == [0, 0, 255]  # OpenCV reads blue first
