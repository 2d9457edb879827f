"""A picture of the run: each photograph as it came, as its adapter made it, and where lesions were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dicom_io.pixels import frames
from models.predictor import Prediction, Predictor
from models.preprocess import prepare
from worker.demo.drawing import INK, MUTED, SIZE, column_x, draw_text, new_sheet, overlay_colour
from worker.demo.results import Result

Uint8Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """One row of the sheet.

    Attributes:
        result: What the database says.
        prediction: The models' answer, with the adapted picture.
        original: uint8 (S, S, 3) RGB, the prepared photograph.
        reference_grade: By the data set's authors.
    """

    result: Result
    prediction: Prediction
    original: Uint8Image
    reference_grade: int


def make_tiles(
    predictor: Predictor, results: Sequence[Result], files: Mapping[str, Path], references: Mapping[str, int]
) -> list[Tile]:
    """Run the bundle again on the files that were sent, this time keeping what is between its graphs.

    Args:
        predictor: The bundle that graded.
        results: The photographs.
        files: DICOM file of each, by SOP Instance UID.
        references: Reference grade of each, by SOP Instance UID.
    """
    size = predictor.bundle.manifest.size
    tiles = []
    for result in results:
        rgb = next(iter(frames(files[result.sop_instance_uid].read_bytes())))
        tensor = prepare(rgb, size).tensor
        (prediction,) = predictor.predict([tensor], [result.adapter], keep_adapted=True)
        reference = references[result.sop_instance_uid]
        tiles.append(Tile(result, prediction, np.ascontiguousarray(tensor[:, :, :3]), reference))
    return tiles


def draw_contact_sheet(tiles: Sequence[Tile], title: str, activation_labels: Sequence[str]) -> Uint8Image:
    """Draw the sheet: a heading, then a row for each photograph.

    Args:
        tiles: The rows.
        title: The heading.
        activation_labels: Names of the activation maps, in their order.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    sheet, top = new_sheet(len(tiles), title, activation_labels)
    for tile in tiles:
        _draw_row(sheet, top, tile)
        top += SIZE.row
    return sheet


def write_png(path: Path, rgb: Uint8Image) -> None:
    """Write an RGB picture, uint8 (H, W, 3), as PNG."""
    done, stream = cv2.imencode(".png", rgb[:, :, ::-1])
    if not done:
        raise RuntimeError("OpenCV could not write the contact sheet")
    path.write_bytes(stream.tobytes())


def _draw_row(sheet: Uint8Image, top: int, tile: Tile) -> None:
    adapted = tile.prediction.adapted
    seen = tile.original if adapted is None else np.ascontiguousarray(adapted[:, :, :3])
    _place(sheet, top, 0, tile.original)
    if adapted is None:
        _say_not_adapted(sheet, top, tile.result.route)
    else:
        _place(sheet, top, 1, seen)
    _place(sheet, top, 2, overlay(seen, tile.prediction.activation))
    _caption(sheet, top, tile)


def _place(sheet: Uint8Image, top: int, column: int, rgb: Uint8Image) -> None:
    left = column_x(column)
    small = cv2.resize(rgb, (SIZE.picture, SIZE.picture), interpolation=cv2.INTER_AREA)
    sheet[top : top + SIZE.picture, left : left + SIZE.picture] = small


def overlay(rgb: Uint8Image, activation: Uint8Image) -> Uint8Image:
    """The picture in grey with each activation map in its colour.

    Args:
        rgb: uint8 (S, S, 3).
        activation: uint8 (K, h, w), 0 to 255.

    Returns:
        uint8 (S, S, 3); a map at 255 covers the picture by 85 %.
    """
    side = (rgb.shape[1], rgb.shape[0])
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed = np.asarray(grey, np.float32) * 0.8
    for number, plane in enumerate(activation):
        strength = cv2.resize(plane.astype(np.float32) / 255.0, side, interpolation=cv2.INTER_LINEAR)
        share = (0.85 * strength)[:, :, None]
        mixed = mixed * (1.0 - share) + np.asarray(overlay_colour(number), np.float32) * share
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def _say_not_adapted(sheet: Uint8Image, top: int, route: str) -> None:
    reason = "the labelled camera" if route == "labelled" else "no adapter for it"
    middle = top + SIZE.picture // 2
    for line, text in enumerate(("not adapted:", reason)):
        draw_text(sheet, text, (column_x(1) + 14, middle + 22 * line - 6), 15, MUTED)


def _caption(sheet: Uint8Image, top: int, tile: Tile) -> None:
    result = tile.result
    side = "right eye" if result.laterality == "R" else "left eye"
    probability = result.referable_probability
    lines = [
        f"camera: {result.camera or 'not recognised'}",
        f"route: {result.route}" + (f", adapter {result.adapter}" if result.adapter else ""),
        "" if probability is None else f"probability of referable disease: {probability:.2f}",
        f"reference grade: {tile.reference_grade}",
    ]
    left = column_x(3)
    draw_text(sheet, f"{result.accession_number}, {side}", (left, top + 26), 18, INK, bold=True)
    draw_text(sheet, result.verdict, (left, top + 58), 18, verdict_colour(result, tile.reference_grade))
    for number, text in enumerate(line for line in lines if line):
        draw_text(sheet, text, (left, top + 88 + 24 * number), 15, MUTED)


def verdict_colour(result: Result, reference_grade: int) -> tuple[int, int, int]:
    """Green where the referable decision agrees with the reference, orange where not, grey where withheld."""
    if result.referable is None:
        return (170, 170, 180)
    return (120, 220, 140) if result.referable == (reference_grade >= 2) else (255, 170, 80)
