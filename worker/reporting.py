"""One study: the grading rule over its findings, the structured report, and the rows that send it.

The report's UID follows from what it says, so a run that was cut off and is done again makes the same object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import structlog

from dicom_io.errors import SpoolDamagedError
from dicom_io.report import build_report, to_bytes
from dicom_io.uids import derived_uid
from worker.backoff import backoff_s
from worker.caller_policy import destinations_of
from worker.dispatch import Job
from worker.document_plan import plan_documents
from worker.errors import ClaimLostError
from worker.grading import EyeResult, grade_eyes
from worker.report_contents import evidence, image_result, inputs_hash, report_content
from worker.runtime import Runtime
from worker.schema import InstanceState, ReportState
from worker.store import deliveries, images, reports, studies
from worker.store.reports import DestinationRow, EyeRow, ImageRow, ReportRow
from worker.store.studies import FILES_DAMAGED, StudyClaim

log = structlog.get_logger(__name__)
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
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
    data = to_bytes(build_report(content, evidence(runtime, claimed.study_instance_uid, rows)))
    path = f"reports/{revision.sop_instance_uid}.dcm"
    runtime.spool.write_durable(path, data)
    labels = runtime.bundle.manifest.labels
    holding = runtime.database.read(deliveries.destinations_of, claimed.study_id)
    callers = {row.calling_ae for row in rows}
    takers = destinations_of(runtime.settings, callers, holding)
    destinations = [DestinationRow(each.name, each.required) for each in takers]
    runtime.database.write(
        reports.finish,
        claimed,
        revision,
        spool_path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        eyes=[_eye_row(eye, labels) for eye in eyes],
        destinations=destinations,
        planned=plan_documents(runtime, revision, rows, eyes, takers),
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
