"""What a received object becomes: a new image, the same again, a new header, or a conflict.

The bytes of the current header version again change nothing. The same pixels under another header are a new
header version, an earlier version that comes again too: it takes a correction back. When the header differs
in anything that the analysis or the report depends on, the image is analysed anew and the report revised.
An earlier version whose sender may not have learnt that we have it is a retry, and takes back nothing.
Other pixels under a UID that is taken are kept in quarantine and the report is withheld, also that of the
study which they name: one is wrong, and nobody but a person can tell which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from worker.schema import (
    Association,
    AssociationStudy,
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
    issuer_key: str | None
    header_key: str
    calling_ae: str
    association: AssociationRow | None


class Outcome(StrEnum):
    """What the object turned out to be."""

    NEW = "NEW"
    IDENTICAL = "IDENTICAL"
    NEW_HEADER = "NEW_HEADER"
    UID_CONFLICT = "UID_CONFLICT"
    LATE_RETRY = "LATE_RETRY"
    """The bytes of an earlier header version, sent again because their sender may not have been answered."""
    KEPT_ASIDE = "KEPT_ASIDE"
    """The bytes of an object that is in quarantine already."""


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
        recorded = _insert(tx, image, policy)
        if isinstance(recorded, Recorded):
            return recorded
        existing = recorded
    if image.sha256 == existing.sha256:
        return _record_identical(tx, existing, image, policy)
    if _is_aside(tx, existing.id, image.sha256):
        _link_association(tx, image.association, existing.study_id)
        return _recorded(Outcome.KEPT_ASIDE, existing)
    if _is_retry(tx, existing, image):
        _link_association(tx, image.association, existing.study_id)
        return _recorded(Outcome.LATE_RETRY, existing)
    if image.pixel_sha256 is not None and image.pixel_sha256 == existing.pixel_sha256:
        return _record_header(tx, existing, image, policy)
    return _record_conflict(tx, existing, image, policy)


def adopt(tx: Connection, image: NewImage, policy: ClosingPolicy) -> Recorded | None:
    """Record an object whose sender was never told that we have it; None when its UID is known.

    It may be older than what is known by that UID, so that it must neither correct nor contradict it.
    """
    if _find(tx, image.sop_instance_uid) is not None:
        return None
    recorded = _insert(tx, image, policy)
    return recorded if isinstance(recorded, Recorded) else None


def _insert(tx: Connection, image: NewImage, policy: ClosingPolicy) -> Recorded | Row[Any]:
    """Record a new object; return the row of the same object when it came over another association first."""
    try:
        with tx.begin_nested():
            return _record_new(tx, image, policy)
    except IntegrityError:
        existing = _find(tx, image.sop_instance_uid)
        if existing is None:
            raise
        return existing


def _find(tx: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Return the instance, locked: two objects of one UID that come at once are taken one after the other."""
    return tx.execute(
        select(Instance.__table__).where(Instance.sop_instance_uid == sop_instance_uid).with_for_update()
    ).one_or_none()


def _is_aside(tx: Connection, instance_id: int, sha256: str) -> bool:
    aside = select(Quarantined.id).where(Quarantined.instance_id == instance_id, Quarantined.sha256 == sha256)
    return tx.scalar(aside) is not None


def _is_retry(tx: Connection, existing: Row[Any], image: NewImage) -> bool:
    """Whether these are bytes that we have, from a sender that may not know it (decision 0010).

    A sender that released the association, or went on with the next object over it, was told. One whose
    association ended otherwise, or is still open, sends again what it was not told of: that is no correction.
    """
    version = _last_version(tx, existing.id, image.sha256)
    if version is None or image.association is None or version.association_id == image.association.id:
        return False
    if version.association_id is not None:
        earlier = select(Association.outcome).where(Association.id == version.association_id)
        ended = tx.execute(earlier).one_or_none()
        if ended is None or ended.outcome == "RELEASED":  # None: forgotten, long ago
            return False
    _came_over(tx, version.id, image.association)
    return True


def _last_version(tx: Connection, instance_id: int, sha256: str) -> Row[Any] | None:
    """Return the newest header version of these bytes."""
    same = select(HeaderVersion.__table__).where(
        HeaderVersion.instance_id == instance_id, HeaderVersion.sha256 == sha256
    )
    return tx.execute(same.order_by(HeaderVersion.id.desc()).limit(1)).one_or_none()


def _came_over(tx: Connection, version_id: int, association: AssociationRow) -> None:
    """Remember over which association the bytes of a header version came last."""
    came = update(HeaderVersion).where(HeaderVersion.id == version_id)
    tx.execute(came.values(association_id=association.id))


def _recorded(outcome: Outcome, existing: Row[Any], *, analyse: bool = False) -> Recorded:
    return Recorded(outcome, existing.id, existing.study_id, existing.priority, analyse)


def _camera_values(image: NewImage) -> dict[str, Any]:
    """Return the columns that header and calling AE decide together."""
    return {
        "camera": image.camera,
        "camera_exact": image.camera_exact,
        "camera_rule": image.camera_rule,
        "route": image.route,
        "adapter": image.adapter,
        "calling_ae": image.calling_ae,
    }


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
        "lateralities": _listed(image),
        "patient_key": image.study.patient_key,
        "issuer_key": image.issuer_key,
        "header_key": image.header_key,
        **_camera_values(image),
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


