"""Revisions of a study's report, and the eye results each of them states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, insert, select, update
from sqlalchemy.exc import IntegrityError

from worker.errors import ClaimLostError
from worker.schema import (
    Bundle,
    Delivery,
    DeliveryState,
    EyeResult,
    Finding,
    HeaderVersion,
    Instance,
    InstanceState,
    Report,
    ReportState,
    db_now,
)
from worker.store import documents, studies
from worker.store.documents import PlannedDocument
from worker.store.studies import StudyClaim


@dataclass(frozen=True)
class ImageRow:
    """One instance (and frame, once analysed) as the report sees it."""

    instance_id: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    spool_path: str
    sha256: str
    header_version: int
    number_of_frames: int
    state: str
    instance_reason: str | None
    camera: str | None
    route: str
    adapter: str | None
    lateralities: list[Any]
    frame_number: int | None
    laterality: str | None
    laterality_reason: str | None
    grade: int | None
    grade_label: str | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    finding_reason: str | None
    calling_ae: str = ""


@dataclass(frozen=True)
class ReportRow:
    """A revision of a report."""

    id: int
    revision: int
    inputs_hash: str
    state: str
    partial: bool
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    predecessor_id: int | None
    created_at: datetime
    sha256: str | None
    """Of the file; None before it is written, and when it was found lost or altered."""


@dataclass(frozen=True)
class EyeRow:
    """What a report says of one eye; the columns of `eye_results` of the same names."""

    laterality: str
    grade: int | None
    grade_label: str | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None
    images: int
    images_used: int


@dataclass(frozen=True)
class DestinationRow:
    """Where a report has to go."""

    name: str
    required: bool


def bundle_key(
    tx: Connection, *, bundle_id: str, version: str, digest: str, training_camera: str, activate: bool
) -> int:
    """Return the key of the bundle's row, made on first use; `activate` makes it the only active one."""
    known = select(Bundle.id).where(Bundle.digest == digest)
    key = tx.scalar(known)
    if key is None:
        values = {
            "bundle_id": bundle_id,
            "version": version,
            "digest": digest,
            "training_camera": training_camera,
            "active": activate,
            "first_seen_at": db_now(),
        }
        try:
            with tx.begin_nested():
                key = tx.execute(insert(Bundle).values(values).returning(Bundle.id)).scalar_one()
        except IntegrityError:  # another process that starts now was first
            key = tx.execute(known).scalar_one()
    if activate:
        activate_bundle(tx, int(key))
    return int(key)


def activate_bundle(tx: Connection, key: int) -> None:
    """Make the bundle the only active one."""
    tx.execute(update(Bundle).where(Bundle.id != key, Bundle.active).values(active=False))
    tx.execute(update(Bundle).where(Bundle.id == key, ~Bundle.active).values(active=True))


def images(tx: Connection, study_id: int, bundle_pk: int) -> list[ImageRow]:
    """Return every image of the study with this bundle's findings, in a fixed order (UID, frame)."""
    statement = (
        select(
            Instance.id.label("instance_id"),
            Instance.sop_class_uid,
            Instance.sop_instance_uid,
            Instance.series_instance_uid,
            Instance.spool_path,
            Instance.sha256,
            Instance.header_version,
            Instance.number_of_frames,
            Instance.state,
            Instance.reason_code.label("instance_reason"),
            Instance.camera,
            Instance.route,
            Instance.adapter,
            Instance.lateralities,
            Finding.frame_number,
            Finding.laterality,
            Finding.laterality_reason,
            Finding.grade,
            Finding.grade_label,
            Finding.referable,
            Finding.referable_probability,
            Finding.certainty,
            Finding.quality,
            Finding.reason_code.label("finding_reason"),
            Instance.calling_ae,
        )
        .select_from(Instance)
        .outerjoin(
            Finding,
            (Finding.instance_id == Instance.id)
            & (Finding.bundle_pk == bundle_pk)
            & (Instance.state == InstanceState.ANALYSED),
        )
        .where(Instance.study_id == study_id)
        .order_by(Instance.sop_instance_uid, Finding.frame_number)
    )
    return [ImageRow(**row._asdict()) for row in tx.execute(statement)]


