"""What a report of a study says: its rows, its headers and the grading rule, put into plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import pydicom
import structlog

from dicom_io.errors import SpoolDamagedError
from dicom_io.laterality import Laterality
from dicom_io.report_content import (
    Algorithm,
    Predecessor,
    ReportContent,
    ReportEye,
    ReportImage,
)
from dicom_io.report_header import read_evidence
from dicom_io.uids import derived_uid
from worker.caller_policy import camera_settings, report_inputs
from worker.grading import UNFINISHED, EyeResult, ImageResult
from worker.reasons import reason
from worker.routing import judge
from worker.runtime import Runtime
from worker.schema import InstanceState
from worker.store import retention
from worker.store.reports import ImageRow, ReportRow
from worker.store.studies import StudyClaim

log = structlog.get_logger(__name__)
REPORT_CODE_VERSION = 3
"""Goes up when the same rows would make another report: then a study that is touched is reported anew."""
SERIES_NUMBER = 9901


def inputs_hash(
    runtime: Runtime, study: StudyClaim | ReportRow, rows: Sequence[ImageRow], headers: Sequence[str]
) -> str:
    """Return the SHA-256 over everything that the report follows from."""
    settings = runtime.settings
    inputs = {
        "study": study.study_instance_uid,
        "images": [{key: said for key, said in vars(row).items() if key != "calling_ae"} for row in rows],
        "headers": headers,
        "bundle": runtime.bundle.digest,
        "camera_rules": runtime.rules.digest,
        "camera_policy": settings.camera.model_dump(mode="json"),
        "eye_policy": settings.grading.eye_policy,
        "report_code": REPORT_CODE_VERSION,
        "partial": study.partial,
        **report_inputs(settings, {row.sop_instance_uid: row.calling_ae for row in rows}),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def evidence(runtime: Runtime, study_instance_uid: str, rows: Sequence[ImageRow]) -> list[pydicom.Dataset]:
    """Read the headers that the report refers to and copies patient and study from.

    Raises:
        SpoolDamagedError: No file of the study is readable.
    """
    found: list[pydicom.Dataset] = []
    damaged: list[tuple[ImageRow, SpoolDamagedError]] = []
    for row in {row.sop_instance_uid: row for row in rows}.values():
        try:
            data = runtime.spool.read_verified(row.spool_path, row.sha256)
        except SpoolDamagedError as error:
            if runtime.database.read(retention.is_removed, row.spool_path):
                log.info("evidence_removed", sop_instance_uid=row.sop_instance_uid)
            else:
                log.error("evidence_damaged", sop_instance_uid=row.sop_instance_uid, error=str(error))
            damaged.append((row, error))
        else:
            found.append(read_evidence(data))
    if damaged and not found:
        raise damaged[0][1]
    # One lost file does not keep the rest of its study from being reported: it is referred to by its row.
    return found + [_reference(row, study_instance_uid) for row, _ in damaged]


def _reference(row: ImageRow, study_instance_uid: str) -> pydicom.Dataset:
    """Return as much of an image's header as its row knows."""
    reference = pydicom.Dataset()
    reference.SOPClassUID = row.sop_class_uid
    reference.SOPInstanceUID = row.sop_instance_uid
    reference.SeriesInstanceUID = row.series_instance_uid
    reference.StudyInstanceUID = study_instance_uid
    return reference


def image_result(row: ImageRow) -> ImageResult:
    """Return what the grading rule needs to know of one image or frame."""
    finished = row.state != InstanceState.RECEIVED
    laterality = row.laterality if row.frame_number is not None else _header_side(row)
    return ImageResult(
        laterality=laterality,
        finished=finished,
        grade=row.grade,
        referable=row.referable,
        referable_probability=row.referable_probability,
        certainty=row.certainty,
        quality=row.quality,
        reason_code=row.instance_reason or row.finding_reason or row.laterality_reason,
    )


def _header_side(row: ImageRow) -> str | None:
    """Return the side of an image without findings: the header's, when all its frames show the same."""
    sides = {value for value, _ in row.lateralities}
    return next(iter(sides)) if len(sides) == 1 else None


