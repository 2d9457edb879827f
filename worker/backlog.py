"""The images that wait for analysis, and when there are too many of them to take more in."""

from __future__ import annotations

import threading
import time

import structlog

from dicom_io.errors import BacklogError
from worker.errors import DatabaseError
from worker.runtime import Runtime
from worker.store import door

log = structlog.get_logger(__name__)
_FRESH_S = 2.0
"""How long a count is good for: the limit is about hours of work, not about single images."""


class Backlog:
    """Counts what waits, seldom; any number of threads may ask.

    Args:
        runtime: Its database is counted in, `[listener] maximum_backlog` is the limit.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._most = runtime.settings.listener.maximum_backlog
        self._lock = threading.Lock()
        self._waiting = 0
        self._counted_at = -_FRESH_S

    def problem(self) -> BacklogError | None:
        """Why no image can be taken in now; None when one can, or when no limit is set."""
        if not self._most:
            return None
        with self._lock:
            if time.monotonic() - self._counted_at >= _FRESH_S:
                self._count()
            waiting = self._waiting
        if waiting < self._most:
            return None
        return BacklogError("[listener] maximum_backlog is reached: see what holds up the analysis")

    def _count(self) -> None:
        """Count; a database that does not answer says so when the image's row is written."""
        try:
            self._waiting = self._runtime.database.read(door.waiting_images)
        except DatabaseError as error:
            log.warning("backlog_not_counted", error=str(error))
        self._counted_at = time.monotonic()
