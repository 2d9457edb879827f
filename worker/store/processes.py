"""Who runs: a row a process, refreshed while it lives, so that others can release what a dead one held."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from worker.schema import Bundle, Installation, Process, db_now
from worker.store import door, images, leases, studies
from worker.store.studies import ClosingPolicy


def installation_namespace(tx: Connection) -> uuid.UUID:
    """Return the namespace of this installation's UIDs, made on first use."""
    known = tx.scalar(select(Installation.uid_namespace).where(Installation.id == 1))
    if known is None:
        try:
            with tx.begin_nested():
                values = {"id": 1, "uid_namespace": str(uuid.uuid4()), "created_at": db_now()}
                tx.execute(insert(Installation).values(values))
        except IntegrityError:
            pass  # another process was first; its value is read below
        known = tx.scalar(select(Installation.uid_namespace).where(Installation.id == 1))
    return uuid.UUID(known)


def started(tx: Connection, process_id: str, role: str, host: str, pid: int) -> None:
    """Record that a process runs."""
    values = {"id": process_id, "role": role, "host": host, "pid": pid}
    tx.execute(insert(Process).values(**values, started_at=db_now(), seen_at=db_now()))


def analyses_with(tx: Connection, process_id: str, bundle_pk: int) -> None:
    """Record which bundle a process analyses with."""
    tx.execute(update(Process).where(Process.id == process_id).values(bundle_pk=bundle_pk))


def has_active_bundle(tx: Connection) -> bool:
    """Say whether any bundle is the active one."""
    return tx.scalar(select(Bundle.id).where(Bundle.active).limit(1)) is not None


def bundle_is_active(tx: Connection, bundle_pk: int) -> bool:
    """Say whether this bundle is the one that images are analysed with and reports are written of."""
    return bool(tx.scalar(select(Bundle.active).where(Bundle.id == bundle_pk)))


def seen(tx: Connection, process_id: str) -> None:
    """Record that the process is alive, whatever others concluded while the database was away."""
    values = {"seen_at": db_now(), "stopped_at": None}
    tx.execute(update(Process).where(Process.id == process_id).values(values))


def stopped(tx: Connection, process_id: str) -> None:
    """Record an orderly stop."""
    tx.execute(update(Process).where(Process.id == process_id).values(stopped_at=db_now()))


def running(tx: Connection) -> list[tuple[str, str, int]]:
    """Return (id, host, pid) of every process that has not said good-bye."""
    rows = tx.execute(select(Process.id, Process.host, Process.pid).where(Process.stopped_at.is_(None)))
    return [(row.id, row.host, row.pid) for row in rows]


def silent(tx: Connection, silent_s: float) -> list[str]:
    """Return processes that have not been seen for `silent_s` seconds."""
    statement = select(Process.id).where(Process.stopped_at.is_(None), Process.seen_at < db_now(-silent_s))
    return list(tx.scalars(statement))


def bury(tx: Connection, process_id: str, policy: ClosingPolicy) -> int:
    """Release what a dead process held: claims, leases, and associations that kept studies open."""
    released = images.release_owner(tx, process_id)
    studies.release_owner(tx, process_id)
    leases.release_owner(tx, process_id)
    for association_id in door.associations_of(tx, process_id):
        door.association_closed(tx, association_id, "CONNECTION_LOST", policy)
    stopped(tx, process_id)
    return released
