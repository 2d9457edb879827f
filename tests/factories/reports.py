"""Reports of made-up studies, one for each shape that a report can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from types import MappingProxyType
from typing import Any

from factories.dicom import OPHTHALMIC_PHOTOGRAPHY_8_BIT, make_fundus
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_io.laterality import Laterality
from dicom_io.report import build_report, to_bytes
from dicom_io.report_content import Algorithm, Predecessor, ReportContent, ReportEye, ReportImage

STUDY = "2.25.1001"
SERIES = "2.25.2001"
REPORT = "2.25.3001"
ALGORITHM = Algorithm(
    name="Diabetic retinopathy grading",
    version="1.0.0",
    manufacturer="fundus-worker project",
    bundle_id="reference-1",
    bundle_sha256="ab" * 32,
    parameters=("Threshold for ICDR grade >= 2: 0.42",),
)


def image(
    number: int = 1,
    laterality: Laterality | None = Laterality.RIGHT,
    reason_code: str | None = None,
    reason_text: str | None = None,
    **changes: Any,
) -> ReportImage:
    """Photograph `2.25.<number>` from the labelled camera; used unless there is a reason."""
    usual = ReportImage(
        sop_class_uid=OPHTHALMIC_PHOTOGRAPHY_8_BIT,
        sop_instance_uid=f"2.25.{number}",
        frame_number=None,
        laterality=laterality,
        route="labelled",
        camera="kowa-vx-10",
        adapter=None,
        used=reason_code is None,
        reason_code=reason_code,
        reason_text=reason_text,
    )
    return replace(usual, **changes)


def graded(laterality: Laterality = Laterality.RIGHT, grade: int = 2, **changes: Any) -> ReportEye:
    """An eye with a grade."""
    usual = ReportEye(
        laterality=laterality,
        grade=grade,
        referable=grade >= 2,
        referable_probability=0.9371823668479919 if grade >= 2 else 0.0312,
        certainty=0.61,
        quality=0.97,
    )
    return replace(usual, **changes)


def withheld(
    laterality: Laterality = Laterality.RIGHT,
    reason_code: str = "UNGRADABLE_QUALITY",
    reason_text: str = "The photograph is too dark or blurred to be graded.",
    quality: float | None = 0.2,
) -> ReportEye:
    """An eye without a grade."""
    return ReportEye(laterality, None, None, None, None, quality, reason_code, reason_text)


def content(
    eyes: tuple[ReportEye, ...] = (graded(),), images: tuple[ReportImage, ...] = (image(),), **changes: Any
) -> ReportContent:
    """A report's content."""
    usual = ReportContent(
        sop_instance_uid=REPORT,
        series_instance_uid="2.25.3000",
        series_number=900,
        instance_number=1,
        created_at=datetime(2026, 3, 4, 5, 6, 7, 80_000, tzinfo=UTC),
        eyes=eyes,
        images=images,
        algorithm=ALGORITHM,
        software_version="0.1.0",
    )
    return replace(usual, **changes)


def header(number: int = 1, **attributes: Any) -> Dataset:
    """Header of photograph `2.25.<number>` as read from a file, without its pixels."""
    usual = {"StudyDate": "20260304", "StudyTime": "010203"}
    uids = {"study_uid": STUDY, "series_uid": SERIES, "sop_uid": f"2.25.{number}"}
    options: dict[str, Any] = usual | uids | attributes
    ds = make_fundus(size=32, **options)
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()), stop_before_pixels=True)


@dataclass(frozen=True)
class Shape:
    """A report's content and the headers of its photographs."""

    content: ReportContent
    evidence: tuple[Dataset, ...]

    def build(self) -> Dataset:
        """The report as a viewer reads it from its file."""
        return dcmread(BytesIO(self.file()))

    def file(self) -> bytes:
        """The report's file."""
        return to_bytes(build_report(self.content, self.evidence))


def _two_eyes() -> Shape:
    right = image(1, Laterality.RIGHT)
    left = image(2, Laterality.LEFT, route="adapter", camera="simulated-cool", adapter="simulated-cool")
    eyes = (graded(Laterality.LEFT, 0), graded(Laterality.RIGHT, 3, flags=("Two photographs disagree.",)))
    return Shape(content(eyes, (right, left)), (header(1), header(2)))


def _one_withheld() -> Shape:
    dark = image(2, Laterality.LEFT, "UNGRADABLE_QUALITY", "The photograph is too dark to be graded.")
    eyes = (graded(), withheld(Laterality.LEFT))
    return Shape(content(eyes, (image(1), dark)), (header(1), header(2)))


def _all_withheld() -> Shape:
    reason = ("CAMERA_NOT_VALIDATED", "Nobody has validated the grading for this camera.")
    eyes = (withheld(Laterality.RIGHT, *reason, quality=None), withheld(Laterality.LEFT, *reason))
    images = tuple(
        image(number, side, *reason, route="unknown", camera=None)
        for number, side in enumerate(Laterality, start=1)
    )
    return Shape(content(eyes, images), (header(1), header(2)))


def _no_side() -> Shape:
    reason = ("LATERALITY_UNKNOWN", "The photograph does not say which eye it shows.")
    images = (image(1, None, *reason), image(2, None, *reason, route="known", camera="topcon-nw400"))
    return Shape(content((), images), (header(1, laterality=None), header(2, laterality=None)))


def _partial() -> Shape:
    waiting = image(2, Laterality.LEFT, "IMAGE_UNFINISHED", "The photograph has not been analysed yet.")
    eyes = (
        graded(),
        withheld(Laterality.LEFT, "IMAGE_UNFINISHED", "A photograph is not analysed yet.", None),
    )
    return Shape(content(eyes, (image(1), waiting), partial=True), (header(1), header(2)))


def _revision() -> Shape:
    earlier = tuple(
        Predecessor(Comprehensive3DSRStorage, f"2.25.400{number}", "2.25.4000", STUDY) for number in (2, 1)
    )
    return Shape(
        content(predecessors=earlier, instance_number=3, institution_name="Eye Clinic"), (header(1),)
    )


def _many_photographs() -> Shape:
    used = tuple(image(number, list(Laterality)[number % 2]) for number in range(1, 15))
    frames = tuple(image(15, Laterality.RIGHT, frame_number=frame) for frame in (1, 2))
    eyes = (graded(), graded(Laterality.LEFT, 1))
    return Shape(content(eyes, used + frames), tuple(header(number) for number in range(1, 16)))


def _other_alphabets() -> Shape:
    names = {"SpecificCharacterSet": "ISO_IR 192", "StudyDescription": "Augenhintergrund Ärzte 眼底"}
    ds = header(1, accession="ÄÖ-眼底-7", patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", **names)
    return Shape(content(), (ds,))


def _broken_header() -> Shape:
    broken = {
        "PatientBirthDate": "00000000",
        "StudyDate": "2026-01-01",
        "PatientSex": "X",
        "StudyTime": "2561",
    }
    return Shape(content(), (header(1, accession="A" * 40, patient_id="P" * 80, **broken),))


SHAPES: Mapping[str, Callable[[], Shape]] = MappingProxyType(
    {
        "two-eyes": _two_eyes,
        "one-withheld": _one_withheld,
        "all-withheld": _all_withheld,
        "no-side": _no_side,
        "partial": _partial,
        "revision": _revision,
        "many-photographs": _many_photographs,
        "other-alphabets": _other_alphabets,
        "broken-header": _broken_header,
    }
)
"""Every shape by name."""
