"""Structured Report of one study: Comprehensive 3D SR (PS3.3 A.35.13), PS3.16 TID 1500.

Everything in it comes from the content and from the photographs' headers, nothing from a clock: the same
content gives the same bytes on every machine. The report is preliminary, not verified, and for research.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import groupby

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from dicom_io import codes
from dicom_io.elements import uid
from dicom_io.errors import ReportBuildError
from dicom_io.report_content import Predecessor, ReportContent, ReportEye, ReportImage
from dicom_io.report_header import long_string, patient_and_study, to_timezone, utc_offset
from dicom_io.report_text import render_text
from dicom_io.report_tree import SOFTWARE_NAME, content_tree, device_uid
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = ["build_report", "render_text", "to_bytes"]

SERIES_DESCRIPTION = "Diabetic retinopathy grading (research)"

_UID = re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))+")

_SERIES, _INSTANCE, _CLASS, _STUDY = 0x0020000E, 0x00080018, 0x00080016, 0x0020000D


def build_report(content: ReportContent, evidence: Sequence[Dataset]) -> Dataset:
    """Build the Structured Report of one study.

    Args:
        content: What it says.
        evidence: Headers of the study's photographs, pixels not needed; every photograph in `content.images`
            must be among them. Their order does not matter.

    Returns:
        A data set with file meta information, ready for `to_bytes`.

    Raises:
        ReportBuildError: The content contradicts itself, or the evidence is not of one study and patient.
    """
    known = _distinct(evidence)
    _check(content, known)
    report = patient_and_study(known)
    _add_series(report, content)
    _add_equipment(report, content)
    _add_document(report, content, known)
    _add_times(report, content, utc_offset(known))
    report.update(content_tree(content))
    report.file_meta = _file_meta(content)
    return report


def to_bytes(report: Dataset) -> bytes:
    """Return the report as a file (PS3.10), the same bytes for the same report."""
    buffer = BytesIO()
    dcmwrite(buffer, report, enforce_file_format=True)
    return buffer.getvalue()


def _distinct(evidence: Iterable[Dataset]) -> list[Dataset]:
    """Each object once, in an order that does not depend on that of arrival."""
    by_uid = {(uid(ds, _SERIES), uid(ds, _INSTANCE)): ds for ds in evidence}
    if not by_uid:
        raise ReportBuildError("a report needs the header of at least one photograph")
    for series, instance in by_uid:
        if not (series and instance):
            raise ReportBuildError("a photograph without series or instance UID cannot be referred to")
    return [by_uid[key] for key in sorted(by_uid)]


def _add_series(report: Dataset, content: ReportContent) -> None:
    """SR Document Series module (PS3.3 C.17.1)."""
    report.Modality = "SR"
    report.SeriesInstanceUID = content.series_instance_uid
    report.SeriesNumber = content.series_number
    report.SeriesDescription = SERIES_DESCRIPTION
    report.ReferencedPerformedProcedureStepSequence = []


def _add_equipment(report: Dataset, content: ReportContent) -> None:
    """Enhanced General Equipment module (PS3.3 C.7.5.2)."""
    report.Manufacturer = long_string(content.algorithm.manufacturer)
    report.ManufacturerModelName = SOFTWARE_NAME
    report.DeviceSerialNumber = device_uid(content)
    report.SoftwareVersions = long_string(content.software_version) or "unknown"
    if content.institution_name:
        report.InstitutionName = long_string(content.institution_name)


def _add_document(report: Dataset, content: ReportContent, evidence: Sequence[Dataset]) -> None:
    """SR Document General and SOP Common modules (PS3.3 C.17.2, C.12.1)."""
    report.SpecificCharacterSet = "ISO_IR 192"
    report.SOPClassUID = Comprehensive3DSRStorage
    report.SOPInstanceUID = content.sop_instance_uid
    report.InstanceNumber = content.instance_number
    report.ContentQualification = "RESEARCH"
    report.CompletionFlag = "PARTIAL" if content.partial else "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    report.PerformedProcedureCodeSequence = []
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence(evidence)]
    report.CodingSchemeIdentificationSequence = [_private_scheme()]
    if content.predecessors:
        report.PredecessorDocumentsSequence = _predecessors(content.predecessors)


def _add_times(report: Dataset, content: ReportContent, offset: str | None) -> None:
    """Content and creation times: one zone holds for all times of an object (PS3.3 C.12.1.1.8)."""
    moment = content.created_at
    if offset is not None:
        report.TimezoneOffsetFromUTC = offset
        moment = moment.astimezone(to_timezone(offset))
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    report.ContentDate = report.InstanceCreationDate = report.SeriesDate = date
    report.ContentTime = report.InstanceCreationTime = report.SeriesTime = time


def _evidence(evidence: Sequence[Dataset]) -> Dataset:
    """Item of the evidence sequence: all photographs of the study by series (PS3.3 table 10-4)."""
    return _references(
        uid(evidence[0], _STUDY),
        [(uid(ds, _SERIES), uid(ds, _CLASS), uid(ds, _INSTANCE)) for ds in evidence],
    )


def _predecessors(predecessors: Iterable[Predecessor]) -> list[Dataset]:
    ordered = sorted({(p.study_instance_uid, _member(p)) for p in predecessors})
    return [
        _references(study, [member for _, member in group])
        for study, group in groupby(ordered, key=lambda entry: entry[0])
    ]


def _member(document: Predecessor) -> tuple[str, str, str]:
    return document.series_instance_uid, document.sop_class_uid, document.sop_instance_uid


def _references(study: str, instances: Sequence[tuple[str, str, str]]) -> Dataset:
    """Hierarchical SOP Instance Reference macro; `instances` are (series, class, instance), by series."""
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = []
    for series, members in groupby(instances, key=lambda entry: entry[0]):
        series_item = Dataset()
        series_item.SeriesInstanceUID = series
        series_item.ReferencedSOPSequence = [_reference(sop_class, sop) for _, sop_class, sop in members]
        item.ReferencedSeriesSequence.append(series_item)
    return item


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _private_scheme() -> Dataset:
    """Who defines the private codes (PS3.3 C.12.1, Coding Scheme Identification Sequence)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeVersion = codes.PRIVATE_SCHEME_VERSION
    item.CodingSchemeResponsibleOrganization = SOFTWARE_NAME
    return item


