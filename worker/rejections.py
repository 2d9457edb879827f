"""What was turned away at the door, as rows: to an admin, that is the missed study.

A sender often proposes every storage class that it knows and uses one or two. Sixty rows an association
would bury the one that matters; so the presentation contexts that one association was refused become one row,
written when it ends, which says how many objects were stored over it all the same.
"""

from __future__ import annotations

import threading
from collections import Counter

import structlog

from dicom_io.listener import Caller, TurnedAway
from worker.errors import DatabaseError
from worker.store import door
from worker.store.door import RejectionRow
from worker.transactions import Database

log = structlog.get_logger(__name__)
_NAMED = 20
"""Presentation contexts that a row names; the others are counted."""


class Rejections:
    """Records rejections; any number of threads may use it.

    Args:
        database: Where the rows go. A row that cannot be written is logged in full: it names no patient.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._contexts: dict[str, list[TurnedAway]] = {}
        self._stored: Counter[str] = Counter()

    def add(self, rejection: TurnedAway) -> None:
        """Record a rejection, or keep it until its association ends when it is one of many contexts."""
        if rejection.kind == "CONTEXT":
            with self._lock:
                self._contexts.setdefault(rejection.caller.association_id, []).append(rejection)
            return
        self._write(_row(rejection))

    def object_stored(self, caller: Caller) -> None:
        """Count an object that came through: the refused contexts were not needed for it."""
        with self._lock:
            self._stored[caller.association_id] += 1

    def association_closed(self, caller: Caller) -> None:
        """Write the refused contexts of the association, if there were any."""
        with self._lock:
            refused = self._contexts.pop(caller.association_id, [])
            stored = self._stored.pop(caller.association_id, 0)
        if refused:
            self._write(_summary(refused, stored), expected=stored > 0)

    def _write(self, row: RejectionRow, *, expected: bool = False) -> None:
        try:
            self._database.write(door.reject, row)
        except DatabaseError as error:
            log.error(
                "rejection_not_recorded", reason_code=row.reason_code, detail=row.detail, error=str(error)
            )
        tell = log.info if expected else log.warning
        tell(
            "turned_away",
            kind=row.kind,
            reason_code=row.reason_code,
            calling_ae=row.calling_ae,
            count=row.count,
        )


def _summary(refused: list[TurnedAway], stored: int) -> RejectionRow:
    """Return one row for the contexts of one association; a single one keeps its UIDs."""
    row = _row(refused[0])
    if len(refused) == 1:
        details = [row.detail]
    else:
        row = RejectionRow(**{**vars(row), "sop_class_uid": None, "transfer_syntax_uid": None})
        details = sorted(each.detail.partition(" with ")[0] for each in refused)
    more = f" and {len(details) - _NAMED} more" if len(details) > _NAMED else ""
    objects = f"{stored} object{'' if stored == 1 else 's'}" if stored else "no object"
    text = f"{objects} stored over this association; not accepted: {', '.join(details[:_NAMED])}{more}"
    return RejectionRow(**{**vars(row), "detail": clean_text(text, 2000)})


def _row(rejection: TurnedAway) -> RejectionRow:
    return RejectionRow(
        kind=rejection.kind,
        reason_code=rejection.reason_code,
        status=rejection.status,
        calling_ae=clean_text(rejection.caller.calling_ae, 16),
        called_ae=clean_text(rejection.caller.called_ae, 16),
        peer_host=clean_text(rejection.caller.host, 64),
        sop_class_uid=_uid(rejection.sop_class_uid),
        sop_instance_uid=_uid(rejection.sop_instance_uid),
        transfer_syntax_uid=_uid(rejection.transfer_syntax_uid),
        detail=clean_text(rejection.detail, 2000),
        count=rejection.count,
    )


def clean_text(value: str, length: int) -> str:
    """What a peer said, as every database takes it: no NUL, no half characters, no longer than the column."""
    return value.replace("\x00", "").encode(errors="replace").decode()[:length]


def _uid(value: str | None) -> str | None:
    return None if value is None else clean_text(value, 64)
