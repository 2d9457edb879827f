"""Rows that have had their time. Found by reading, deleted by key: the writer is busy for a moment only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select

from worker.schema import Association, AssociationStudy, Process, Rejection, db_now


def old_associations(tx: Connection, older_than_s: float, limit: int) -> list[str]:
    """Return the ids of associations that ended longer ago."""
    statement = select(Association.id).where(Association.closed_at < db_now(-older_than_s))
    return list(tx.scalars(statement.limit(limit)))


def delete_associations(tx: Connection, ids: Sequence[int] | Sequence[str]) -> int:
    """Delete associations and their links to studies; return how many associations."""
    tx.execute(delete(AssociationStudy).where(AssociationStudy.association_id.in_(ids)))
    return tx.execute(delete(Association).where(Association.id.in_(ids))).rowcount


def old_processes(tx: Connection, older_than_s: float, limit: int) -> list[str]:
    """Return the ids of processes that stopped, or were found dead, longer ago."""
    statement = select(Process.id).where(Process.stopped_at < db_now(-older_than_s))
    return list(tx.scalars(statement.limit(limit)))


def delete_processes(tx: Connection, ids: Sequence[int] | Sequence[str]) -> int:
    """Delete processes; return how many. One that came back to life meanwhile stays."""
    statement = delete(Process).where(Process.id.in_(ids), Process.stopped_at.is_not(None))
    return tx.execute(statement).rowcount


def old_rejections(tx: Connection, older_than_s: float, limit: int) -> list[int]:
    """Return the ids of rejections that happened last longer ago."""
    statement = select(Rejection.id).where(Rejection.last_at < db_now(-older_than_s))
    return list(tx.scalars(statement.limit(limit)))


def delete_rejections(tx: Connection, ids: Sequence[int] | Sequence[str]) -> int:
    """Delete rejections; return how many."""
    return tx.execute(delete(Rejection).where(Rejection.id.in_(ids))).rowcount


def count_door(tx: Connection, older_than_s: float) -> dict[str, int]:
    """Return how many rows of ended associations and of rejections are older."""
    associations = select(func.count()).where(Association.closed_at < db_now(-older_than_s))
    rejections = select(func.count()).where(Rejection.last_at < db_now(-older_than_s))
    return {
        "associations": int(tx.scalar(associations) or 0),
        "rejections": int(tx.scalar(rejections) or 0),
    }
