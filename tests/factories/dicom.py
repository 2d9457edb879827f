"""Fundus photographs as cameras send them, made up for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

from dicom_io.wrap import OPHTHALMIC_PHOTOGRAPHY_8_BIT, wrap_photograph

RgbImage = npt.NDArray[np.uint8]

__all__ = [
    "OPHTHALMIC_PHOTOGRAPHY_8_BIT",
    "ExplicitVRLittleEndian",
    "ImplicitVRLittleEndian",
    "JPEGBaseline8Bit",
    "as_jpeg",
    "make_fundus",
    "synthetic_fundus",
    "write_fundus",
]


@cache
def _drawn(size: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size, 3), np.uint8)
    centre, radius = size // 2, int(size * 0.46)
    cv2.circle(image, (centre, centre), radius, (176, 88, 40), -1, cv2.LINE_AA)
    side = 1 if rng.random() < 0.5 else -1
    disc = (centre + side * radius // 2, centre)
    for _ in range(7):
        ends = rng.normal(0, radius / 2, (3, 2)) + centre
        points = np.vstack([np.array(disc, float), ends]).astype(np.int32)
        cv2.polylines(image, [points], False, (128, 40, 24), max(1, size // 160), cv2.LINE_AA)
    cv2.circle(image, disc, max(2, radius // 6), (240, 200, 120), -1, cv2.LINE_AA)
    cv2.circle(image, (centre - side * radius // 4, centre), max(2, radius // 8), (120, 52, 28), -1)
    inside = np.zeros((size, size), np.uint8)
    cv2.circle(inside, (centre, centre), radius, 255, -1)
    shade = cv2.GaussianBlur(inside, (0, 0), size / 12).astype(np.float32) / 255
    noise = rng.normal(0, 2.5, image.shape).astype(np.float32)
    drawn = (image.astype(np.float32) * (0.6 + 0.4 * shade[..., None]) + noise) * (inside[..., None] > 0)
    return np.clip(drawn, 0, 255).astype(np.uint8).tobytes()


ACQUIRED_AT = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
"""Of every object: two that are made one after the other differ only in what they are told."""


def synthetic_fundus(size: int = 256, seed: int = 0) -> RgbImage:
    """A drawn retina: uint8 RGB (size, size, 3), a reddish disc with vessels on black."""
    return np.frombuffer(_drawn(size, seed), np.uint8).reshape(size, size, 3).copy()


def as_jpeg(rgb: RgbImage, *, quality: int = 90, subsampling: str = "422") -> bytes:
    """`rgb` as a JPEG baseline stream with a JFIF header."""
    return bytes(
        simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality, colorsubsampling=subsampling)
    )


def make_fundus(
    rgb: RgbImage | bytes | None = None,
    *,
    manufacturer: str = "Kowa",
    model: str = "VX-10",
    laterality: str | None = "R",
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
    accession: str = "ACC0001",
    patient_id: str = "PID0001",
    patient_name: str = "Doe^Jane",
    transfer_syntax: str = JPEGBaseline8Bit,
    photometric: str | None = None,
    sop_class: str = OPHTHALMIC_PHOTOGRAPHY_8_BIT,
    size: int = 256,
    seed: int = 0,
    **attributes: Any,
) -> FileDataset:
    """A fundus photograph as a DICOM object with every type 1 and 2 attribute.

    Args:
        rgb: Pixels, a JPEG stream, or None for a drawn retina of `size` and `seed`.
        manufacturer: Manufacturer (0008,0070).
        model: Manufacturer's Model Name (0008,1090).
        laterality: Image Laterality (0020,0062); None leaves it out.
        study_uid: A new one when None, like series and SOP instance.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        accession: Accession Number.
        patient_id: Patient ID.
        patient_name: Patient's Name.
        transfer_syntax: JPEG Baseline (pixels are compressed), explicit or implicit little endian.
        photometric: Stated Photometric Interpretation; None states the true one.
        sop_class: SOP Class UID.
        size: Width and height of the drawn retina, in pixels.
        seed: Seed of the drawn retina.
        **attributes: Further elements by DICOM keyword; None removes one.
    """
    picture: RgbImage | bytes = synthetic_fundus(size, seed) if rgb is None else rgb
    if transfer_syntax == JPEGBaseline8Bit and not isinstance(picture, bytes):
        picture = as_jpeg(picture)
    ds = wrap_photograph(
        picture,
        manufacturer=manufacturer,
        model_name=model,
        laterality=laterality,
        study_instance_uid=study_uid,
        series_instance_uid=series_uid,
        sop_instance_uid=sop_uid or generate_uid(prefix=None),
        accession_number=accession,
        patient_id=patient_id,
        patient_name=patient_name,
        sop_class_uid=UID(sop_class),
        transfer_syntax_uid=transfer_syntax,
        photometric=photometric,
        acquired_at=ACQUIRED_AT,
    )
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def write_fundus(path: Path, rgb: RgbImage | bytes | None = None, **options: Any) -> FileDataset:
    """Write `make_fundus(rgb, **options)` to `path` and return the data set."""
    ds = make_fundus(rgb, **options)
    ds.save_as(path, enforce_file_format=True)
    return ds
