"""One study: the grading rule over its findings, the structured report, and the rows that send it.

The report's UID follows from what it says, so a run that was cut off and is done again makes the same object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version

import pydicom
import structlog

from dicom_io.errors import SpoolDamagedError
from dicom_io.laterality import Laterality
from dicom_io.report import build_report, to_bytes
from dicom_io.report_content import (
    Algorithm,
    Predecessor,
    ReportContent,
    ReportEye,
    ReportImage,
)
from dicom_io.report_header import read_evidence
from dicom_io.uids import derived_uid
from worker.backoff import backoff_s
from worker.dispatch import Job
from worker.errors import ClaimLostError
from worker.grading import UNFINISHED, EyeResult, ImageResult, grade_eyes
from worker.reasons import reason
from worker.routing import judge
from worker.runtime import Runtime
from worker.schema import InstanceState, ReportState
from worker.store import images, reports, retention, studies
from worker.store.reports import DestinationRow, EyeRow, ImageRow, ReportRow
from worker.store.studies import FILES_DAMAGED, StudyClaim

log = structlog.get_logger(__name__)
REPORT_CODE_VERSION = 2
"""Goes up when the same rows would make another report: then a study that is touched is reported anew."""
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
SERIES_NUMBER = 9901
_CLAIM_S = 120.0


def report(runtime: Runtime, study_id: int) -> None:
    """Write the study's report if one is due; do nothing when not, or when somebody else does."""
    claimed = runtime.database.write(studies.claim, study_id, runtime.process_id, _CLAIM_S)
    if claimed is None:
        return
    try:
        _report(runtime, claimed)
    except ClaimLostError:
        log.warning("report_claim_lost", study_instance_uid=claimed.study_instance_uid)
        runtime.database.write(studies.give_back, claimed)
    except SpoolDamagedError:
        log.error("report_withheld", study_instance_uid=claimed.study_instance_uid, reason_code=FILES_DAMAGED)
        runtime.database.write(studies.files_damaged, claimed, _delay_s(runtime, claimed))
    except Exception as error:
        log.exception("report_failed", study_instance_uid=claimed.study_instance_uid)
        delay_s = _delay_s(runtime, claimed)
        runtime.database.write(studies.report_failed, claimed, type(error).__name__, delay_s)


def _delay_s(runtime: Runtime, claimed: StudyClaim) -> float:
    jobs = runtime.settings.jobs
    return backoff_s(claimed.attempts + 1, jobs.retry_base_s, jobs.retry_max_s)


def _report(runtime: Runtime, claimed: StudyClaim) -> None:
    database = runtime.database
    if missing := database.read(reports.missing_findings, claimed.study_id, runtime.bundle_pk):
        _analyse_again(runtime, claimed, missing)
        return
    rows = database.read(reports.images, claimed.study_id, runtime.bundle_pk)
    if not rows:  # its images were moved to other studies by corrected headers
        delivered = database.write(reports.retire, claimed)
        uid = claimed.study_instance_uid
        log.warning("study_without_images", study_instance_uid=uid, report_delivered=delivered)
        return
    if not claimed.partial and any(row.state == InstanceState.RECEIVED for row in rows):
        raise ClaimLostError(f"study {claimed.study_instance_uid} has a new image")
    headers = database.read(reports.header_digests, claimed.study_id)
    digest = inputs_hash(runtime, claimed, rows, headers)
    revision = _revision(runtime, claimed, digest)
    if revision.state == ReportState.WRITTEN:
        database.write(reports.confirm, claimed, revision)
        return
    _write(runtime, claimed, revision, rows)


def _analyse_again(runtime: Runtime, claimed: StudyClaim, instance_ids: Sequence[int]) -> None:
    """Have images that an earlier bundle read be read by the active one: no report mixes two."""
    deadline_s = runtime.settings.study.report_deadline_s
    runtime.database.write(images.reanalyse, instance_ids)
    runtime.database.write(studies.give_back, claimed, deadline_s)
    for instance_id in instance_ids:
        runtime.dispatcher.wake(Job.ANALYSE, instance_id)


