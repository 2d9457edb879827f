"""Makes what goes out beside a report: the page to read, and the lesion maps over photographs.

The report never waits for them. Its transaction plans them (`worker.document_plan`); this job makes them,
from the same rows, headers and bundle, and the rows that send them. What cannot be made now is tried again;
what cannot be made at all is a failure that `status` names. When what the rows say is not what the report
says, nothing is made: a study that changed gets a new revision, and documents with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from dicom_io.beside_report import ObjectIds, build_overlay, build_pdf_object
from dicom_io.errors import DecoderPoolClosedError, SpoolDamagedError, SpoolFullError
from dicom_io.report_content import Predecessor, ReportContent
from dicom_io.report_header import patient_and_study
from dicom_io.report_parts import distinct, to_bytes
from models.activation import OUTLINED_FROM, SHOWN_FROM
from worker.backoff import backoff_s
from worker.dispatch import Job
from worker.document_page import page_of
from worker.document_pictures import SIDE, legend, see, with_key
from worker.errors import BatcherClosedError, BatcherFullError, MapsDifferError, ReportChangedError
from worker.grading import EyeResult, grade_eyes
from worker.report_contents import evidence, image_result, inputs_hash, report_content, report_image
from worker.runtime import Runtime
from worker.schema import DocumentKind
from worker.store import documents, leases, reports, retention
from worker.store.documents import DueDocument
from worker.store.reports import ImageRow, ReportRow

log = structlog.get_logger(__name__)
_LEASE_S = 300.0
_BUSY = (BatcherFullError, BatcherClosedError, DecoderPoolClosedError, SpoolFullError, OSError)
"""Too much at once, an end, or a disk: no attempt of the document's own."""
_PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"


@dataclass(frozen=True)
class _Said:
    """What a revision of the report says, and what that follows from."""

    revision: ReportRow
    content: ReportContent
    rows: Sequence[ImageRow]
    eyes: Sequence[EyeResult]


def make_documents(runtime: Runtime, study_id: int) -> None:
    """Make what is due of a study; do nothing when nothing is, or when somebody else does."""
    if not runtime.database.read(documents.due, study_id):
        return
    lease = f"documents:{study_id}"
    token = runtime.database.write(leases.acquire, lease, runtime.process_id, _LEASE_S)
    if token is None:
        return
    try:
        for document in runtime.database.read(documents.due, study_id):
            if runtime.stopping.is_set() or not runtime.database.write(leases.renew, lease, token, _LEASE_S):
                return
            _attempt(runtime, study_id, document)
    finally:
        runtime.database.write(leases.release, lease, token)


def _attempt(runtime: Runtime, study_id: int, document: DueDocument) -> None:
    """Make one document, or write why not."""
    database = runtime.database
    try:
        _make(runtime, study_id, document)
    except (SpoolDamagedError, MapsDifferError) as error:
        code = "MAPS_DIFFER" if isinstance(error, MapsDifferError) else _lost(runtime, document)
        database.write(documents.left_out, document.id, code, str(error))
        log.warning("document_left_out", sop_instance_uid=document.sop_instance_uid, reason_code=code)
    except ReportChangedError as error:
        _wait_for_the_revision(runtime, document, str(error))
    except Exception as error:  # whatever it is: the report is out, and the other documents are to be made
        jobs = runtime.settings.jobs
        busy = isinstance(error, _BUSY)
        final = not busy and document.attempts + 1 >= jobs.max_attempts
        delay_s = backoff_s(document.attempts + 1, jobs.retry_base_s, jobs.retry_max_s)
        kind = type(error).__name__
        values = (document.id, "DOCUMENT_FAILED", kind)
        database.write(documents.failed, *values, delay_s=delay_s, final=final)
        log.exception("document_failed", sop_instance_uid=document.sop_instance_uid, final=final)


def _wait_for_the_revision(runtime: Runtime, document: DueDocument, detail: str) -> None:
    """The study changed, and a revision will take this report's place; or the settings or the program did.

    Nothing is asked for anew: of two processes with different settings each would undo what the other did.
    """
    jobs = runtime.settings.jobs
    attempts = document.attempts + 1
    if attempts >= jobs.max_attempts:
        runtime.database.write(documents.left_out, document.id, "REPORT_CHANGED", detail)
        return
    delay_s = backoff_s(attempts, jobs.retry_base_s, jobs.retry_max_s)
    values = (document.id, "REPORT_CHANGED", detail)
    runtime.database.write(documents.failed, *values, delay_s=delay_s, final=False)


