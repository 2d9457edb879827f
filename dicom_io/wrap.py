"""Photographs wrapped as DICOM objects: what a fundus camera would have sent (PS3.3 A.41)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from dicom_io.jpeg_markers import JpegColour, JpegHeader, read_jpeg_header

OPHTHALMIC_PHOTOGRAPHY_8_BIT = UID("1.2.840.10008.5.1.4.1.1.77.1.5.1")
_FUNDUS_CAMERA = Code("409898007", "SCT", "Fundus Camera")
_RETINA = Code("5665001", "SCT", "Retina")
_UTC_SYNCHRONISED = "1.2.840.10008.15.1.1"

Picture = bytes | Sequence[bytes] | npt.NDArray[np.uint8]


def wrap_photograph(
    picture: Picture,
    *,
    patient_id: str,
    manufacturer: str,
    model_name: str,
    laterality: str | None,
    accession_number: str = "",
    patient_name: str = "",
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    sop_class_uid: str = OPHTHALMIC_PHOTOGRAPHY_8_BIT,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    photometric: str | None = None,
    device_serial: str = "0",
    software: str = "0",
    instance_number: int = 1,
    acquired_at: datetime | None = None,
) -> FileDataset:
    """Wrap one photograph, or several of one size as frames, into a DICOM object.

    Args:
        picture: JPEG baseline streams, put in as they are, or RGB pixels uint8 of shape (H, W, 3)
            or (N, H, W, 3), stored uncompressed.
        patient_id: Patient ID (0010,0020).
        manufacturer: Manufacturer (0008,0070).
        model_name: Manufacturer's Model Name (0008,1090).
        laterality: Image Laterality (0020,0062), "R", "L" or "B"; None leaves it out.
        accession_number: Accession Number (0008,0050).
        patient_name: Patient's Name (0010,0010).
        study_instance_uid: A new UID when None, like the two below.
        series_instance_uid: Series Instance UID (0020,000E).
        sop_instance_uid: SOP Instance UID (0008,0018).
        sop_class_uid: SOP Class UID (0008,0016).
        transfer_syntax_uid: Explicit or implicit VR little endian; JPEG streams are always
            JPEG Baseline.
        photometric: Photometric Interpretation (0028,0004) to state; None states the true one.
        device_serial: Device Serial Number (0018,1000).
        software: Software Versions (0018,1020).
        instance_number: Instance Number (0020,0013).
        acquired_at: Time of the exposure; now when None.

    Returns:
        The data set with file meta information, ready for `save_as`.

    Raises:
        RefusedPixelsError: When a stream is no JPEG.
        ValueError: When the pixels are not uint8 RGB, or a stream is not JPEG baseline.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid or generate_uid(prefix=None))
    raw = isinstance(picture, np.ndarray)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid) if raw else JPEGBaseline8Bit
    implicit = meta.TransferSyntaxUID == ImplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=implicit)
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = study_instance_uid or generate_uid(prefix=None)
    ds.SeriesInstanceUID = series_instance_uid or generate_uid(prefix=None)
    ds.AccessionNumber = accession_number
    ds.PatientName, ds.PatientID = patient_name, patient_id
    ds.Manufacturer, ds.ManufacturerModelName = manufacturer, model_name
    ds.DeviceSerialNumber, ds.SoftwareVersions = device_serial, software
    ds.InstanceNumber = instance_number
    if laterality is not None:
        ds.ImageLaterality = laterality
    _add_fixed(ds, acquired_at or datetime.now(UTC))
    _add_acquisition(ds)
    if isinstance(picture, np.ndarray):
        _add_raw_pixels(ds, picture)
    else:
        _add_jpeg_pixels(ds, [picture] if isinstance(picture, bytes) else list(picture))
    if photometric is not None:
        ds.PhotometricInterpretation = photometric
    return ds


