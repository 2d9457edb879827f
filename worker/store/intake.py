"""What a received object becomes: a new image, the same again, a new header, or a conflict.

Identical bytes again change nothing. The same pixels under another header are a new header version: the
findings stay, the report is revised when side, patient, study or camera changed. Other pixels under a UID
that is taken are kept in quarantine and the report is withheld: one is wrong, nobody can tell which.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, insert, select, update
from sqlalchemy.exc import IntegrityError

from worker.schema import (
    Association,
    AssociationStudy,
    Finding,
    HeaderVersion,
    Instance,
    InstanceState,
    Quarantined,
    Study,
    db_now,
)
from worker.store import studies
from worker.store.studies import ClosingPolicy, StudyContent


@dataclass(frozen=True)
class AssociationRow:
    """The association an object came over."""

    id: str
    process_id: str
    calling_ae: str
    called_ae: str
    peer_host: str


@dataclass(frozen=True)
class NewImage:
    """A received object, ready for its row. Lateralities: one (value, reason) a frame."""

    study: StudyContent
    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    pixel_sha256: str | None
    spool_path: str
    quarantine_path: str
    size_bytes: int
    number_of_frames: int
    rows: int
    columns: int
    manufacturer: str
    model_name: str
    camera: str | None
    camera_exact: bool
    camera_rule: str | None
    route: str
    adapter: str | None
    lateralities: tuple[tuple[str | None, str | None], ...]
    calling_ae: str
    association: AssociationRow | None


class Outcome(StrEnum):
    """What the object turned out to be."""

    NEW = "NEW"
    IDENTICAL = "IDENTICAL"
    NEW_HEADER = "NEW_HEADER"
    UID_CONFLICT = "UID_CONFLICT"


@dataclass(frozen=True)
class Recorded:
    """The row an object led to; `analyse` says whether it has to be (re-)analysed now."""

    outcome: Outcome
    instance_id: int
    study_id: int
    priority: int
    analyse: bool


def record(tx: Connection, image: NewImage, policy: ClosingPolicy) -> Recorded:
    """Record one object in the state its identity calls for."""
    existing = _find(tx, image.sop_instance_uid)
    if existing is None:
        try:
            with tx.begin_nested():
                return _record_new(tx, image, policy)
        except IntegrityError:
            # The same object came over two associations at once, and the other was faster.
            existing = _find(tx, image.sop_instance_uid)
            if existing is None:
                raise
    if _is_known(tx, existing.id, image.sha256):
        return _record_identical(tx, existing, image, policy)
    if image.pixel_sha256 is not None and image.pixel_sha256 == existing.pixel_sha256:
        return _record_header(tx, existing, image, policy)
    return _record_conflict(tx, existing, image, policy)


def _find(tx: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Return the instance, locked: two objects of one UID that come at once are taken one after the other."""
    return tx.execute(
        select(Instance.__table__).where(Instance.sop_instance_uid == sop_instance_uid).with_for_update()
    ).one_or_none()


def _is_known(tx: Connection, instance_id: int, sha256: str) -> bool:
    header = select(HeaderVersion.id).where(
        HeaderVersion.instance_id == instance_id, HeaderVersion.sha256 == sha256
    )
    aside = select(Quarantined.id).where(Quarantined.instance_id == instance_id, Quarantined.sha256 == sha256)
    return tx.scalar(header) is not None or tx.scalar(aside) is not None


def _header_values(image: NewImage, study_id: int) -> dict[str, Any]:
    """Return the columns of an instance that its header decides."""
    return {
        "study_id": study_id,
        "series_instance_uid": image.series_instance_uid,
        "sop_class_uid": image.sop_class_uid,
        "transfer_syntax_uid": image.transfer_syntax_uid,
        "sha256": image.sha256,
        "spool_path": image.spool_path,
        "size_bytes": image.size_bytes,
        "number_of_frames": image.number_of_frames,
        "rows": image.rows,
        "columns": image.columns,
        "manufacturer": image.manufacturer,
        "model_name": image.model_name,
        "camera": image.camera,
        "camera_exact": image.camera_exact,
        "camera_rule": image.camera_rule,
        "route": image.route,
        "adapter": image.adapter,
        "lateralities": _listed(image),
        "patient_key": image.study.patient_key,
        "content_version": _content_version(study_id),
    }


def _content_version(study_id: int) -> ScalarSelect[int]:
    """The study's content version as it is now: the first that has an image as it came in last."""
    return select(Study.content_version).where(Study.id == study_id).scalar_subquery()


def _listed(image: NewImage) -> list[Any]:
    return [list(each) for each in image.lateralities]


def _record_new(tx: Connection, image: NewImage, policy: ClosingPolicy) -> Recorded:
    study_id = studies.touch(tx, image.study, policy)
    values = {
        **_header_values(image, study_id),
        "sop_instance_uid": image.sop_instance_uid,
        "header_version": 1,
        "pixel_sha256": image.pixel_sha256,
        "calling_ae": image.calling_ae,
        "association_id": None if image.association is None else image.association.id,
        "priority": image.study.priority,
        "received_at": db_now(),
        "state": InstanceState.RECEIVED,
        "uid_conflict": False,
        "attempts": 0,
        "claims": 0,
        "due_at": db_now(),
    }
    instance_id = int(tx.execute(insert(Instance).values(values).returning(Instance.id)).scalar_one())
    _add_header_version(tx, instance_id, 1, image, study_id)
    _link_association(tx, image.association, study_id)
    studies.settle_content(tx, study_id, policy)
    return Recorded(Outcome.NEW, instance_id, study_id, image.study.priority, analyse=True)