_WITHOUT_FILE = ("SPOOL_FILE_DAMAGED", "FILE_PURGED")
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
    """Change nothing, unless our copy was damaged, or was adopted when nobody knew which AE had sent it."""
    values: dict[str, Any] = {}
    if image.calling_ae and not existing.calling_ae:
        values = _camera_values(image)
    healed = existing.state == InstanceState.REFUSED and existing.reason_code in _WITHOUT_FILE
    analyse = healed or (bool(values) and _camera_changed(existing, image))
    if analyse:
        studies.reopen_for_report(tx, [existing.study_id], policy.report_deadline_s)
        values |= {**_ANALYSE_ANEW, "content_version": _content_version(existing.study_id)}
    if values:
        tx.execute(update(Instance).where(Instance.id == existing.id).values(values))
    version = _last_version(tx, existing.id, image.sha256)
    if version is not None and image.association is not None:
        _came_over(tx, version.id, image.association)
    _link_association(tx, image.association, existing.study_id)
    return _recorded(Outcome.IDENTICAL, existing, analyse=analyse)


def _record_header(tx: Connection, existing: Row[Any], image: NewImage, policy: ClosingPolicy) -> Recorded:
    """Record a new header version; analyse and report anew when it says anything else than the one before."""
    version = existing.header_version + 1
    changed = (
        existing.state == InstanceState.REFUSED
        or existing.header_key != image.header_key
        or _camera_changed(existing, image)
    )
    study_id = studies.touch(tx, image.study, policy) if changed else existing.study_id
    values: dict[str, Any] = {**_header_values(image, study_id), "header_version": version}
    if changed:
        values |= _ANALYSE_ANEW
    tx.execute(update(Instance).where(Instance.id == existing.id).values(values))
    _add_header_version(tx, existing.id, version, image, study_id)
    _link_association(tx, image.association, study_id)
    for touched in sorted({study_id, existing.study_id}):
        studies.settle_content(tx, touched, policy)
    if study_id != existing.study_id:
        studies.reopen_for_report(tx, [existing.study_id], policy.report_deadline_s)
    return Recorded(Outcome.NEW_HEADER, existing.id, study_id, image.study.priority, analyse=changed)


def _camera_changed(existing: Row[Any], image: NewImage) -> bool:
    """Say whether the image takes another way: the calling AE has a part in that."""
    return any(
        getattr(existing, name) != getattr(image, name)
        for name in ("camera", "camera_exact", "route", "adapter")
    )


def _record_conflict(tx: Connection, existing: Row[Any], image: NewImage, policy: ClosingPolicy) -> Recorded:
    """Keep the object aside, and withhold the reports of both studies: either may lack its image."""
    named = _named_study(tx, existing.study_id, image, policy)
    values = {
        "instance_id": existing.id,
        "sha256": image.sha256,
        "spool_path": image.quarantine_path,
        "reason_code": "UID_CONFLICT",
        "calling_ae": image.calling_ae,
        "received_at": db_now(),
        "study_id": named,
    }
    tx.execute(insert(Quarantined).values(values))
    tx.execute(update(Instance).where(Instance.id == existing.id).values(uid_conflict=True))
    for study_id in sorted({named, existing.study_id}):
        studies.settle_content(tx, study_id, policy)
        _link_association(tx, image.association, study_id)
    return _recorded(Outcome.UID_CONFLICT, existing)


def _named_study(tx: Connection, study_id: int, image: NewImage, policy: ClosingPolicy) -> int:
    """Return the study that the object names: the instance's own, which it does not reopen, or another."""
    own = select(Study.study_instance_uid).where(Study.id == study_id)
    same = tx.scalar(own) == image.study.study_instance_uid
    return study_id if same else studies.touch(tx, image.study, policy)


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
        "association_id": None if image.association is None else image.association.id,
    }
    tx.execute(insert(HeaderVersion).values(values))


def conflicts(
    tx: Connection, *, sop_instance_uid: str | None, study_instance_uid: str | None
) -> list[tuple[int, int]]:
    """Return (id, study id) of instances in a UID conflict that match every criterion given.

    An instance is in the conflict of its own study, and of the one that the object in quarantine names.
    """
    statement = select(Instance.id, Instance.study_id).where(Instance.uid_conflict)
    if sop_instance_uid:
        statement = statement.where(Instance.sop_instance_uid == sop_instance_uid)
    if study_instance_uid:
        study = select(Study.id).where(Study.study_instance_uid == study_instance_uid).scalar_subquery()
        aside = select(Quarantined.instance_id)
        aside = aside.where(Quarantined.study_id == study, Quarantined.resolved_at.is_(None))
        statement = statement.where(or_(Instance.study_id == study, Instance.id.in_(aside)))
    return [(row.id, row.study_id) for row in tx.execute(statement.order_by(Instance.id))]


def keep_first(tx: Connection, found: Sequence[tuple[int, int]], policy: ClosingPolicy) -> int:
    """End UID conflicts: a person decided that the object that came first counts. Return how many.

    What is in quarantine stays there, as a record; the same bytes again change nothing. The studies are
    reported.

    Args:
        tx: The transaction.
        found: (id, study id) of the instances, as `conflicts` returns them.
        policy: When studies close.
    """
    ids = [instance_id for instance_id, _ in found]
    standing = update(Instance).where(Instance.id.in_(ids), Instance.uid_conflict)
    ended = tx.execute(standing.values(uid_conflict=False)).rowcount
    aside = update(Quarantined).where(Quarantined.instance_id.in_(ids), Quarantined.resolved_at.is_(None))
    named = tx.scalars(aside.values(resolved_at=db_now()).returning(Quarantined.study_id)).all()
    touched = sorted({study_id for _, study_id in found} | {each for each in named if each is not None})
    for study_id in touched:
        studies.settle_content(tx, study_id, policy)
    studies.reopen_for_report(tx, touched, policy.report_deadline_s)
    return ended


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
