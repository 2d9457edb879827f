"""What `status` and `requeue` look at: the documented views, and the rows behind a person's choice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, false, func, select, text

from worker.schema import (
    Bundle,
    Delivery,
    DeliveryState,
    Finding,
    Instance,
    InstanceState,
    Process,
    Rejection,
    Removal,
    Report,
    ReportState,
    Study,
    UtcDateTime,
    db_now,
)
from worker.store import disposable
from worker.store.clock import now

_SR = "1.2.840.10008.5.1.4.1.1.88"
_FORMS = {
    f"{_SR}.34": "Comprehensive 3D SR Storage",
    f"{_SR}.33": "Comprehensive SR Storage",
    f"{_SR}.22": "Enhanced SR Storage",
    f"{_SR}.11": "Basic Text SR Storage",
}
"""Names of SOP classes (PS3.6 table A-1); pydicom, which knows them all, is not loaded only to look."""


def backlog(tx: Connection) -> list[dict[str, Any]]:
    """Return the rows of `v_backlog` that count anything."""
    return _dicts(tx.execute(text("SELECT * FROM v_backlog WHERE items > 0")).all())


def failures(tx: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the newest rows of `v_failures`: what a person should look at."""
    statement = text("SELECT * FROM v_failures ORDER BY since DESC LIMIT :n").columns(since=UtcDateTime())
    return _dicts(tx.execute(statement, {"n": limit}).all())


def failure_groups(tx: Connection, days: float) -> list[dict[str, Any]]:
    """Return how many failures of each kind and reason there are (`items`), the newest first.

    Args:
        tx: The transaction.
        days: `recent` leaves out images that were refused, and studies whose last image moved away, longer
            ago. A study or a report that is missing stays missing, whatever its age.
    """
    statement = text(
        "SELECT kind, reason_code, destination, count(*) AS items, max(since) AS newest, "
        "sum(CASE WHEN (kind = 'image_refused' OR reason_code = 'STUDY_EMPTIED') AND since < :cutoff "
        "THEN 0 ELSE 1 END) AS recent "
        "FROM v_failures GROUP BY kind, reason_code, destination ORDER BY newest DESC"
    )
    typed = statement.bindparams(bindparam("cutoff", type_=UtcDateTime())).columns(newest=UtcDateTime())
    return _dicts(tx.execute(typed, {"cutoff": now(tx) - timedelta(days=days)}).all())


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
    """Return what was turned away in the last hours, by reason and caller, the most frequent first."""
    count = func.sum(Rejection.count).label("count")
    by = (Rejection.kind, Rejection.reason_code, Rejection.calling_ae, Rejection.peer_host)
    statement = select(*by, count, func.max(Rejection.last_at).label("last_at"))
    recent = statement.where(Rejection.last_at > db_now(-hours * 3600)).group_by(*by)
    return _dicts(tx.execute(recent.order_by(count.desc())).all())


def processes(tx: Connection) -> list[dict[str, Any]]:
    """Return the processes that have not said good-bye, and when each was last seen.

    `superseded`: it has a bundle that is not the active one, and therefore takes no images.
    """
    columns = (Process.id, Process.role, Process.host, Process.pid, Process.started_at, Process.seen_at)
    superseded = func.coalesce(~Bundle.active, false()).label("superseded")
    statement = select(*columns, superseded).outerjoin(Bundle, Bundle.id == Process.bundle_pk)
    return _dicts(
        tx.execute(statement.where(Process.stopped_at.is_(None)).order_by(Process.started_at)).all()
    )


def active_bundle(tx: Connection) -> dict[str, Any] | None:
    """Return the active bundle, and the engine of its newest finding; None before the first start."""
    statement = select(Bundle.id, Bundle.bundle_id, Bundle.version, Bundle.digest, Bundle.training_camera)
    row = tx.execute(statement.where(Bundle.active).order_by(Bundle.id.desc()).limit(1)).first()
    if row is None:
        return None
    newest = select(Finding.engine).where(Finding.bundle_pk == row.id).order_by(Finding.id.desc()).limit(1)
    found: dict[str, Any] = row._asdict()
    return {**{key: found[key] for key in found if key != "id"}, "engine": tx.scalar(newest)}


