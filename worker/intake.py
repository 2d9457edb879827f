"""From a received object to its row. Success (0x0000) means that file, folder and row are on the disk.

The disk works on all three at once: the row's commit is submitted, then file and folder are synced on this
thread, then the commit is waited for. A crash in between leaves a row whose file may be damaged or a file
without a row; neither was acknowledged, and start-up and sweep put both right.
"""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from dicom_io.camera import CameraMatch
from dicom_io.errors import DicomIoError, SpoolDamagedError, SpoolFullError, UnreadableObjectError
from dicom_io.header import FundusHeader, decisive_content, read_header
from dicom_io.listener import Caller, ReceivedObject, TurnedAway
from dicom_io.spool import SpooledFile
from worker.backlog import Backlog
from worker.dispatch import Job
from worker.errors import DatabaseError
from worker.rejections import Rejections, clean_text
from worker.routing import choose_route
from worker.runtime import Runtime
from worker.spool_files import SpoolFiles
from worker.store import door, intake, retention
from worker.store.intake import AssociationRow, NewImage, Outcome, Recorded
from worker.store.studies import StudyContent

log = structlog.get_logger(__name__)
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
"""PS3.4 table B.2-1: success; refused, out of resources; error, data set does not match SOP class."""
_LARGEST = 2**31 - 1
"""PostgreSQL's `integer`; an IS of twelve digits (PS3.5 table 6.2-1) may be more."""
_REQUESTED = {"STAT": 0, "HIGH": 1, "MEDIUM": 2, "ROUTINE": 2, "LOW": 3}
_DIMSE = {1: 1, 0: 2, 2: 3}
"""(0040,1003) and (0000,0700), PS3.7 table E.1-1 (HIGH 1, MEDIUM 0, LOW 2), to 0 (at once) … 3 (any time)."""


class Intake:
    """What the listener reports to: makes objects and rejections into rows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reserve_bytes = runtime.settings.spool.reserve_mb * 1_000_000
        self._rejections = Rejections(runtime.database)
        self._backlog = Backlog(runtime)

    def pressure(self) -> DicomIoError | None:
        """Why nothing can be taken in now; the sender keeps it and tries again (0xA700)."""
        if self._runtime.spool.free_bytes() < self._reserve_bytes:
            return SpoolFullError("the disk reserve is reached; free space or lower [spool] reserve_mb")
        return self._backlog.problem()

    def association_opened(self, caller: Caller) -> None:
        """Nothing is stored before the first object: a probe costs no row."""
        log.debug("association_opened", calling_ae=caller.calling_ae, association=caller.association_id)

    def object_received(self, received: ReceivedObject) -> int:
        """Store the object durably and return the DIMSE status."""
        started = time.perf_counter()
        runtime = self._runtime
        if (refusal := self.pressure()) is not None:
            raise refusal
        header = read_header(received.path)
        if header.sop_instance_uid != received.sop_instance_uid:
            raise MismatchError
        spooled = runtime.spool.place(received.path)
        try:
            recorded = store(runtime, header, spooled, received.caller, received.dimse_priority)
        except DatabaseError as error:
            # The sender keeps the object and tries again; the file waits for it, or for the sweep.
            log.error("row_not_written", sop_instance_uid=header.sop_instance_uid, error=str(error))
            return OUT_OF_RESOURCES
        self._rejections.object_stored(received.caller)
        log.info(
            "object_stored",
            sop_instance_uid=header.sop_instance_uid,
            study_instance_uid=header.study_instance_uid,
            outcome=str(recorded.outcome),
            instance=recorded.instance_id,
            ms=round((time.perf_counter() - started) * 1000, 1),
        )
        return SUCCESS

    def association_closed(self, caller: Caller, outcome: str) -> None:
        """End the association's row, if it stored anything, and report the studies that this completes."""
        self._rejections.association_closed(caller)
        try:
            _close(self._runtime, caller.association_id, outcome)
        except DatabaseError as error:
            # An association that counts as open keeps its studies open: `close_left` tries again.
            self._runtime.unclosed_associations[caller.association_id] = outcome
            log.error("association_not_closed", association=caller.association_id, error=str(error))

    def turned_away(self, rejection: TurnedAway) -> None:
        """Record what was not accepted."""
        self._rejections.add(rejection)


def close_left(runtime: Runtime) -> None:
    """End the associations whose end could not be written when it came.

    Raises:
        DatabaseError: Nor can it be now.
    """
    for association_id, outcome in list(runtime.unclosed_associations.items()):
        _close(runtime, association_id, outcome)
        del runtime.unclosed_associations[association_id]


def _close(runtime: Runtime, association_id: str, outcome: str) -> None:
    closed = runtime.database.write(door.association_closed, association_id, outcome, runtime.closing_policy)
    for study_id, priority in closed:
        log.info("study_closed", study=study_id, by="association")
        runtime.dispatcher.wake(Job.REPORT, study_id, priority)


class MismatchError(UnreadableObjectError):
    """The data set's SOP instance UID is not the one that the C-STORE request announced."""

    status = MISMATCH
    reason_code = "SOP_INSTANCE_MISMATCH"

    def __init__(self) -> None:
        super().__init__("the data set's SOP instance UID differs from the request's")