def _add_fixed(ds: FileDataset, moment: datetime) -> None:
    """Patient, study, series, synchronisation and general image attributes that do not vary."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientBirthDate = ds.PatientSex = ds.StudyID = ds.ReferringPhysicianName = ""
    ds.StudyDate = ds.ContentDate = moment.strftime("%Y%m%d")
    ds.StudyTime = ds.ContentTime = moment.strftime("%H%M%S")
    ds.AcquisitionDateTime = moment.strftime("%Y%m%d%H%M%S")
    ds.Modality, ds.SeriesNumber = "OP", 1
    ds.SynchronizationFrameOfReferenceUID = _UTC_SYNCHRONISED
    ds.SynchronizationTrigger, ds.AcquisitionTimeSynchronized = "NO TRIGGER", "N"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR"]
    ds.BurnedInAnnotation = "NO"
    ds.PatientOrientation = ""


def _add_acquisition(ds: FileDataset) -> None:
    """Ophthalmic photographic and acquisition parameters (PS3.3 C.8.17.3, C.8.17.4, C.8.17.5)."""
    ds.AcquisitionDeviceTypeCodeSequence = [_code_item(_FUNDUS_CAMERA)]
    ds.AnatomicRegionSequence = [_code_item(_RETINA)]
    for keyword in (
        "IlluminationTypeCodeSequence",
        "LightPathFilterTypeStackCodeSequence",
        "ImagePathFilterTypeStackCodeSequence",
        "LensesCodeSequence",
        "RefractiveStateSequence",
    ):
        setattr(ds, keyword, DicomSequence())
    for keyword in (
        "PatientEyeMovementCommanded",
        "EmmetropicMagnification",
        "IntraOcularPressure",
        "HorizontalFieldOfView",
        "PupilDilated",
        "DetectorType",
    ):
        setattr(ds, keyword, None)


def _code_item(code: Code) -> FileDataset:
    """One item of a code sequence (PS3.3 table 8.8-1)."""
    item = FileDataset("", {})
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[0], code[1], code[2]
    return item


def _add_pixel_module(ds: FileDataset, frames: int, rows: int, columns: int, photometric: str) -> None:
    """Image pixel and multi-frame attributes of 8-bit colour (PS3.3 C.7.6.3, C.7.6.6)."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, photometric, 0
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, frames
    ds.FrameTime, ds.FrameIncrementPointer = 1000, 0x00181063
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0


def _add_raw_pixels(ds: FileDataset, pixels: npt.NDArray[np.uint8]) -> None:
    """Uncompressed RGB, uint8 (H, W, 3) or (N, H, W, 3)."""
    frames = pixels[np.newaxis] if pixels.ndim == 3 else pixels
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"uint8 (H, W, 3) or (N, H, W, 3) expected, not {pixels.dtype} {pixels.shape}")
    _add_pixel_module(ds, frames.shape[0], frames.shape[1], frames.shape[2], "RGB")
    ds.LossyImageCompression = "00"
    content = frames.tobytes()
    ds.PixelData = content + b"\x00" * (len(content) % 2)
    ds["PixelData"].VR = "OB"


def _add_jpeg_pixels(ds: FileDataset, streams: list[bytes]) -> None:
    """JPEG baseline streams of one size, encapsulated as they are (PS3.5 A.4)."""
    headers = [read_jpeg_header(stream) for stream in streams]
    first = headers[0]
    if any((header.process, header.precision) != (0xC0, 8) for header in headers):
        raise ValueError("only JPEG baseline streams of 8 bits can be put in as they are")
    if any((header.rows, header.columns) != (first.rows, first.columns) for header in headers):
        raise ValueError("all frames must have one size")
    _add_pixel_module(ds, len(streams), first.rows, first.columns, _jpeg_photometric(first))
    raw_bytes = len(streams) * first.rows * first.columns * 3
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionRatio = f"{raw_bytes / sum(map(len, streams)):.2f}"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def _jpeg_photometric(header: JpegHeader) -> str:
    """Photometric Interpretation of a colour JPEG stream (PS3.5 8.2.1)."""
    if header.colour is JpegColour.RGB:
        return "RGB"
    return "YBR_FULL" if len(set(header.sampling)) == 1 else "YBR_FULL_422"
