from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories.dicom import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    as_jpeg,
    synthetic_fundus,
    write_fundus,
)
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames

from dicom_io.errors import RefusedPixelsError
from dicom_io.wrap import wrap_photograph

DCIODVFY = shutil.which("dciodvfy")


def wrap(picture: Any, **options: Any) -> FileDataset:
    return wrap_photograph(
        picture, patient_id="P1", manufacturer="Kowa", model_name="VX-10", laterality="L", **options
    )


@pytest.mark.skipif(
    DCIODVFY is None and "CI" not in os.environ, reason="dciodvfy is not installed (apt install dicom3tools)"
)
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_object_is_valid_by_the_standard(tmp_path: Path, syntax: str) -> None:
    write_fundus(tmp_path / "a.dcm", transfer_syntax=syntax)

    done = subprocess.run(["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False)

    assert "Error" not in done.stdout + done.stderr
    assert "OphthalmicPhotography8BitImage" in done.stderr


def test_a_jpeg_stream_is_put_in_as_it_is() -> None:
    stream = as_jpeg(synthetic_fundus(64))

    ds = wrap(stream)

    [inside] = generate_frames(ds.PixelData, number_of_frames=1)
    assert inside.rstrip(b"\0") == stream.rstrip(b"\0")
    assert ds.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert (ds.Rows, ds.Columns, ds.PhotometricInterpretation) == (64, 64, "YBR_FULL_422")
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


def test_full_chrominance_is_labelled_so() -> None:
    assert wrap(as_jpeg(synthetic_fundus(64), subsampling="444")).PhotometricInterpretation == "YBR_FULL"


def test_an_odd_number_of_bytes_is_padded() -> None:
    ds = wrap(np.ones((3, 5, 3), np.uint8))

    assert len(ds.PixelData) == 46


def test_identifiers_and_time_are_those_given() -> None:
    ds = wrap(
        np.zeros((4, 4, 3), np.uint8),
        study_instance_uid="1.1",
        series_instance_uid="1.2",
        sop_instance_uid="1.3",
        accession_number="A1",
        acquired_at=datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC),
        photometric="YBR_FULL_422",
        instance_number=9,
    )

    assert (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID) == ("1.1", "1.2", "1.3")
    assert (ds.AcquisitionDateTime, ds.AccessionNumber) == ("20250304050607", "A1")
    assert (ds.PhotometricInterpretation, ds.InstanceNumber, ds.ImageLaterality) == ("YBR_FULL_422", 9, "L")


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        [as_jpeg(synthetic_fundus(32)), as_jpeg(synthetic_fundus(48))],
        as_jpeg(synthetic_fundus(32)).replace(b"\xff\xc0", b"\xff\xc2"),
    ],
    ids=["16 bits", "no colour", "four channels", "two sizes", "progressive"],
)
def test_what_cannot_be_wrapped_is_an_error(picture: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|one size|baseline"):
        wrap(picture)


def test_what_is_no_jpeg_is_refused() -> None:
    with pytest.raises(RefusedPixelsError, match="start marker"):
        wrap(b"text")
