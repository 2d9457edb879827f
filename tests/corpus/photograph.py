"""The corpus's photograph as a DICOM object, ready to be made odd."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from corpus.case import Patient, corpus_uid
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_io.wrap import Picture, wrap_photograph

Rgb = npt.NDArray[np.uint8]
Odd = tuple[int | str, bytes, bytes]
"""Tag, VR and value of an element that nothing checks."""
COLUMNS, ROWS = 256, 170
_LONG_VR = (b"OB", b"OW", b"SQ", b"UN", b"UT")
_SOURCE = Path(__file__).parents[2] / "worker" / "demo" / "images" / "idrid_292.jpg"
_ACQUIRED_AT = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


@cache
def _pixels() -> bytes:
    whole = simplejpeg.decode_jpeg(_SOURCE.read_bytes(), colorspace="RGB")
    reduced = cv2.resize(whole, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    return bytes(reduced.tobytes())


def photograph() -> Rgb:
    """A right eye without retinopathy (IDRiD, CC BY 4.0), uint8 (170, 256, 3) RGB."""
    return np.frombuffer(_pixels(), np.uint8).reshape(ROWS, COLUMNS, 3).copy()


def brighter() -> Rgb:
    """The same photograph with other pixels."""
    return np.clip(photograph().astype(np.uint16) * 11 // 10, 0, 255).astype(np.uint8)


def as_jpeg(rgb: Rgb | None = None, *, quality: int = 92, subsampling: str = "422") -> bytes:
    """JPEG baseline with a JFIF header, YCbCr."""
    source = np.ascontiguousarray(photograph() if rgb is None else rgb)
    return bytes(simplejpeg.encode_jpeg(source, quality=quality, colorsubsampling=subsampling))


def make(
    case: str,
    picture: Picture | None = None,
    *,
    number: int = 1,
    laterality: str | None = "R",
    manufacturer: str = "Kowa",
    model: str = "VX-10",
    **attributes: Any,
) -> FileDataset:
    """The photograph (JPEG baseline unless told) with the identity of its case.

    Args:
        case: Name of the case: its patient and its UIDs follow from it.
        picture: A JPEG stream, several, or RGB pixels, as `wrap_photograph` takes them.
        number: Which SOP instance of the case.
        laterality: Image Laterality (0020,0062); None leaves it out.
        manufacturer: Manufacturer (0008,0070).
        model: Manufacturer's Model Name (0008,1090).
        **attributes: Further elements by DICOM keyword; None removes one.
    """
    patient = Patient.of(case)
    ds = wrap_photograph(
        as_jpeg() if picture is None else picture,
        patient_id=patient.patient_id,
        patient_name=patient.name,
        manufacturer=manufacturer,
        model_name=model,
        laterality=laterality,
        accession_number=f"A{patient.patient_id[3:]}",
        study_instance_uid=corpus_uid(case, "study"),
        series_instance_uid=corpus_uid(case, "series"),
        sop_instance_uid=corpus_uid(case, str(number)),
        instance_number=number,
        acquired_at=_ACQUIRED_AT,
    )
    ds.PatientBirthDate = patient.birth_date
    return change(ds, **attributes)


def change(ds: FileDataset, **attributes: Any) -> FileDataset:
    """`ds` with elements set by keyword; None removes one."""
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def pixels(
    ds: FileDataset, content: bytes, syntax: str = ExplicitVRLittleEndian, vr: str = "OB"
) -> FileDataset:
    """`ds` with uncompressed pixel data as given."""
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds["PixelData"] = DataElement(Tag("PixelData"), vr, content + b"\0" * (len(content) % 2))
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        ds.pop(Tag(keyword), None)
    ds.LossyImageCompression = "00"
    return ds


def raw(case: str, samples: npt.NDArray[Any] | None = None, **attributes: Any) -> FileDataset:
    """The photograph uncompressed, RGB; other samples of the same size where given."""
    ds = make(case, photograph())
    if samples is not None:
        pixels(ds, samples.tobytes())
    return change(ds, **attributes)


def compressed(case: str, streams: bytes | Sequence[bytes], syntax: str, **attributes: Any) -> FileDataset:
    """The photograph with these streams as its frames, photometric interpretation RGB unless told."""
    ds = raw(case)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.PixelData = encapsulate([streams] if isinstance(streams, bytes) else list(streams))
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    if syntax == JPEGBaseline8Bit:
        ds.PhotometricInterpretation = "YBR_FULL_422"
    return change(ds, **attributes)


def written(ds: FileDataset, *odd: Odd) -> bytes:
    """The file of `ds`; explicit little endian where elements are put into it unchecked."""
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    content = buffer.getvalue()
    for tag, vr, value in odd:
        content = spliced(content, Tag(tag), vr, value)
    return content


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One explicit little endian element (PS3.5 7.1.2), as it stands in a file."""
    padded = value + b"\0" * (len(value) % 2)
    long = vr in _LONG_VR
    length = b"\0\0" + struct.pack("<L", len(padded)) if long else struct.pack("<H", len(padded))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + length + padded


def spliced(content: bytes, tag: int, vr: bytes, value: bytes) -> bytes:
    """A file with one element of its data set replaced, or put in at its place."""
    start, end = place_of(content, tag)
    return content[:start] + element(tag, vr, value) + content[end:]


def inserted(content: bytes, tag: int, encoded: bytes) -> bytes:
    """A file with bytes put into its data set where an element of this tag belongs."""
    at, _ = place_of(content, tag)
    return content[:at] + encoded + content[at:]


def place_of(content: bytes, tag: int) -> tuple[int, int]:
    """Begin and end of an element in a file; an empty stretch, at its place, where there is none.

    Reads explicit little endian whose sequences have a stated length, as `written` makes it.
    """
    at = 144 + int.from_bytes(content[140:144], "little")
    while at + 8 <= len(content):
        group, number = struct.unpack("<HH", content[at : at + 4])
        found = group << 16 | number
        if content[at + 4 : at + 6] in _LONG_VR:
            end = at + 12 + int.from_bytes(content[at + 8 : at + 12], "little")
        else:
            end = at + 8 + int.from_bytes(content[at + 6 : at + 8], "little")
        if found >= tag:
            return at, end if found == tag else at
        at = end
    return at, at
