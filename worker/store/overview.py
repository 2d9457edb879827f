"""What `status` and `requeue` look at: the documented views, and the rows behind a person's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select, text

from worker.schema import Delivery, DeliveryState, Instance, InstanceState, Process, Report, Study, db_now


def backlog(tx: Connection) -> list[dict[str, Any]]:
    """Return the rows of `v_backlog`."""
    return _dicts(tx.execute(text("SELECT * FROM v_backlog")).all())


def failures(tx: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the newest rows of `v_failures`: what a person should look at."""
    return _dicts(
        tx.execute(text("SELECT * FROM v_failures ORDER BY since DESC LIMIT :n"), {"n": limit}).all()
    )


def failure_count(tx: Connection) -> int:
    """Return how many rows `v_failures` has."""
    return int(tx.scalar(text("SELECT count(*) FROM v_failures")) or 0)


def totals(tx: Connection) -> dict[str, int]:
    """Return how many instances, studies and deliveries are in each state: {"instances.ANALYSED": 12, …}."""
    counts: dict[str, int] = {}
    for name, column in (
        ("instances", Instance.state),
        ("studies", Study.state),
        ("reports", Report.state),
        ("deliveries", Delivery.state),
    ):
        for state, count in tx.execute(select(column, func.count()).group_by(column)):
            counts[f"{name}.{state}"] = count
    return counts


def rejections(tx: Connection, hours: float) -> list[dict[str, Any]]:
    """Return what was turned away in the last hours, counted by reason."""
    from worker.schema import Rejection

    count = func.sum(Rejection.count).label("count")
    statement = select(Rejection.kind, Rejection.reason_code, Rejection.calling_ae, count).where(
        Rejection.last_at > db_now(-hours * 3600)
    )
    grouped = statement.group_by(Rejection.kind, Rejection.reason_code, Rejection.calling_ae)
    return _dicts(tx.execute(grouped.order_by(count.desc())).all())


def processes(tx: Connection) -> list[dict[str, Any]]:
    """Return the processes that run, and how long ago each was seen."""
    statement = select(
        Process.id, Process.role, Process.host, Process.pid, Process.started_at, Process.seen_at
    )
    return _dicts(
        tx.execute(statement.where(Process.stopped_at.is_(None)).order_by(Process.started_at)).all()
    )


def _dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in rows]


def refused_instances(
    tx: Connection, *, sop_instance_uid: str | None, reason_code: str | None, study_instance_uid: str | None
) -> list[tuple[int, int]]:
    """Return (instance id, study id) of refused instances that match every criterion given."""
    statement = select(Instance.id, Instance.study_id).where(Instance.state == InstanceState.REFUSED)
    if sop_instance_uid:
        statement = statement.where(Instance.sop_instance_uid == sop_instance_uid)
    if reason_code:
        statement = statement.where(Instance.reason_code == reason_code)
    if study_instance_uid:
        study = select(Study.id).where(Study.study_instance_uid == study_instance_uid).scalar_subquery()
        statement = statement.where(Instance.study_id == study)
    return [(row.id, row.study_id) for row in tx.execute(statement)]


def dead_deliveries(tx: Connection, *, destination: str | None, study_instance_uid: str | None) -> list[int]:
    """Return the ids of dead letters that match every criterion given."""
    statement = select(Delivery.id).where(Delivery.state == DeliveryState.DEAD)
    if destination:
        statement = statement.where(Delivery.destination == destination)
    if study_instance_uid:
        reports = select(Report.id).where(Report.study_instance_uid == study_instance_uid)
        statement = statement.where(Delivery.report_id.in_(reports))
    return list(tx.scalars(statement))
