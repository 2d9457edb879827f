"""Reports on their way to destinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from worker.schema import Delivery, DeliveryState, Report, db_now


@dataclass(frozen=True)
class DueDelivery:
    """A report that a destination should get now."""

    id: int
    spool_path: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    attempts: int


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
        )
        .join(Report, Report.id == Delivery.report_id)
        .where(
            Delivery.state == DeliveryState.PENDING,
            Delivery.destination == destination,
            Delivery.due_at <= db_now(),
        )
        .order_by(Delivery.due_at, Delivery.id)
        .limit(limit)
    )
    return [DueDelivery(**row._asdict()) for row in tx.execute(statement)]


def due_destinations(tx: Connection) -> list[str]:
    """Return the names of destinations for which something is due."""
    statement = select(Delivery.destination).where(
        Delivery.state == DeliveryState.PENDING, Delivery.due_at <= db_now()
    )
    return sorted(tx.scalars(statement.distinct()))


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
        "reason_detail": warning,
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
