"""Reports on their way to destinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from worker.schema import (
    Delivery,
    DeliveryState,
    Document,
    Instance,
    Report,
    ReportState,
    Study,
    db_now,
)
from worker.store import disposable, studies
from worker.store.reports import DestinationRow, delivery_values

MISSING_DAYS = 7.0
"""A destination that is new gets the current reports of so many days."""


@dataclass(frozen=True)
class DueDelivery:
    """A report, or a document of one, that a destination should get now. `kind`: SR, PDF or OVERLAY."""

    id: int
    report_id: int
    spool_path: str
    sha256: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    attempts: int
    created_at: datetime
    kind: str


_KIND = func.coalesce(Document.kind, "SR")


def _sendable(destination: str | None = None) -> ColumnElement[bool]:
    """Due, of a current report whose file is sound, and of a study with images that nothing withholds.

    A conflict may have come after the report was written, or its images may have gone to another study. A
    study whose images cannot be read any more keeps its earlier report all the same.
    """
    conflict = and_(Study.withheld_reason.is_not(None), Study.withheld_reason != studies.FILES_DAMAGED)
    replaced = or_(Report.state != ReportState.WRITTEN, Report.sha256.is_(None))
    emptied = ~exists(select(Instance.id).where(Instance.study_id == Study.id))
    held_back = exists(
        select(Study.id)
        .join(Report, Report.study_id == Study.id)
        .where(Report.id == Delivery.report_id, or_(conflict, emptied, replaced))
    )
    due = and_(Delivery.state == DeliveryState.PENDING, Delivery.due_at <= db_now(), ~held_back)
    return due if destination is None else and_(due, Delivery.destination == destination)


def due(tx: Connection, destination: str, limit: int) -> list[DueDelivery]:
    """Return what is due for the destination, oldest first."""
    statement = (
        select(
            Delivery.id,
            Delivery.report_id,
            func.coalesce(Document.spool_path, Report.spool_path).label("spool_path"),
            func.coalesce(Document.sha256, Report.sha256).label("sha256"),
            func.coalesce(Document.sop_class_uid, Report.sop_class_uid).label("sop_class_uid"),
            func.coalesce(Document.sop_instance_uid, Report.sop_instance_uid).label("sop_instance_uid"),
            Report.study_instance_uid,
            Delivery.attempts,
            Delivery.created_at,
            _KIND.label("kind"),
        )
        .join(Report, Report.id == Delivery.report_id)
        .outerjoin(Document, Document.id == Delivery.document_id)
        .where(_sendable(destination))
        .order_by(Delivery.due_at, Delivery.id)
        .limit(limit)
    )
    return [DueDelivery(**row._asdict()) for row in tx.execute(statement)]


def due_destinations(tx: Connection) -> list[str]:
    """Return the names of destinations for which something is due."""
    return sorted(tx.scalars(select(Delivery.destination).where(_sendable()).distinct()))


def is_sendable(tx: Connection, delivery_id: int) -> bool:
    """Say whether a delivery that was due still is: its report may have been superseded or withheld since."""
    return tx.scalar(select(Delivery.id).where(Delivery.id == delivery_id, _sendable())) is not None


def destinations_of(tx: Connection, study_id: int) -> list[str]:
    """Return the destinations that any revision of a study's report was meant for."""
    statement = select(Delivery.destination).join(Report, Report.id == Delivery.report_id)
    return list(tx.scalars(statement.where(Report.study_id == study_id).distinct()))


def missing(tx: Connection, destination: str, limit: int, kept_from: Sequence[str] = ()) -> list[int]:
    """Return current reports of the last days that should go to a destination and have no row that says so.

    They were written by a process that did not know it: its configuration was older, or another. A report
    of a study of which nothing was ever meant to be sent (`--no-delivery`) is left alone, and so is one whose
    images all came from callers that are `kept_from` this destination.
    """
    other = aliased(Report)
    sent = exists(
        select(Delivery.id)
        .join(other, other.id == Delivery.report_id)
        .where(other.study_id == Report.study_id)
    )
    has = exists(
        select(Delivery.id).where(
            Delivery.report_id == Report.id,
            Delivery.destination == destination,
            Delivery.document_id.is_(None),
        )
    )
    recent = Report.written_at >= db_now(-MISSING_DAYS * 86400)
    there = disposable.kept(Report.spool_path)
    statement = select(Report.id).where(Report.state == ReportState.WRITTEN, recent, sent, ~has, there)
    if kept_from:
        of_others = Instance.calling_ae.not_in(kept_from)
        statement = statement.where(
            exists(select(Instance.id).where(Instance.study_id == Report.study_id, of_others))
        )
    return list(tx.scalars(statement.order_by(Report.written_at).limit(limit)))