def _lost(runtime: Runtime, document: DueDocument) -> str:
    """Why the photograph's file is not there."""
    path = (
        None if document.source_uid is None else runtime.database.read(reports.path_of, document.source_uid)
    )
    removed = path is not None and runtime.database.read(retention.is_removed, path)
    return "FILE_PURGED" if removed else "SPOOL_FILE_DAMAGED"


def _make(runtime: Runtime, study_id: int, document: DueDocument) -> None:
    database = runtime.database
    revision = database.read(reports.by_id, document.report_id)
    rows = database.read(reports.images, study_id, runtime.bundle_pk)
    headers = database.read(reports.header_digests, study_id)
    if inputs_hash(runtime, revision, rows, headers) != revision.inputs_hash:
        raise ReportChangedError(f"report {revision.sop_instance_uid} says other than would be said now")
    eyes = grade_eyes([image_result(row) for row in rows], runtime.settings.grading.eye_policy)
    predecessor = (
        None if revision.predecessor_id is None else database.read(reports.by_id, revision.predecessor_id)
    )
    content = report_content(runtime, revision, predecessor, rows, eyes)
    build = _pdf if document.kind == DocumentKind.PDF else _overlay
    data = build(runtime, document, _Said(revision, content, rows, eyes))
    path = f"reports/{document.sop_instance_uid}.dcm"
    runtime.spool.write_durable(path, data)
    if database.write(documents.written, document, path, hashlib.sha256(data).hexdigest()):
        fields = {"kind": document.kind, "sop_instance_uid": document.sop_instance_uid}
        log.info("document_written", study_instance_uid=revision.study_instance_uid, **fields)
        for name, _ in document.destinations:
            runtime.dispatcher.wake(Job.DELIVER, name)


def _pdf(runtime: Runtime, document: DueDocument, said: _Said) -> bytes:
    revision, content, rows, eyes = said.revision, said.content, said.rows, said.eyes
    headers = evidence(runtime, revision.study_instance_uid, rows)
    page = page_of(runtime, content, patient_and_study(distinct(headers)), rows, eyes)
    report = Predecessor(
        revision.sop_class_uid,
        revision.sop_instance_uid,
        revision.series_instance_uid,
        revision.study_instance_uid,
    )
    ids = ObjectIds(document.sop_instance_uid, document.series_instance_uid, revision.revision)
    replaces = _page_before(runtime, revision)
    return to_bytes(build_pdf_object(page, ids, content, report=report, evidence=headers, replaces=replaces))


def _page_before(runtime: Runtime, revision: ReportRow) -> Predecessor | None:
    if revision.predecessor_id is None:
        return None
    made = runtime.database.read(documents.of_report, revision.predecessor_id, DocumentKind.PDF)
    return next(
        (Predecessor(_PDF_CLASS, sop, series, revision.study_instance_uid) for sop, series in made), None
    )


def _overlay(runtime: Runtime, document: DueDocument, said: _Said) -> bytes:
    revision, content, rows, eyes = said.revision, said.content, said.rows, said.eyes
    number, row = next(
        (number, row)
        for number, row in enumerate(rows, start=1)
        if row.sop_instance_uid == document.source_uid and document.source_frame in (None, row.frame_number)
    )
    seen = see(runtime, row, with_maps=True)
    if seen.overlay is None:
        raise RuntimeError("maps were asked for and none were drawn")
    manifest = runtime.bundle.manifest
    notes = (
        f"Lesion maps of bundle {manifest.id} {manifest.version}. Research use only.",
        "Where the classifier saw signs; no colour is no proof that nothing is there.",
    )
    picture = with_key(seen.overlay, legend(runtime), notes)
    ids = ObjectIds(document.sop_instance_uid, document.series_instance_uid, number)
    image = report_image(row, eyes)
    headers = evidence(runtime, revision.study_instance_uid, rows)
    made = build_overlay(
        picture, ids, content, image=image, derivation=_derivation(runtime, row), evidence=headers
    )
    return to_bytes(made)


def _derivation(runtime: Runtime, row: ImageRow) -> str:
    manifest = runtime.bundle.manifest
    adapted = f", adapted with {row.adapter}" if row.adapter else ""
    return (
        f"Cropped to the field of view and resized to {SIDE} px; coloured where the activation maps "
        f"({', '.join(manifest.activation_labels)}) of classifier {manifest.id} {manifest.version} (SHA-256 "
        f"{runtime.bundle.digest[:16]}) for this photograph{adapted} reach {SHOWN_FROM}, outlined where they "
        f"reach {OUTLINED_FROM}. Computed in the same graph as the grade. Not a segmentation; research only."
    )
