"""Which bytes of an image came when, and whether their sender was told (decision 0010)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from worker.schema import Association, HeaderVersion


def is_retry(tx: Connection, instance_id: int, sha256: str, association_id: str | None) -> bool:
    """Say whether these are bytes that we have, sent again by somebody who may not know it; remember them.

    A sender that released the association, or went on with the next object over it, was told. One whose
    association ended otherwise, or is still open, sends again what it was not told of: that is no correction.

    Args:
        tx: The transaction.
        instance_id: Whose bytes; those of its current header version are no matter of this.
        sha256: Of the whole object.
        association_id: Over which they come now; None: nobody sends them.
    """
    version = _last_version(tx, instance_id, sha256)
    if version is None or association_id is None or version.association_id == association_id:
        return False
    if version.association_id is not None:
        earlier = select(Association.outcome).where(Association.id == version.association_id)
        ended = tx.execute(earlier).one_or_none()
        if ended is None or ended.outcome == "RELEASED":  # None: forgotten, long ago
            return False
    _came(tx, version.id, association_id)
    return True


def came_again(tx: Connection, instance_id: int, sha256: str, association_id: str | None) -> None:
    """Remember over which association bytes that are known came last."""
    version = _last_version(tx, instance_id, sha256)
    if version is not None and association_id is not None:
        _came(tx, version.id, association_id)


def _last_version(tx: Connection, instance_id: int, sha256: str) -> Row[Any] | None:
    same = (HeaderVersion.instance_id == instance_id, HeaderVersion.sha256 == sha256)
    found = select(HeaderVersion.__table__).where(*same)
    return tx.execute(found.order_by(HeaderVersion.id.desc()).limit(1)).one_or_none()


def _came(tx: Connection, version_id: int, association_id: str) -> None:
    came = update(HeaderVersion).where(HeaderVersion.id == version_id)
    tx.execute(came.values(association_id=association_id))