def _file_meta(content: ReportContent) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    meta.MediaStorageSOPInstanceUID = UID(content.sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _check(content: ReportContent, evidence: Sequence[Dataset]) -> None:
    if content.created_at.utcoffset() is None:
        raise ReportBuildError("created_at has no time zone")
    for name in _uids(content):
        if not _UID.fullmatch(name):
            raise ReportBuildError("a UID of the report is not one (PS3.5 section 9.1)")
    if not content.images:
        raise ReportBuildError("a report without a photograph says nothing")
    if not content.not_assessed:
        raise ReportBuildError("a report must say what was not assessed")
    if len({eye.laterality for eye in content.eyes}) != len(content.eyes):
        raise ReportBuildError("one eye has two results")
    known = {(uid(ds, _CLASS), uid(ds, _INSTANCE)) for ds in evidence}
    for image in content.images:
        _check_image(image, content, known)
    for eye in content.eyes:
        _check_eye(eye, content.images)


def _uids(content: ReportContent) -> Iterator[str]:
    """Those that are made here. The study's is its sender's: odd as it may be, the report belongs into it."""
    yield from (content.sop_instance_uid, content.series_instance_uid, device_uid(content))
    for earlier in content.predecessors:
        yield from _member(earlier)


def _check_image(image: ReportImage, content: ReportContent, known: set[tuple[str, str]]) -> None:
    if (image.sop_class_uid, image.sop_instance_uid) not in known:
        raise ReportBuildError(f"no header was given for photograph {image.sop_instance_uid}")
    if image.used and image.laterality not in {eye.laterality for eye in content.eyes}:
        raise ReportBuildError(f"photograph {image.sop_instance_uid} is used for an eye without a result")
    if image.used and image.reason_code:
        raise ReportBuildError(f"photograph {image.sop_instance_uid} is used and has a reason not to be")


def _check_eye(eye: ReportEye, images: Iterable[ReportImage]) -> None:
    for value in (eye.referable_probability, eye.certainty, eye.quality):
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
            raise ReportBuildError(f"eye {eye.laterality}: a probability is outside 0..1")
    if eye.grade is None:
        if not eye.reason_code or eye.referable is not None:
            raise ReportBuildError(f"eye {eye.laterality}: a withheld grade needs a reason and no verdict")
        return
    if eye.reason_code or not 0 <= eye.grade < len(codes.SEVERITY) or eye.referable is not (eye.grade >= 2):
        raise ReportBuildError(f"eye {eye.laterality}: grade, verdict and reason contradict each other")
    if not any(image.used and image.laterality is eye.laterality for image in images):
        raise ReportBuildError(f"eye {eye.laterality}: a grade needs a photograph")
