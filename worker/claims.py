"""Keeps this process's claims alive while it works on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from worker.errors import DatabaseError
from worker.store import images
from worker.transactions import Database

log = structlog.get_logger(__name__)


class ClaimKeeper:
    """Renews claims on images three times within their life, all of a process in one statement.

    An image may wait for the engine longer than a claim lasts. A process that is stalled as a whole renews
    nothing, so others take its images over, and its late results are refused by their stale tokens.
    """

    def __init__(self, database: Database, claim_s: float) -> None:
        self._database = database
        self._claim_s = claim_s
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, token: str) -> Iterator[None]:
        """Renew the claim with this token as long as the block runs."""
        with self._lock:
            self._tokens.add(token)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="claim-keeper", daemon=True)
                thread.start()
                self._thread = thread  # not before it lives: `running` is asked at any time
        try:
            yield
        finally:
            with self._lock:
                self._tokens.discard(token)

    @property
    def running(self) -> bool:
        """False when the thread ended that has to renew claims."""
        return self._thread is None or self._thread.is_alive()

    def close(self, timeout_s: float = 10.0) -> bool:
        """Stop renewing; False when the thread still ran after `timeout_s`."""
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def renew(self) -> int:
        """Renew once; return how many claims were still ours."""
        with self._lock:
            tokens = sorted(self._tokens)
        return self._database.write(images.renew, tokens, self._claim_s) if tokens else 0

    def _run(self) -> None:
        while not self._stop.wait(self._claim_s / 3):
            try:
                self.renew()
            except DatabaseError as error:
                log.warning("claims_not_renewed", error=str(error))
            except Exception:  # whatever it is: the claims of the next minutes need this thread
                log.exception("claims_not_renewed")
