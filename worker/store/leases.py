"""Exclusive, expiring rights: draining a destination, sweeping, adopting orphans."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, update
from sqlalchemy.exc import IntegrityError

from worker.schema import Lease, db_now
from worker.store.clock import new_token


def acquire(tx: Connection, name: str, owner: str, lease_s: float) -> str | None:
    """Take the lease if it is free or has run out.

    Returns:
        The token to renew and release it with; None when somebody else holds it.
    """
    token = new_token()
    values = {"owner": owner, "token": token, "expires_at": db_now(lease_s)}
    taken = tx.execute(
        update(Lease).where(Lease.name == name, Lease.expires_at < db_now()).values(values)
    ).rowcount
    if taken:
        return token
    try:
        with tx.begin_nested():
            tx.execute(insert(Lease).values(name=name, **values))
    except IntegrityError:
        return None
    return token


def renew(tx: Connection, name: str, token: str, lease_s: float) -> bool:
    """Prolong the lease; False when it was lost."""
    statement = update(Lease).where(Lease.name == name, Lease.token == token)
    return bool(tx.execute(statement.values(expires_at=db_now(lease_s))).rowcount)


def release(tx: Connection, name: str, token: str) -> None:
    """Give the lease back; nothing happens when it was lost."""
    tx.execute(delete(Lease).where(Lease.name == name, Lease.token == token))


def release_owner(tx: Connection, owner: str) -> None:
    """Release what a process that is gone held."""
    tx.execute(delete(Lease).where(Lease.owner == owner))