def inputs_hash(
    runtime: Runtime, claimed: StudyClaim, rows: Sequence[ImageRow], headers: Sequence[str]
) -> str:
    """Return the SHA-256 over everything that the report follows from."""
    settings = runtime.settings
    inputs = {
        "study": claimed.study_instance_uid,
        "images": [asdict(row) for row in rows],
        "headers": headers,
        "bundle": runtime.bundle.digest,
        "camera_rules": runtime.rules.digest,
        "camera_policy": settings.camera.model_dump(mode="json"),
        "eye_policy": settings.grading.eye_policy,
        "report_code": REPORT_CODE_VERSION,
        "partial": claimed.partial,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _revision(runtime: Runtime, claimed: StudyClaim, digest: str) -> ReportRow:
    """Return the PENDING revision to write, or the current one when it says the same already."""
    latest = runtime.database.read(reports.latest, claimed.study_id, runtime.bundle_pk)
    current = runtime.database.read(reports.newest_written, claimed.study_id)
    predecessor = None if current is None else current.id
    replaces = None
    number = 1 if latest is None else latest.revision + 1
    if latest is not None and latest.state == ReportState.PENDING:
        if (latest.inputs_hash, latest.predecessor_id) == (digest, predecessor):
            return latest
        number, replaces = latest.revision, latest.id
    elif latest is not None and latest == current and _says(latest, digest):
        return latest
    study, bundle = claimed.study_instance_uid, runtime.bundle.digest
    values = {
        "bundle_pk": runtime.bundle_pk,
        "revision": number,
        "content_version": claimed.content_version,
        "inputs_hash": digest,
        "partial": claimed.partial,
        "sop_class_uid": COMPREHENSIVE_3D_SR,
        "sop_instance_uid": derived_uid(runtime.namespace, "report", study, bundle, str(number), digest),
        "series_instance_uid": derived_uid(runtime.namespace, "series", study, bundle),
        "predecessor_id": predecessor,
    }
    return runtime.database.write(reports.begin, claimed, values, replaces)


def _says(report: ReportRow, digest: str) -> bool:
    """Say whether a revision is the current one, its file sound, and made from these inputs."""
    return (report.state, report.inputs_hash) == (ReportState.WRITTEN, digest) and report.sha256 is not None


def _write(runtime: Runtime, claimed: StudyClaim, revision: ReportRow, rows: Sequence[ImageRow]) -> None:
    """Build the object, make it durable, then make it the current revision together with its deliveries."""
    eyes = grade_eyes([image_result(row) for row in rows], runtime.settings.grading.eye_policy)
    predecessor = None
    if revision.predecessor_id is not None:
        predecessor = runtime.database.read(reports.by_id, revision.predecessor_id)
    content = report_content(runtime, revision, predecessor, rows, eyes)
    data = to_bytes(build_report(content, _evidence(runtime, claimed.study_instance_uid, rows)))
    path = f"reports/{revision.sop_instance_uid}.dcm"
    runtime.spool.write_durable(path, data)
    labels = runtime.bundle.manifest.labels
    destinations = [DestinationRow(each.name, each.required) for each in runtime.settings.destinations]
    runtime.database.write(
        reports.finish,
        claimed,
        revision,
        spool_path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        eyes=[_eye_row(eye, labels) for eye in eyes],
        destinations=destinations,
    )
    log.info(
        "report_written",
        study_instance_uid=claimed.study_instance_uid,
        revision=revision.revision,
        partial=revision.partial,
        sop_instance_uid=revision.sop_instance_uid,
    )
    for destination in destinations:
        runtime.dispatcher.wake(Job.DELIVER, destination.name)


def _evidence(runtime: Runtime, study_instance_uid: str, rows: Sequence[ImageRow]) -> list[pydicom.Dataset]:
    """Read the headers that the report refers to and copies patient and study from.

    Raises:
        SpoolDamagedError: No file of the study is readable.
    """
    evidence: list[pydicom.Dataset] = []
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
            evidence.append(read_evidence(data))
    if damaged and not evidence:
        raise damaged[0][1]
    # One lost file does not keep the rest of its study from being reported: it is referred to by its row.
    return evidence + [_reference(row, study_instance_uid) for row, _ in damaged]


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
        images=tuple(_report_image(row, eyes) for row in rows),
        algorithm=Algorithm(
            name="fundus-worker",
            version=version("fundus-worker"),
            manufacturer="fundus-worker contributors",
            bundle_id=manifest.id,
            bundle_sha256=runtime.bundle.digest,
            parameters=(f"cumulative grade thresholds: {thresholds}",),
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
        and judge(row.route, row.camera, row.sop_class_uid, runtime.settings.camera).unvalidated
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


def _report_image(row: ImageRow, eyes: Sequence[EyeResult]) -> ReportImage:
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


def _eye_row(eye: EyeResult, labels: Sequence[str]) -> EyeRow:
    return EyeRow(
        laterality=eye.laterality,
        grade=eye.grade,
        grade_label=None if eye.grade is None else labels[eye.grade],
        referable=eye.referable,
        referable_probability=eye.referable_probability,
        certainty=eye.certainty,
        quality=eye.quality,
        reason_code=eye.reason_code,
        images=eye.images,
        images_used=eye.images_used,
    )