def missing_findings(tx: Connection, study_id: int, bundle_pk: int) -> list[int]:
    """Return analysed instances of the study that this bundle has not read (the bundle was changed)."""
    has = (
        select(Finding.id).where(Finding.instance_id == Instance.id, Finding.bundle_pk == bundle_pk).exists()
    )
    statement = select(Instance.id).where(
        Instance.study_id == study_id, Instance.state == InstanceState.ANALYSED, ~has
    )
    return list(tx.scalars(statement))


def header_digests(tx: Connection, study_id: int) -> list[str]:
    """Return the SHA-256 of every header version of the study, in order of arrival."""
    statement = select(HeaderVersion.sha256).where(HeaderVersion.study_id == study_id)
    return list(tx.scalars(statement.order_by(HeaderVersion.id)))


def _row(row: Any) -> ReportRow:
    return ReportRow(**row._asdict())


_COLUMNS = (
    Report.id,
    Report.revision,
    Report.inputs_hash,
    Report.state,
    Report.partial,
    Report.sop_class_uid,
    Report.sop_instance_uid,
    Report.series_instance_uid,
    Report.study_instance_uid,
    Report.predecessor_id,
    Report.created_at,
    Report.sha256,
)


def latest(tx: Connection, study_id: int, bundle_pk: int) -> ReportRow | None:
    """Return the newest revision, written or not."""
    statement = select(*_COLUMNS).where(Report.study_id == study_id, Report.bundle_pk == bundle_pk)
    row = tx.execute(statement.order_by(Report.revision.desc()).limit(1)).one_or_none()
    return None if row is None else _row(row)


def newest_written(tx: Connection, study_id: int) -> ReportRow | None:
    """Return the revision that destinations hold as valid, whichever bundle it is of.

    The current one, else the one written last: it may be superseded without a successor (`retire`). Not the
    highest id: a revision that was begun early may have been finished late.
    """
    statement = select(*_COLUMNS).where(Report.study_id == study_id, Report.state != ReportState.PENDING)
    current_first = case((Report.state == ReportState.WRITTEN, 0), else_=1)
    newest = statement.order_by(current_first, Report.written_at.desc(), Report.id.desc())
    row = tx.execute(newest.limit(1)).one_or_none()
    return None if row is None else _row(row)


def by_id(tx: Connection, report_id: int) -> ReportRow:
    """Return one revision."""
    return _row(tx.execute(select(*_COLUMNS).where(Report.id == report_id)).one())


def path_of(tx: Connection, sop_instance_uid: str) -> str | None:
    """Return where the file of an image is, or was."""
    return tx.scalar(select(Instance.spool_path).where(Instance.sop_instance_uid == sop_instance_uid))


def begin(tx: Connection, claimed: StudyClaim, values: dict[str, Any], replaces: int | None) -> ReportRow:
    """Make the PENDING row of a revision; `replaces` is a PENDING row of an attempt that did not end.

    Raises:
        ClaimLostError: Somebody else took the study over; nothing is written.
    """
    if not studies.holds(tx, claimed):
        raise ClaimLostError(f"the claim on study {claimed.study_instance_uid} was lost")
    if replaces is not None:
        tx.execute(
            update(Report).where(Report.id == replaces, Report.state == ReportState.PENDING).values(values)
        )
        return by_id(tx, replaces)
    row = {
        **values,
        "study_id": claimed.study_id,
        "study_instance_uid": claimed.study_instance_uid,
        "state": ReportState.PENDING,
        "created_at": db_now(),
    }
    key = tx.execute(insert(Report).values(row).returning(Report.id)).scalar_one()
    return by_id(tx, int(key))


