"""A training set on disk: pictures cut to their field of view, pseudonyms, and the list of both.

What leaves is what lies inside the field of view, as pixels, under pseudonyms whose key is drawn anew for
each export and is written nowhere: nobody can trace them back afterwards, not even with the installation's
own identity key.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import secrets
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.preprocess import find_field
from worker.errors import WorkerError

RgbPicture = npt.NDArray[np.uint8]

COLUMNS = ("name", "patient", "eye", "camera", "frame")
"""Of `images.csv`."""
_KEY_BYTES = 32
_DIGITS = 16
"""Hexadecimal digits of a pseudonym: 64 bits, so that a million pictures all but never share one."""


class ExportError(WorkerError):
    """The training set cannot be written where it was asked for; the text has the remedy."""


class Pseudonyms:
    """Names that mean something in one export only: HMAC with SHA-256 (RFC 2104), under a key of its own."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)

    def patient(self, group: str) -> str:
        """A name of what belongs to one patient: "p" and 16 hexadecimal digits."""
        return "p" + self._digest("patient", group)

    def picture(self, sop_instance_uid: str, frame_number: int) -> str:
        """A name of one frame: "i" and 16 hexadecimal digits."""
        return "i" + self._digest("picture", f"{sop_instance_uid}\x00{frame_number}")

    def _digest(self, kind: str, text: str) -> str:
        return hmac.new(self._key, f"{kind}\x00{text}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]


class ExportFolder:
    """`images/NAME.png` and `images.csv`, or, until `complete`, `images.incomplete/` and no CSV file.

    Args:
        root: A folder that does not exist, or is empty. One that is made may be entered by its owner only.

    Raises:
        ExportError: There is something in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made = not root.exists()
        if root.exists() and not root.is_dir():
            raise ExportError(f"{root} is a file; name a folder that is not there yet")
        self._pictures = root / "images.incomplete"
        if self._pictures.exists():
            raise ExportError(
                f"{root} holds an export that was not finished; delete it, or name another folder"
            )
        if not self._made and any(root.iterdir()):
            raise ExportError(f"{root} is not empty; name a folder that is not there yet")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pictures.mkdir()
        self._rows: list[dict[str, str]] = []

    def add(self, row: dict[str, str], rgb: RgbPicture) -> None:
        """Write a picture under its row's name; the row is kept for `complete`."""
        with (self._pictures / f"{row['name']}.png").open("xb") as file:
            file.write(png(rgb))
        self._rows.append(row)

    def complete(self) -> None:
        """Give the folder of pictures its name, and write the list of them, whole or not at all."""
        self._pictures.rename(self.root / "images")
        unfinished = self.root / ".images.csv"
        with unfinished.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(self._rows, key=lambda row: row["name"]))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self.root / "images.csv")

    def discard(self) -> None:
        """Remove what was made, as long as it holds no picture."""
        self._pictures.rmdir()
        if self._made:
            self.root.rmdir()


def inside_field(rgb: RgbPicture) -> RgbPicture:
    """Cut a photograph to the square around its disc, and blank everything outside the disc.

    Where the frame cuts the disc the result ends there too, and is no square then: a black band in its place
    would be taken for dark retina, while so `models.preprocess` finds the same field in it again.

    Args:
        rgb: uint8 (H, W, 3), 0 to 255.

    Returns:
        uint8 (h, w, 3); 0 where the distance from the disc's centre is more than its radius.

    Raises:
        NoFieldOfViewError: There is no disc.
    """
    disc = find_field(rgb)
    side = max(2, round(2.0 * disc.radius))  # the square of `models.preprocess.prepare`, to the pixel
    left, top = (round(centre - (side - 1) / 2.0) for centre in (disc.centre_x, disc.centre_y))
    rows = np.arange(max(top, 0), min(top + side, rgb.shape[0]))[:, None]
    columns = np.arange(max(left, 0), min(left + side, rgb.shape[1]))[None, :]
    inside = (columns - disc.centre_x) ** 2 + (rows - disc.centre_y) ** 2 <= disc.radius**2
    square = rgb[rows[0, 0] : rows[-1, 0] + 1, columns[0, 0] : columns[0, -1] + 1]
    return np.asarray(square * inside[..., None].astype(np.uint8), dtype=np.uint8)


def png(rgb: RgbPicture) -> bytes:
    """A picture uint8 (H, W, 3) as a PNG stream: eight bits, truecolour, lossless, no ancillary chunk."""
    encoded, stream = cv2.imencode(".png", np.ascontiguousarray(rgb[:, :, ::-1]))
    if not encoded:
        raise ExportError("OpenCV did not encode a picture as PNG")
    return bytes(stream.tobytes())