def report_content(
    runtime: Runtime,
    revision: ReportRow,
    predecessor: ReportRow | None,
    rows: Sequence[ImageRow],
    eyes: Sequence[EyeResult],
) -> ReportContent:
    """Gather what the structured report says, as plain values."""
    manifest = runtime.bundle.manifest
    thresholds = ", ".join(f"{value:.3f}" for value in manifest.thresholds)
    predecessors: tuple[Predecessor, ...] = ()
    if predecessor is not None:
        predecessors = (
            Predecessor(
                predecessor.sop_class_uid,
                predecessor.sop_instance_uid,
                predecessor.series_instance_uid,
                predecessor.study_instance_uid,
            ),
        )
    return ReportContent(
        sop_instance_uid=revision.sop_instance_uid,
        series_instance_uid=revision.series_instance_uid,
        series_number=SERIES_NUMBER,
        instance_number=revision.revision,
        # Without a Timezone Offset in the study, its times are the site's: ours have to be read alike.
        created_at=revision.created_at.astimezone(),
        eyes=tuple(_report_eye(runtime, eye, rows) for eye in eyes),
        images=tuple(report_image(row, eyes) for row in rows),
        algorithm=Algorithm(
            name="fundus-worker",
            version=version("fundus-worker"),
            manufacturer="fundus-worker contributors",
            bundle_id=manifest.id,
            bundle_sha256=runtime.bundle.digest,
            parameters=(f"cumulative grade thresholds: {thresholds}",),
            bundle_version=manifest.version,
        ),
        predecessors=predecessors,
        partial=revision.partial,
        software_version=version("fundus-worker"),
        device_uid=derived_uid(runtime.namespace, "device"),
        minimum_quality=manifest.minimum_quality,
    )


def _report_eye(runtime: Runtime, eye: EyeResult, rows: Sequence[ImageRow]) -> ReportEye:
    own = [row for row in rows if image_result(row).laterality == eye.laterality]
    return ReportEye(
        laterality=Laterality(eye.laterality),
        grade=eye.grade,
        referable=eye.referable,
        referable_probability=eye.referable_probability,
        certainty=eye.certainty,
        quality=eye.quality,
        reason_code=eye.reason_code,
        reason_text=reason(eye.reason_code).text if eye.reason_code else None,
        flags=(*_unread(eye, own), *_unvalidated(runtime, own)),
    )


def _unread(eye: EyeResult, own: Sequence[ImageRow]) -> Iterator[str]:
    """What a stated result cannot know: photographs of the eye that it does not rest on."""
    codes = sorted({_image_reason(row) for row in own} - {None}, key=str)
    if eye.reason_code is None and eye.images_used < eye.images:
        yield (
            f"{eye.images - eye.images_used} of {eye.images} photographs of this eye were not used (reasons: "
            f"{', '.join(map(str, codes))}); disease in them would not be seen."
        )


def _unvalidated(runtime: Runtime, own: Sequence[ImageRow]) -> list[str]:
    cameras = {
        row.camera or "an unknown camera"
        for row in own
        if image_result(row).usable
        and judge(
            row.route, row.camera, row.sop_class_uid, camera_settings(runtime.settings, row.calling_ae)
        ).unvalidated
    }
    return [
        f"Reported by local configuration although the models were not validated for {camera}."
        for camera in sorted(cameras)
    ]


def _image_reason(row: ImageRow) -> str | None:
    """Why an image is not used on its own account; None when it is usable."""
    result = image_result(row)
    if not result.finished or (result.reason_code is None and result.grade is None):
        return UNFINISHED
    return result.reason_code


def report_image(row: ImageRow, eyes: Sequence[EyeResult]) -> ReportImage:
    """List one image: used for a stated result, or not and why."""
    result = image_result(row)
    stated = any(eye.laterality == result.laterality and eye.reason_code is None for eye in eyes)
    used = result.usable and stated
    code = _image_reason(row)
    if code is None and not used:
        code = "EYE_WITHHELD"
    return ReportImage(
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        frame_number=row.frame_number if row.number_of_frames > 1 else None,
        laterality=None if result.laterality is None else Laterality(result.laterality),
        route=row.route,
        camera=row.camera,
        adapter=row.adapter,
        used=used,
        reason_code=code,
        reason_text=reason(code).text if code else None,
    )
