from __future__ import annotations

import threading
from typing import Any

import structlog

from worker.claims import ClaimKeeper
from worker.errors import DatabaseUnreachableError


class _Database:
    """Stands for the database: counts renewals, and fails when told to."""

    def __init__(
        self, failures: int = 0, error: Exception | None = None, hang: threading.Event | None = None
    ) -> None:
        self._error = error or DatabaseUnreachableError("away")
        self.hang = hang
        self.asked = threading.Event()
        self.renewed: list[list[str]] = []
        self.enough = threading.Event()
        self._failures = failures

    def write(self, work: Any, tokens: list[str], claim_s: float) -> int:
        self.asked.set()
        if self.hang is not None:
            self.hang.wait(20)
        if self._failures:
            self._failures -= 1
            raise self._error
        self.renewed.append(tokens)
        if len(self.renewed) >= 2:
            self.enough.set()
        return len(tokens)


def test_claims_are_renewed_together_as_long_as_the_work_lasts() -> None:
    database: Any = _Database()
    keeper = ClaimKeeper(database, claim_s=0.03)
    with keeper.keeping("b"), keeper.keeping("a"):
        assert database.enough.wait(20)
    assert database.renewed[-1] == ["a", "b"]
    assert keeper.renew() == 0
    keeper.close()


def test_a_database_that_is_away_for_a_while_ends_nothing() -> None:
    database: Any = _Database(failures=2)
    keeper = ClaimKeeper(database, claim_s=0.03)
    with structlog.testing.capture_logs() as logs, keeper.keeping("a"):
        assert database.enough.wait(20)
    keeper.close()
    assert [each["event"] for each in logs].count("claims_not_renewed") == 2


def test_no_error_ends_the_renewal() -> None:
    database: Any = _Database(failures=2, error=RuntimeError("malformed"))
    keeper = ClaimKeeper(database, claim_s=0.03)
    with structlog.testing.capture_logs() as logs, keeper.keeping("a"):
        assert database.enough.wait(20)
        assert keeper.running
    assert keeper.close(20)
    assert [each["event"] for each in logs].count("claims_not_renewed") == 2


def test_closing_does_not_wait_for_ever_for_a_database_that_hangs() -> None:
    database: Any = _Database(hang=threading.Event())
    keeper = ClaimKeeper(database, claim_s=0.03)
    with keeper.keeping("a"):
        assert database.asked.wait(20)
    assert not keeper.close(timeout_s=0.01)
    database.hang.set()
    assert keeper.close(20)


def test_a_keeper_that_never_kept_anything_closes() -> None:
    keeper = ClaimKeeper(_Database(), claim_s=60)  # type: ignore[arg-type]  # see _Database
    keeper.close()
