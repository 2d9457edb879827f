"""Removal of files, and the rows that say that they go and went. Rows of results are never touched.

A removal has two transactions of one study. `begin` says which files will go. `finish` checks again that
nothing of the study came into work meanwhile, has the files removed, and says that they are gone. Both lock
the study's rows, in the intake's order, so nothing comes into work between check and removal. After a crash
at any point a file is there, or a row of `file_removals` says that it went or was about to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection, delete, insert, select, update

from worker.schema import Delivery, Document, Instance, Removal, Report, Study, db_now
from worker.store import disposable
from worker.store.disposable import Rule


class Files(Protocol):
    """The spool, as far as removal needs it."""

    def size(self, spool_path: str) -> int:
        """Bytes of a file; 0 when it is not there."""
        ...

    def remove(self, spool_path: str) -> None:
        """Remove a file; nothing happens when it is gone already."""
        ...


def begin(tx: Connection, rules: Sequence[Rule], study_id: int, files: Files) -> int:
    """Say which files of a study are about to go; return how many."""
    _lock(tx, study_id)
    found = disposable.files_of(tx, rules, study_id - 1, study_id)
    for each in found:
        values = {
            "spool_path": each.spool_path,
            "kind": each.kind,
            "state": each.state,
            "standing": each.standing,
            "study_id": study_id,
            "size_bytes": files.size(each.spool_path),
            "begun_at": db_now(),
        }
        tx.execute(insert(Removal).values(values))
    return len(found)


def begun(tx: Connection, after: int, limit: int) -> list[int]:
    """Return the ids, ascending and above `after`, of studies whose removals were begun and not finished."""
    statement = (
        select(Removal.study_id).where(Removal.ended_at.is_(None), Removal.study_id > after).distinct()
    )
    return list(tx.scalars(statement.order_by(Removal.study_id).limit(limit)))


def finish(tx: Connection, study_id: int, files: Files) -> list[tuple[str, int]]:
    """Have the files removed that were begun; return kind and bytes of each that went.

    When something of the study came into work meanwhile, what is still there stays.
    """
    _lock(tx, study_id)
    idle = disposable.is_idle(tx, study_id)
    columns = (Removal.id, Removal.spool_path, Removal.kind, Removal.size_bytes)
    unfinished = select(*columns).where(Removal.study_id == study_id, Removal.ended_at.is_(None))
    removed = []
    for row in tx.execute(unfinished.order_by(Removal.id).with_for_update()).all():
        if not idle and files.size(row.spool_path):
            tx.execute(delete(Removal).where(Removal.id == row.id))
            continue
        files.remove(row.spool_path)
        tx.execute(update(Removal).where(Removal.id == row.id).values(ended_at=db_now()))
        removed.append((row.kind, row.size_bytes))
    return removed


def came_back(tx: Connection, spool_path: str, files: Files) -> bool:
    """The same bytes were received again: forget that they went; False when they have just been removed."""
    statement = select(Removal.id).where(Removal.spool_path == spool_path)
    key = tx.scalar(statement.with_for_update())
    if key is None:
        return True
    if not files.size(spool_path):
        return False
    tx.execute(delete(Removal).where(Removal.id == key))
    return True


def is_removed(tx: Connection, spool_path: str) -> bool:
    """Say whether a file went, or is about to go, under the retention rules."""
    return tx.scalar(select(Removal.id).where(Removal.spool_path == spool_path)) is not None


def ended(tx: Connection, spool_paths: Sequence[str]) -> list[str]:
    """Return those of the paths whose removal is complete."""
    statement = select(Removal.spool_path).where(Removal.spool_path.in_(spool_paths))
    return list(tx.scalars(statement.where(Removal.ended_at.is_not(None))))


def claimed_report_files(tx: Connection, spool_paths: Sequence[str]) -> set[str]:
    """Return those of the paths that a report's or a document's row stands for, and that were not removed."""
    uids = {path.rpartition("/")[2].removesuffix(".dcm"): path for path in spool_paths}
    known: set[str] = set()
    for column in (Report.sop_instance_uid, Document.sop_instance_uid):
        known |= set(tx.scalars(select(column).where(column.in_(uids))))
    return {uids[each] for each in known} - set(ended(tx, spool_paths))


def _lock(tx: Connection, study_id: int) -> None:
    """Whoever brings something of the study into work changes one of these rows: they wait, or we see it."""
    reports = select(Report.id).where(Report.study_id == study_id)
    for rows in (
        select(Instance.id).where(Instance.study_id == study_id),
        select(Study.id).where(Study.id == study_id),
        reports,
        select(Delivery.id).where(Delivery.report_id.in_(reports)),
    ):
        tx.execute(rows.with_for_update()).all()
