"""Structured Report of one study: Comprehensive 3D SR (PS3.3 A.35.13), PS3.16 TID 1500.

Everything in it comes from the content and from the photographs' headers, nothing from a clock: the same
content gives the same bytes on every machine. The report is preliminary, not verified, and for research.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_io import codes
from dicom_io.elements import uid
from dicom_io.errors import ReportBuildError
from dicom_io.report_content import SOFTWARE_NAME, Predecessor, ReportContent, ReportEye, ReportImage
from dicom_io.report_header import patient_and_study, utc_offset
from dicom_io.report_parts import (
    CLASS,
    INSTANCE,
    SERIES,
    STUDY,
    add_equipment,
    add_times,
    distinct,
    file_meta,
    references,
    to_bytes,
)
from dicom_io.report_text import render_text
from dicom_io.report_tree import content_tree, device_uid

__all__ = ["build_report", "render_text", "to_bytes"]

SERIES_DESCRIPTION = "Diabetic retinopathy grading (research)"

_UID = re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))+")


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
    known = distinct(evidence)
    _check(content, known)
    report = patient_and_study(known)
    _add_series(report, content)
    add_equipment(report, content)
    _add_document(report, content, known)
    add_times(report, content, utc_offset(known))
    report.update(content_tree(content))
    report.file_meta = file_meta(Comprehensive3DSRStorage, content.sop_instance_uid)
    return report


def _add_series(report: Dataset, content: ReportContent) -> None:
    """SR Document Series module (PS3.3 C.17.1)."""
    report.Modality = "SR"
    report.SeriesInstanceUID = content.series_instance_uid
    report.SeriesNumber = content.series_number
    report.SeriesDescription = SERIES_DESCRIPTION
    report.ReferencedPerformedProcedureStepSequence = []


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


def _evidence(evidence: Sequence[Dataset]) -> Dataset:
    """Item of the evidence sequence: all photographs of the study by series (PS3.3 table 10-4)."""
    return references(
        uid(evidence[0], STUDY),
        [(uid(ds, SERIES), uid(ds, CLASS), uid(ds, INSTANCE)) for ds in evidence],
    )


def _predecessors(predecessors: Iterable[Predecessor]) -> list[Dataset]:
    ordered = sorted({(p.study_instance_uid, _member(p)) for p in predecessors})
    return [
        references(study, [member for _, member in group])
        for study, group in groupby(ordered, key=lambda entry: entry[0])
    ]


def _member(document: Predecessor) -> tuple[str, str, str]:
    return document.series_instance_uid, document.sop_class_uid, document.sop_instance_uid


def _private_scheme() -> Dataset:
    """Who defines the private codes (PS3.3 C.12.1, Coding Scheme Identification Sequence)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeVersion = codes.PRIVATE_SCHEME_VERSION
    item.CodingSchemeResponsibleOrganization = SOFTWARE_NAME
    return item


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
    known = {(uid(ds, CLASS), uid(ds, INSTANCE)) for ds in evidence}
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
