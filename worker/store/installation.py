"""What makes an installation this one and no other."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, inspect, select

from worker.schema import Installation, Instance


def has_images(tx: Connection) -> bool:
    """Say whether any image was ever acknowledged."""
    return tx.scalar(select(Instance.id).limit(1)) is not None


def known_namespace(tx: Connection) -> uuid.UUID | None:
    """Return the namespace of the installation's UIDs; None before the first start."""
    if not inspect(tx).has_table(Installation.__tablename__):
        return None
    known = tx.scalar(select(Installation.uid_namespace).where(Installation.id == 1))
    return None if known is None else uuid.UUID(known)
