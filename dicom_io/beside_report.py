"""Objects that go out beside a Structured Report: the page to read, and lesion maps over photographs.

Like the report, they take patient and study from the photographs' headers and times from the content: the
same input gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from dicom_io import codes
from dicom_io.elements import text, texts, uid
from dicom_io.errors import ReportBuildError
from dicom_io.report_content import Predecessor, ReportContent, ReportImage
from dicom_io.report_header import long_string, patient_and_study, utc_offset
from dicom_io.report_parts import (
    CLASS,
    INSTANCE,
    add_equipment,
    add_times,
    distinct,
    file_meta,
    reference,
    references,
)

PDF_TITLE = "Diabetic retinopathy grading, page to read (research)"
OVERLAY_TITLE = "Lesion maps over photographs (research)"
_PDF_SERIES_NUMBER, _OVERLAY_SERIES_NUMBER = 9902, 9903
_BURNED_IN, _LOSSY = 0x00280301, 0x00282110
_OF_THE_LOSS = {
    0x00282112: re.compile(r"\+?\d{1,8}(\.\d{0,6})?", re.ASCII),  # Ratio
    0x00282114: re.compile(r"[A-Z0-9_ ]{1,16}"),  # Method
}


@dataclass(frozen=True)
class ObjectIds:
    """UIDs and number of an object beside a report."""

    sop_instance_uid: str
    series_instance_uid: str
    instance_number: int


def build_pdf_object(
    pdf: bytes,
    ids: ObjectIds,
    content: ReportContent,
    *,
    report: Predecessor,
    evidence: Sequence[Dataset],
    replaces: Predecessor | None = None,
) -> Dataset:
    """Wrap a page into an Encapsulated PDF object (PS3.3 A.45.1).

    Args:
        pdf: The page, a PDF file.
        ids: Its UIDs and number.
        content: What the report says.
        report: The Structured Report that the page puts into words.
        evidence: Headers of the study's photographs, at least one.
        replaces: The page of the revision before.

    Returns:
        A data set with file meta information, ready for `to_bytes`.

    Raises:
        ReportBuildError: The evidence is not of one study and patient, or `pdf` is no PDF.
    """
    if not pdf.startswith(b"%PDF-"):
        raise ReportBuildError("the page is no PDF")
    known = distinct(evidence)
    ds = _begin(ids, content, known, EncapsulatedPDFStorage)
    ds.Modality = "DOC"
    ds.SeriesNumber = _PDF_SERIES_NUMBER
    ds.SeriesDescription = PDF_TITLE
    ds.ConversionType = "WSD"
    ds.AcquisitionDateTime = ""
    ds.BurnedInAnnotation = "YES"  # the page names the patient
    ds.DocumentTitle = PDF_TITLE
    ds.ConceptNameCodeSequence = [_code(codes.IMAGING_MEASUREMENT_REPORT)]
    ds.VerificationFlag = "UNVERIFIED"
    ds.SourceInstanceSequence = [
        reference(report.sop_class_uid, report.sop_instance_uid),
        *(reference(uid(each, CLASS), uid(each, INSTANCE)) for each in known),
    ]
    if replaces is not None:
        member = (replaces.series_instance_uid, replaces.sop_class_uid, replaces.sop_instance_uid)
        ds.PredecessorDocumentsSequence = [references(replaces.study_instance_uid, [member])]
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocumentLength = len(pdf)
    ds.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return ds


def build_overlay(
    rgb: npt.NDArray[np.uint8],
    ids: ObjectIds,
    content: ReportContent,
    *,
    image: ReportImage,
    derivation: str,
    evidence: Sequence[Dataset],
) -> Dataset:
    """Wrap a lesion map over its photograph into a Secondary Capture image (PS3.3 A.8.1).

    Args:
        rgb: uint8 (H, W, 3), the picture; nothing of the photograph outside its field of view is in it.
        ids: Its UIDs and number.
        content: What the report says.
        image: The photograph, or the frame of one, that it is derived from.
        derivation: What was done to the photograph, in words, at most 1024 characters.
        evidence: Headers of the study's photographs; that of `image` among them.

    Returns:
        A data set with file meta information, ready for `to_bytes`.

    Raises:
        ReportBuildError: The evidence is not of one study and patient, or lacks the photograph.
    """
    known = distinct(evidence)
    source = next((each for each in known if uid(each, INSTANCE) == image.sop_instance_uid), None)
    if source is None:
        raise ReportBuildError(f"no header was given for photograph {image.sop_instance_uid}")
    ds = _begin(ids, content, known, SecondaryCaptureImageStorage)
    ds.Modality = "OP"
    ds.SeriesNumber = _OVERLAY_SERIES_NUMBER
    ds.SeriesDescription = long_string(f"{OVERLAY_TITLE}, revision {content.instance_number}")
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "", "LESION_MAP"]
    ds.PatientOrientation = ""
    if image.laterality is not None:
        ds.ImageLaterality = str(image.laterality)
    ds.AnatomicRegionSequence = [_code(codes.RETINA)]
    ds.DerivationDescription = derivation[:1024]
    ds.SourceImageSequence = [_source(image, source)]
    _add_annotation(ds, source)
    _add_loss(ds, source)
    _add_pixels(ds, rgb)
    return ds


def _begin(ids: ObjectIds, content: ReportContent, known: Sequence[Dataset], sop_class_uid: str) -> Dataset:
    """Patient, study, equipment, times and SOP Common."""
    ds = patient_and_study(known)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = ids.sop_instance_uid
    ds.SeriesInstanceUID = ids.series_instance_uid
    ds.InstanceNumber = ids.instance_number
    add_equipment(ds, content)
    add_times(ds, content, utc_offset(known))
    ds.file_meta = file_meta(sop_class_uid, ids.sop_instance_uid)
    return ds


def _source(image: ReportImage, source: Dataset) -> Dataset:
    """Item of Source Image Sequence (PS3.3 C.7.6.1.1.4) with the purpose of reference (CID 7202)."""
    item = reference(image.sop_class_uid, image.sop_instance_uid)
    if image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    item.PurposeOfReferenceCodeSequence = [_code(codes.SOURCE_IMAGE)]
    return item


def _add_annotation(ds: Dataset, source: Dataset) -> None:
    """Burned In Annotation: as the photograph's; only its field of view is shown, with a key that is ours.

    A photograph that does not say whether it has one leaves it open, and so does what is made of it.
    """
    said = text(source, _BURNED_IN).upper()
    if said in ("YES", "NO"):
        ds.BurnedInAnnotation = said


def _add_loss(ds: Dataset, source: Dataset) -> None:
    """Lossy Image Compression 01 once is 01 for ever (PS3.3 C.7.6.1.1.5); ratio and method where legal."""
    if text(source, _LOSSY) == "01":
        ds.LossyImageCompression = "01"
        for tag, legal in _OF_THE_LOSS.items():
            values = texts(source, tag)
            if values and all(legal.fullmatch(each) for each in values):
                setattr(ds, keyword_for_tag(tag), list(values))


def _add_pixels(ds: Dataset, rgb: npt.NDArray[np.uint8]) -> None:
    """Image Pixel module (PS3.3 C.7.6.3), uncompressed."""
    ds.Rows, ds.Columns = rgb.shape[:2]
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.PixelData = np.ascontiguousarray(rgb).tobytes()
    ds["PixelData"].VR = "OB"


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