def store(
    runtime: Runtime, header: FundusHeader, spooled: SpooledFile, caller: Caller, dimse_priority: int
) -> Recorded:
    """Make a spooled file durable together with its row, and wake its analysis.

    Raises:
        DatabaseError: The row was not written; the file, if it stays, is found by the sweep.
        SpoolFullError: The file could not be synced.
        SpoolDamagedError: Somebody removed the file meanwhile.
    """
    image = new_image(runtime, header, spooled, caller, dimse_priority)
    committed = runtime.database.submit(intake.record, image, runtime.closing_policy)
    runtime.spool.sync(spooled)
    recorded = committed.result()
    if not runtime.spool.path(spooled.relative_path).exists():
        raise SpoolDamagedError(f"{spooled.relative_path} vanished while it was stored")
    if recorded.outcome in (Outcome.UID_CONFLICT, Outcome.KEPT_ASIDE):
        runtime.spool.quarantine(spooled)
        log.error("uid_conflict", sop_instance_uid=header.sop_instance_uid, study=recorded.study_id)
    if recorded.outcome is Outcome.LATE_RETRY:
        log.warning("late_retry_ignored", sop_instance_uid=header.sop_instance_uid, study=recorded.study_id)
    if recorded.outcome is not Outcome.NEW:
        _say_that_it_is_back(runtime, spooled, recorded.outcome)
    if recorded.analyse:
        runtime.dispatcher.wake(Job.ANALYSE, recorded.instance_id, recorded.priority)
    return recorded


def _say_that_it_is_back(runtime: Runtime, spooled: SpooledFile, outcome: Outcome) -> None:
    """The file of these bytes may have been removed under the retention rules: now it is there again."""
    path = spooled.relative_path
    if outcome in (Outcome.UID_CONFLICT, Outcome.KEPT_ASIDE):
        path = f"quarantine/{spooled.sha256}.dcm"
    if not runtime.database.read(retention.is_removed, path):
        return
    files = SpoolFiles(runtime.spool, runtime.namespace)
    if not runtime.database.write(retention.came_back, path, files):
        raise SpoolDamagedError(f"{path} was removed under the retention rules while it was stored")
    log.info("removed_file_received_again", file=path)


def adopt(runtime: Runtime, header: FundusHeader, spooled: SpooledFile) -> Recorded | None:
    """Make a file that lies in the spool without a row into an image; None when its UID is known already."""
    image = new_image(runtime, header, spooled, caller=None, dimse_priority=0)
    # There is no association whose end could close its study.
    policy = replace(runtime.closing_policy, close_on="quiet")
    runtime.spool.sync(spooled)
    recorded = runtime.database.write(intake.adopt, image, policy)
    if recorded is not None:
        runtime.dispatcher.wake(Job.ANALYSE, recorded.instance_id, recorded.priority)
    return recorded


def new_image(
    runtime: Runtime, header: FundusHeader, spooled: SpooledFile, caller: Caller | None, dimse_priority: int
) -> NewImage:
    """Tag the camera, choose the route, and gather what the row needs."""
    calling_ae = "" if caller is None else clean_text(caller.calling_ae, 16)
    match = runtime.rules.match(header, calling_ae)
    if caller is None and runtime.rules.ask_for_calling_ae:
        # Nobody knows which rule would have matched; the next copy from its sender tells.
        match = CameraMatch(None, exact=False, rule=None)
    manifest = runtime.bundle.manifest
    route, adapter = choose_route(match, manifest.training_camera, manifest.adapters)
    return NewImage(
        study=StudyContent(
            study_instance_uid=header.study_instance_uid,
            accession_number=clean_text(header.accession_number, 64) or None,
            patient_key=runtime.identity.pseudonym(header.patient),
            priority=_REQUESTED.get(header.requested_priority, _DIMSE.get(dimse_priority, 2)),
            related_instances=min(header.related_instances or 0, _LARGEST) or None,
        ),
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=spooled.sha256,
        pixel_sha256=header.pixel_sha256,
        spool_path=spooled.relative_path,
        quarantine_path=f"quarantine/{spooled.sha256}.dcm",
        size_bytes=spooled.size_bytes,
        number_of_frames=min(header.number_of_frames, _LARGEST),
        rows=header.rows,
        columns=header.columns,
        manufacturer=clean_text(header.manufacturer, 64),
        model_name=clean_text(header.model_name, 64),
        camera=None if match.camera is None else match.camera[:48],
        camera_exact=match.exact,
        camera_rule=match.rule,
        route=route,
        adapter=adapter,
        lateralities=tuple((reading.value, reading.reason_code) for reading in header.laterality),
        issuer_key=runtime.identity.issuer_pseudonym(header.patient_context),
        header_key=runtime.identity.header_key(decisive_content(header)),
        calling_ae=calling_ae,
        association=None if caller is None else _association(runtime, caller),
    )


def _association(runtime: Runtime, caller: Caller) -> AssociationRow:
    return AssociationRow(
        caller.association_id,
        runtime.process_id,
        clean_text(caller.calling_ae, 16),
        clean_text(caller.called_ae, 16),
        clean_text(caller.host, 64),
    )