def destinations(tx: Connection) -> list[dict[str, Any]]:
    """Return where deliveries stand at each destination that any report was ever meant for.

    `delivered` counts reports, `documents_delivered` what went beside them; `forms` says under which SOP
    classes it holds how many current reports. `pending` wait, the first since `waiting_since`; the next
    attempt is at `next_attempt_at`, `reason_code` says why the last one failed. `dead` counts current
    reports only: an old revision is nobody's concern.
    """
    waits = Delivery.state == DeliveryState.PENDING
    arrived = Delivery.state.in_((DeliveryState.ACCEPTED, DeliveryState.COMMITTED))
    statement = (
        select(
            Delivery.destination,
            func.count().filter(waits).label("pending"),
            func.count().filter(arrived, Delivery.document_id.is_(None)).label("delivered"),
            func.count().filter(arrived, Delivery.document_id.is_not(None)).label("documents_delivered"),
            func.count().filter(_dead_letter()).label("dead"),
            func.min(Delivery.created_at).filter(waits).label("waiting_since"),
            func.min(Delivery.due_at).filter(waits).label("next_attempt_at"),
            func.max(Delivery.reason_code).filter(waits).label("reason_code"),
            func.max(Delivery.accepted_at).label("last_accepted_at"),
        )
        .join(Report, Report.id == Delivery.report_id)
        .group_by(Delivery.destination)
        .order_by(Delivery.destination)
    )
    found = _dicts(tx.execute(statement).all())
    for each in found:
        each["forms"] = _forms(tx, each["destination"])
    return found


def _forms(tx: Connection, destination: str) -> dict[str, int]:
    """How many current reports a destination holds under each SOP class, by the class's name."""
    statement = (
        select(Delivery.sop_class_uid, func.count())
        .join(Report, Report.id == Delivery.report_id)
        .where(Delivery.destination == destination, Delivery.document_id.is_(None))
        .where(Delivery.sop_class_uid.is_not(None), Report.state == ReportState.WRITTEN)
        .group_by(Delivery.sop_class_uid)
    )
    return {_FORMS.get(str(uid), str(uid)): int(count) for uid, count in tx.execute(statement)}


def disk_history(tx: Connection, days: float) -> dict[str, Any]:
    """Return what rows know of the disk.

    Args:
        tx: The transaction.
        days: How far back to look.

    Returns:
        `received_24h_bytes`; `received_bytes` and `removed_bytes` of the last `days`; `days` since the first
        image was received, 0.0 when there is none.
    """
    received = select(func.coalesce(func.sum(Instance.size_bytes), 0))
    removed = select(func.coalesce(func.sum(Removal.size_bytes), 0))
    first = tx.scalar(select(func.min(Instance.received_at)))
    since = db_now(-days * 86_400)
    return {
        "received_24h_bytes": int(tx.scalar(received.where(Instance.received_at > db_now(-86_400))) or 0),
        "received_bytes": int(tx.scalar(received.where(Instance.received_at > since)) or 0),
        "removed_bytes": int(tx.scalar(removed.where(Removal.ended_at > since)) or 0),
        "days": 0.0 if first is None else (now(tx) - first).total_seconds() / 86_400,
    }


def refused_instances(
    tx: Connection, *, sop_instance_uid: str | None, reason_code: str | None, study_instance_uid: str | None
) -> list[int]:
    """Return the ids of refused instances that match every criterion given, and whose file is kept."""
    statement = select(Instance.id).where(Instance.state == InstanceState.REFUSED)
    statement = statement.where(disposable.kept(Instance.spool_path))
    if sop_instance_uid:
        statement = statement.where(Instance.sop_instance_uid == sop_instance_uid)
    if reason_code:
        statement = statement.where(Instance.reason_code == reason_code)
    if study_instance_uid:
        study = select(Study.id).where(Study.study_instance_uid == study_instance_uid).scalar_subquery()
        statement = statement.where(Instance.study_id == study)
    return list(tx.scalars(statement.order_by(Instance.id)))


def dead_deliveries(
    tx: Connection, *, destination: str | None, study_instance_uid: str | None, kept: bool = True
) -> list[tuple[int, str]]:
    """Return (id, destination) of dead letters that match every criterion given.

    Only of current reports: a revision that was superseded must not arrive after its successor. `kept`: only
    of reports whose file is kept, or only of those whose file went.
    """
    statement = select(Delivery.id, Delivery.destination).join(Report, Report.id == Delivery.report_id)
    there = disposable.kept(Report.spool_path)
    statement = statement.where(_dead_letter(), there if kept else ~there)
    if destination:
        statement = statement.where(Delivery.destination == destination)
    if study_instance_uid:
        statement = statement.where(Report.study_instance_uid == study_instance_uid)
    return [(row.id, row.destination) for row in tx.execute(statement.order_by(Delivery.id))]


def _dead_letter() -> ColumnElement[bool]:
    return (Delivery.state == DeliveryState.DEAD) & (Report.state == ReportState.WRITTEN)


def _dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in rows]