def finish(
    tx: Connection,
    claimed: StudyClaim,
    report: ReportRow,
    *,
    spool_path: str,
    sha256: str,
    eyes: Sequence[EyeRow],
    destinations: Sequence[DestinationRow],
    planned: Sequence[PlannedDocument] = (),
) -> None:
    """Make the revision the current one, with its eye results, deliveries and planned documents, at once.

    Raises:
        ClaimLostError: Somebody else took the study over, or something came in meanwhile that the report
            does not know; nothing is written.
    """
    if not studies.is_current(tx, claimed) or not studies.reported(tx, claimed):
        raise ClaimLostError(f"study {claimed.study_instance_uid} was taken over or has changed")
    if report.predecessor_id is not None:
        _supersede(tx, report.predecessor_id)
    written = update(Report).where(Report.id == report.id, Report.state == ReportState.PENDING)
    tx.execute(
        written.values(
            state=ReportState.WRITTEN,
            spool_path=spool_path,
            sha256=sha256,
            content_version=claimed.content_version,
            written_at=db_now(),
        )
    )
    for eye in eyes:
        tx.execute(insert(EyeResult).values(report_id=report.id, **asdict(eye)))
    for destination in destinations:
        tx.execute(insert(Delivery).values(delivery_values(report.id, destination)))
    documents.plan(tx, report.id, planned)


def delivery_values(report_id: int, destination: DestinationRow) -> dict[str, Any]:
    """Return the columns of a delivery that is due now."""
    return {
        "report_id": report_id,
        "destination": destination.name,
        "required": destination.required,
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "due_at": db_now(),
        "created_at": db_now(),
    }


def confirm(tx: Connection, claimed: StudyClaim, report: ReportRow) -> None:
    """The current revision says all that there is to say of the study as it is now."""
    if studies.reported(tx, claimed):
        tx.execute(
            update(Report).where(Report.id == report.id).values(content_version=claimed.content_version)
        )


def retire(tx: Connection, claimed: StudyClaim) -> bool:
    """Withdraw the report of a study that has no image left; return whether a destination has it.

    What was not sent is not sent any more. What was delivered stands at the destination and rests on nothing:
    the study is withheld with STUDY_EMPTIED, so that a person sees to it.

    Raises:
        ClaimLostError: Somebody else took the study over, or something came in meanwhile; nothing is written.
    """
    if not studies.is_current(tx, claimed) or not studies.reported(tx, claimed):
        raise ClaimLostError(f"study {claimed.study_instance_uid} was taken over or has changed")
    written = select(Report.id).where(Report.study_id == claimed.study_id)
    for report_id in tx.scalars(written.where(Report.state == ReportState.WRITTEN)).all():
        _supersede(tx, report_id)
    has_it = (DeliveryState.ACCEPTED, DeliveryState.COMMITTED)
    delivered = select(Delivery.id).where(Delivery.report_id.in_(written), Delivery.state.in_(has_it))
    if tx.scalar(delivered.limit(1)) is None:
        return False
    studies.mark_emptied(tx, claimed.study_id)
    return True


def damaged(tx: Connection, report_id: int) -> bool:
    """The file of a current revision is lost or altered: have it replaced; False when known already."""
    statement = (
        update(Report)
        .where(Report.id == report_id, Report.state == ReportState.WRITTEN, Report.sha256.is_not(None))
        .values(sha256=None)
        .returning(Report.study_id)
    )
    study_id = tx.execute(statement).scalar_one_or_none()
    if study_id is None:
        return False
    studies.reopen_for_report(tx, [study_id])
    return True


def _supersede(tx: Connection, report_id: int) -> None:
    """Retire a revision; a copy of it that was never sent is not sent any more."""
    tx.execute(update(Report).where(Report.id == report_id).values(state=ReportState.SUPERSEDED))
    unsent = (DeliveryState.PENDING, DeliveryState.DEAD)
    tx.execute(
        update(Delivery)
        .where(Delivery.report_id == report_id, Delivery.state.in_(unsent))
        .values(state=DeliveryState.SUPERSEDED)
    )
    documents.supersede(tx, report_id)