def add(tx: Connection, destination: DestinationRow, limit: int, kept_from: Sequence[str] = ()) -> int:
    """Add the deliveries that `missing` finds; return how many."""
    found = missing(tx, destination.name, limit, kept_from)
    return sum(_add(tx, report_id, destination) for report_id in found)


def _add(tx: Connection, report_id: int, destination: DestinationRow) -> bool:
    # Locked: a report that is superseded just now must not get a delivery after that.
    current = select(Report.id).where(Report.id == report_id, Report.state == ReportState.WRITTEN)
    if tx.scalar(current.with_for_update()) is None:
        return False
    try:
        with tx.begin_nested():
            tx.execute(insert(Delivery).values(delivery_values(report_id, destination)))
    except IntegrityError:  # another sweep was faster
        return False
    return True


def accepted(
    tx: Connection, delivery_id: int, warning: str | None, sop: tuple[str, str] | None = None
) -> bool:
    """The destination has it; a warning status is kept as detail.

    `sop` is class and instance UID of what it took; None: those of the row.
    """
    statement = update(Delivery).where(
        Delivery.id == delivery_id, Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SUPERSEDED))
    )
    values = {
        "state": DeliveryState.ACCEPTED,
        "accepted_at": db_now(),
        "attempts": Delivery.attempts + 1,
        "reason_code": None,
        "reason_detail": None if warning is None else warning[:200],
        "sop_class_uid": None if sop is None else sop[0],
        "sop_instance_uid": None if sop is None else sop[1],
    }
    if not tx.execute(statement.values(values)).rowcount:
        return False
    study = select(Report.study_id).join(Delivery, Delivery.report_id == Report.id)
    superseded = study.where(Delivery.id == delivery_id, Report.state == ReportState.SUPERSEDED)
    if (study_id := tx.scalar(superseded)) is not None:
        studies.mark_emptied(tx, study_id)  # its images went while it was being sent
    return True


def failed(
    tx: Connection, delivery_id: int, *, reason_code: str, detail: str, delay_s: float, counts: bool
) -> None:
    """Try again after `delay_s`. `counts`: the destination answered, so it counts towards the dead letter."""
    tx.execute(
        update(Delivery)
        .where(Delivery.id == delivery_id, Delivery.state == DeliveryState.PENDING)
        .values(
            attempts=Delivery.attempts + (1 if counts else 0),
            due_at=db_now(delay_s),
            reason_code=reason_code,
            reason_detail=detail[:200],
        )
    )


def postpone(
    tx: Connection,
    destination: str,
    *,
    reason_code: str,
    detail: str,
    delay_s: float,
    kind: str | None = None,
) -> int:
    """Put off everything that is due for a destination that cannot be reached; return how many.

    In one statement, and together: the next look is one association again, however much has piled up.
    `kind`: only what is of it, because the destination takes other kinds.
    """
    statement = update(Delivery).where(_sendable(destination))
    if kind == "SR":
        statement = statement.where(Delivery.document_id.is_(None))
    elif kind is not None:
        of_kind = select(Document.id).where(Document.kind == kind)
        statement = statement.where(Delivery.document_id.in_(of_kind))
    values = {"due_at": db_now(delay_s), "reason_code": reason_code, "reason_detail": detail[:200]}
    return tx.execute(statement.values(values)).rowcount


def dead(tx: Connection, delivery_id: int, *, reason_code: str, detail: str) -> None:
    """Give up: a person has to look, then `requeue`."""
    tx.execute(
        update(Delivery)
        .where(Delivery.id == delivery_id, Delivery.state == DeliveryState.PENDING)
        .values(
            state=DeliveryState.DEAD,
            attempts=Delivery.attempts + 1,
            reason_code=reason_code,
            reason_detail=detail[:200],
        )
    )


def requeue(tx: Connection, delivery_ids: Sequence[int]) -> int:
    """Send dead letters again, with fresh attempts; return how many."""
    statement = update(Delivery).where(Delivery.id.in_(delivery_ids), Delivery.state == DeliveryState.DEAD)
    values = {"state": DeliveryState.PENDING, "attempts": 0, "due_at": db_now(), "reason_code": None}
    return tx.execute(statement.values(values)).rowcount


def unknown_destinations(tx: Connection, names: Sequence[str]) -> list[str]:
    """Return destinations with pending deliveries that the configuration no longer names."""
    statement = select(Delivery.destination).where(
        Delivery.state == DeliveryState.PENDING, Delivery.destination.not_in(names)
    )
    return sorted(tx.scalars(statement.distinct()))
