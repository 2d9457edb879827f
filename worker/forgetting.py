"""Deletes rows that nobody asks for any more: ended associations, stopped processes, old rejections.

Images, findings, reports and deliveries are never deleted here: what was received stays accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection

from worker.runtime import Runtime
from worker.store import keeping
from worker.transactions import Database

log = structlog.get_logger(__name__)
BATCH = 500
"""Rows a transaction: nobody else waits long for the writer."""
_BATCHES = 20
_DAY_S = 86_400.0


def forget(runtime: Runtime) -> int:
    """Delete what is older than `[jobs] keep_days`, some batches of each kind; return how many rows."""
    older_than_s = runtime.settings.jobs.keep_days * _DAY_S
    kinds: tuple[tuple[str, _Find, _Delete], ...] = (
        ("associations", keeping.old_associations, keeping.delete_associations),
        ("processes", keeping.old_processes, keeping.delete_processes),
        ("rejections", keeping.old_rejections, keeping.delete_rejections),
    )
    counts = {kind: _forget(runtime, find, delete, older_than_s) for kind, find, delete in kinds}
    if any(counts.values()):
        log.info("old_rows_deleted", **counts)
    return sum(counts.values())


_Find = Callable[[Connection, float, int], Sequence[int] | Sequence[str]]
_Delete = Callable[[Connection, Sequence[int] | Sequence[str]], int]


def _forget(runtime: Runtime, find: _Find, delete: _Delete, older_than_s: float) -> int:
    deleted = 0
    for _ in range(_BATCHES):
        old = runtime.database.read(find, older_than_s, BATCH)
        if old and not runtime.stopping.is_set():
            deleted += runtime.database.write(delete, old)
        if len(old) < BATCH or runtime.stopping.is_set():
            break
    return deleted


def forget_door(database: Database, older_than_s: float) -> dict[str, int]:
    """Delete all rows of ended associations and of rejections that are older; return how many of each."""
    kinds: tuple[tuple[str, _Find, _Delete], ...] = (
        ("associations", keeping.old_associations, keeping.delete_associations),
        ("rejections", keeping.old_rejections, keeping.delete_rejections),
    )
    counts = dict.fromkeys((kind for kind, _, _ in kinds), 0)
    for kind, find, delete in kinds:
        while old := database.read(find, older_than_s, BATCH):
            counts[kind] += database.write(delete, old)
    return counts
