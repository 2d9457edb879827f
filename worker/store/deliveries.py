"""Reports on their way to destinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, select, update

from worker.schema import Delivery, DeliveryState, Report, Study, db_now


@dataclass(frozen=True)
class DueDelivery:
    """A report that a destination should get now."""

    id: int
    spool_path: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    attempts: int
    created_at: datetime


def _sendable(destination: str | None = None) -> ColumnElement[bool]:
    """Due, and of a study that nothing withholds: a conflict may have come after its report was written."""
    withheld = (
        select(Study.id)
        .join(Report, Report.study_id == Study.id)
        .where(Report.id == Delivery.report_id, Study.withheld_reason.is_not(None))
        .exists()
    )
    due = and_(Delivery.state == DeliveryState.PENDING, Delivery.due_at <= db_now(), ~withheld)
    return due if destination is None else and_(due, Delivery.destination == destination)


def due(tx: Connection, destination: str, limit: int) -> list[DueDelivery]:
    """Return what is due for the destination, oldest first."""
    statement = (
        select(
            Delivery.id,
            Report.spool_path,
            Report.sop_class_uid,
            Report.sop_instance_uid,
            Report.study_instance_uid,
            Delivery.attempts,
            Delivery.created_at,
        )
        .join(Report, Report.id == Delivery.report_id)
        .where(_sendable(destination))
        .order_by(Delivery.due_at, Delivery.id)
        .limit(limit)
    )
    return [DueDelivery(**row._asdict()) for row in tx.execute(statement)]


def due_destinations(tx: Connection) -> list[str]:
    """Return the names of destinations for which something is due."""
    return sorted(tx.scalars(select(Delivery.destination).where(_sendable()).distinct()))


def accepted(tx: Connection, delivery_id: int, warning: str | None) -> bool:
    """The destination has it. A warning status is kept as detail."""
    statement = update(Delivery).where(
        Delivery.id == delivery_id, Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SUPERSEDED))
    )
    values = {
        "state": DeliveryState.ACCEPTED,
        "accepted_at": db_now(),
        "attempts": Delivery.attempts + 1,
        "reason_code": None,
        "reason_detail": None if warning is None else warning[:200],
    }
    return bool(tx.execute(statement.values(values)).rowcount)


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


def postpone(tx: Connection, destination: str, *, reason_code: str, detail: str, delay_s: float) -> int:
    """Put off everything that is due for a destination that cannot be reached; return how many.

    In one statement, and together: the next look is one association again, however much has piled up.
    """
    statement = update(Delivery).where(_sendable(destination))
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
