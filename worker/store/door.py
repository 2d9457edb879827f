"""The door: associations that end, and what was turned away (to an admin, that *is* the missed study)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from worker.schema import (
    Association,
    AssociationStudy,
    Instance,
    InstanceState,
    Rejection,
    Study,
    StudyState,
    db_now,
)
from worker.store import studies
from worker.store.clock import now
from worker.store.studies import ClosingPolicy

_OUT_OF_RESOURCES = 0xA7
"""PS3.4 table B.2-1: A7xx, refused for want of resources."""


@dataclass(frozen=True)
class RejectionRow:
    """What was turned away; the columns of `rejections` of the same names."""

    kind: str
    reason_code: str
    status: int | None
    calling_ae: str
    called_ae: str
    peer_host: str
    sop_class_uid: str | None
    sop_instance_uid: str | None
    transfer_syntax_uid: str | None
    detail: str
    count: int = 1


def reject(tx: Connection, row: RejectionRow) -> None:
    """Record a rejection; equal ones share a row an hour, with a count (decision record 0004).

    What names an object is folded only when it was refused for the time being: its sender asks again and
    again.
    """
    fold_key = None
    if row.sop_instance_uid is None or (row.status is not None and row.status >> 8 == _OUT_OF_RESOURCES):
        hour = now(tx).strftime("%Y-%m-%dT%H")
        said = [value for name, value in asdict(row).items() if name != "count"]
        fold_key = hashlib.sha256(repr((hour, *said)).encode()).hexdigest()
        if _count_up(tx, fold_key, row.count):
            return
    values = {**asdict(row), "detail": row.detail[:2000], "fold_key": fold_key}
    try:
        with tx.begin_nested():
            tx.execute(insert(Rejection).values(**values, first_at=db_now(), last_at=db_now()))
    except IntegrityError:
        if fold_key is None or not _count_up(tx, fold_key, row.count):
            raise


def _count_up(tx: Connection, fold_key: str, count: int) -> bool:
    statement = update(Rejection).where(Rejection.fold_key == fold_key)
    return bool(tx.execute(statement.values(count=Rejection.count + count, last_at=db_now())).rowcount)


def association_closed(
    tx: Connection, association_id: str, outcome: str, policy: ClosingPolicy
) -> list[tuple[int, int]]:
    """End an association; return (id, priority) of studies that it closed.

    After a proper release `close_on = "association"` closes at once. After an abort the sender will most
    likely come back with the rest: the study then waits for `quiet_s`.
    """
    statement = update(Association).where(Association.id == association_id, Association.closed_at.is_(None))
    if not tx.execute(statement.values(closed_at=db_now(), outcome=outcome)).rowcount:
        return []
    if policy.close_on != "association":
        return []
    if outcome == "RELEASED":
        return studies.close_after_association(tx, association_id, policy)
    _close_soon(tx, association_id, policy.quiet_s)
    return []


def _close_soon(tx: Connection, association_id: str, quiet_s: float) -> None:
    mine = select(AssociationStudy.study_id).where(AssociationStudy.association_id == association_id)
    tx.execute(
        update(Study)
        .where(Study.id.in_(mine), Study.state == StudyState.OPEN, Study.close_due_at > db_now(quiet_s))
        .values(close_due_at=db_now(quiet_s))
    )


def waiting_images(tx: Connection) -> int:
    """Return how many images are to be analysed or being analysed."""
    return int(tx.scalar(select(func.count()).where(Instance.state == InstanceState.RECEIVED)) or 0)


def associations_of(tx: Connection, process_id: str) -> list[str]:
    """Return the open associations of a process."""
    statement = select(Association.id).where(
        Association.process_id == process_id, Association.closed_at.is_(None)
    )
    return list(tx.scalars(statement))