_ANALYSE_ANEW: dict[str, Any] = {
    "state": InstanceState.RECEIVED,
    "reason_code": None,
    "reason_detail": None,
    "due_at": db_now(),
    "attempts": 0,
    "claims": 0,
    "claim_owner": None,
    "claim_token": None,
    "claim_expires_at": None,
}


def _record_identical(tx: Connection, existing: Row[Any], image: NewImage, policy: ClosingPolicy) -> Recorded:
    """Change nothing, unless the copy we had was damaged: then this one heals it."""
    healed = existing.state == InstanceState.REFUSED and existing.reason_code == "SPOOL_FILE_DAMAGED"
    if healed:
        studies.reopen_for_report(tx, [existing.study_id], policy.report_deadline_s)
        values = {**_ANALYSE_ANEW, "content_version": _content_version(existing.study_id)}
        tx.execute(update(Instance).where(Instance.id == existing.id).values(values))
    _link_association(tx, image.association, existing.study_id)
    return Recorded(Outcome.IDENTICAL, existing.id, existing.study_id, existing.priority, analyse=healed)


def _record_header(tx: Connection, existing: Row[Any], image: NewImage, policy: ClosingPolicy) -> Recorded:
    version = existing.header_version + 1
    analyse = existing.state == InstanceState.REFUSED or _reads_differently(existing, image)
    matters = (
        analyse
        or _study_changed(tx, existing, image)
        or existing.patient_key != image.study.patient_key
        or existing.lateralities != _listed(image)
    )
    study_id = studies.touch(tx, image.study, policy) if matters else existing.study_id
    values: dict[str, Any] = {**_header_values(image, study_id), "header_version": version}
    if analyse:
        values |= _ANALYSE_ANEW
    tx.execute(update(Instance).where(Instance.id == existing.id).values(values))
    _move_findings_side(tx, existing.id, image)
    _add_header_version(tx, existing.id, version, image, study_id)
    _link_association(tx, image.association, study_id)
    for touched in {study_id, existing.study_id}:
        studies.settle_content(tx, touched, policy)
    if study_id != existing.study_id:
        studies.reopen_for_report(tx, [existing.study_id], policy.report_deadline_s)
    return Recorded(Outcome.NEW_HEADER, existing.id, study_id, image.study.priority, analyse=analyse)


_READING = (
    "camera",
    "camera_exact",
    "route",
    "adapter",
    "sop_class_uid",
    "transfer_syntax_uid",
    "number_of_frames",
    "rows",
    "columns",
)


def _reads_differently(existing: Row[Any], image: NewImage) -> bool:
    """Say whether the new header leads to another reading of the same pixels."""
    return any(getattr(existing, name) != getattr(image, name) for name in _READING)


def _study_changed(tx: Connection, existing: Row[Any], image: NewImage) -> bool:
    """Say whether the object now belongs to another study, or to the same under another accession number."""
    known = tx.execute(
        select(Study.study_instance_uid, Study.accession_number).where(Study.id == existing.study_id)
    ).one()
    stated = image.study.accession_number
    return known.study_instance_uid != image.study.study_instance_uid or (
        stated is not None and stated != known.accession_number
    )


def _move_findings_side(tx: Connection, instance_id: int, image: NewImage) -> None:
    """Findings keep what was read and take the side that the newest header states."""
    for number, (value, reason) in enumerate(image.lateralities, start=1):
        tx.execute(
            update(Finding)
            .where(Finding.instance_id == instance_id, Finding.frame_number == number)
            .values(laterality=value, laterality_reason=reason)
        )


def _record_conflict(tx: Connection, existing: Row[Any], image: NewImage, policy: ClosingPolicy) -> Recorded:
    values = {
        "instance_id": existing.id,
        "sha256": image.sha256,
        "spool_path": image.quarantine_path,
        "reason_code": "UID_CONFLICT",
        "calling_ae": image.calling_ae,
        "received_at": db_now(),
    }
    tx.execute(insert(Quarantined).values(values))
    tx.execute(update(Instance).where(Instance.id == existing.id).values(uid_conflict=True))
    studies.settle_content(tx, existing.study_id, policy)
    _link_association(tx, image.association, existing.study_id)
    return Recorded(Outcome.UID_CONFLICT, existing.id, existing.study_id, existing.priority, analyse=False)


def _add_header_version(
    tx: Connection, instance_id: int, version: int, image: NewImage, study_id: int
) -> None:
    values = {
        "instance_id": instance_id,
        "version": version,
        "sha256": image.sha256,
        "spool_path": image.spool_path,
        "study_id": study_id,
        "patient_key": image.study.patient_key,
        "lateralities": _listed(image),
        "received_at": db_now(),
    }
    tx.execute(insert(HeaderVersion).values(values))


def _link_association(tx: Connection, association: AssociationRow | None, study_id: int) -> None:
    """Remember that the association touched the study; its row is made with its first object."""
    if association is None:
        return
    if tx.scalar(select(Association.id).where(Association.id == association.id)) is None:
        values = {
            "id": association.id,
            "process_id": association.process_id,
            "calling_ae": association.calling_ae,
            "called_ae": association.called_ae,
            "peer_host": association.peer_host,
            "opened_at": db_now(),
        }
        tx.execute(insert(Association).values(values))
    link = (AssociationStudy.association_id == association.id, AssociationStudy.study_id == study_id)
    if tx.scalar(select(AssociationStudy.study_id).where(*link)) is None:
        tx.execute(insert(AssociationStudy).values(association_id=association.id, study_id=study_id))
