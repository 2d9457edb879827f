"""Transactions: one writer thread a process with group commit on SQLite, ordinary ones elsewhere.

A durable SQLite commit costs one disk sync (a few milliseconds) however much is in it, and only one writer
may be active at a time. So the callers' functions queue up, and whatever queued while the disk was busy with
the last commit goes into the next one: sixteen associations share a sync instead of waiting for sixteen. Each
function runs in its own savepoint; one that fails takes nobody with it. A caller continues after the commit.

PostgreSQL does the same by itself (concurrent WAL flush): there every caller has its own connection.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.database import reading
from worker.errors import DatabaseUnreachableError

log = structlog.get_logger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
_Work = tuple[Callable[[Connection], Any], "Future[Any]"]
_GROUP_LIMIT = 256
"""Functions a group commit takes at most, so that the first of them does not wait for ever."""
_UNREACHABLE = (OperationalError, InterfaceError, PoolTimeoutError)
"""A cut or refused connection, a lock or a pool's connection that was not had in time."""
_ROLLED_BACK_FOR_OTHERS = frozenset({"40P01", "40001"})
"""SQLSTATE of a deadlock and of a serialisation failure: run again, the same transaction succeeds."""
_RUNS = 4


class Database:
    """Runs the functions of `worker.store` in transactions.

    Args:
        engine: From `worker.database.create_database_engine`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reading = reading(engine)
        self._group_commit = engine.dialect.name == "sqlite"
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work(connection, …)` in a transaction; return when it is durable.

        Raises:
            DatabaseUnreachableError: No connection, or the lock was not had in time; nothing was written.
        """
        return self.submit(work, *args, **kwargs).result()

    def submit(
        self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Like `write`, but return at once: the future's result comes after the commit."""
        future: Future[R] = Future()

        def call(connection: Connection) -> R:
            return work(connection, *args, **kwargs)

        if not self._group_commit:
            _run_alone(self.engine, call, future)
            return future
        with self._lock:
            if self._closed or not self.running:
                raise DatabaseUnreachableError("the database is closed: this process is stopping")
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="database-writer", daemon=True)
                thread.start()
                self._thread = thread
            self._queue.put((call, future))
        return future

    def read(self, work: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work(connection, …)` in a transaction that only reads and waits for no writer."""
        try:
            with self._reading.connect() as connection:
                return work(connection, *args, **kwargs)
        except _UNREACHABLE as error:
            raise DatabaseUnreachableError(_advice(error)) from error

    @property
    def running(self) -> bool:
        """False when the thread ended that has to write."""
        return self._thread is None or self._thread.is_alive()

    def close(self, timeout_s: float = 10.0) -> bool:
        """Finish what was submitted, then close every connection; False when it took over `timeout_s`."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(timeout_s)
        self.engine.dispose()
        return thread is None or not thread.is_alive()

    def _serve(self) -> None:
        work = None
        try:
            while (work := self._queue.get()) is not None:
                _run_group(self.engine, work, self._take)
        finally:
            self._abandon(work)

    def _abandon(self, work: _Work | None) -> None:
        """Leave nobody waiting for a thread that is gone; nothing is left unless something broke it."""
        with self._lock:
            self._closed = True
            while work is not None or not self._queue.empty():
                if work is not None and not work[1].done():
                    work[1].set_exception(DatabaseUnreachableError("the database's writer has ended"))
                work = None if self._queue.empty() else self._queue.get()

    def _take(self) -> _Work | None:
        """Return one more piece of waiting work, or None; the end marker goes back for `_serve` to find."""
        if self._queue.empty():
            return None
        work = self._queue.get()
        if work is None:
            self._queue.put(None)
        return work


def _run_alone(engine: Engine, call: Callable[[Connection], Any], future: Future[Any]) -> None:
    try:
        result = _run_until_undisturbed(engine, call)
    except _UNREACHABLE as error:
        future.set_exception(DatabaseUnreachableError(_advice(error)))
    except Exception as error:  # handed to the caller, who waits on it
        future.set_exception(error)
    else:
        future.set_result(result)


def _run_until_undisturbed(engine: Engine, call: Callable[[Connection], Any]) -> Any:
    """Run the transaction; again when the server rolled it back to let another one through."""
    for _ in range(_RUNS - 1):
        try:
            with engine.begin() as connection:
                return call(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _ROLLED_BACK_FOR_OTHERS:
                raise
        time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - lets the other one through first
    with engine.begin() as connection:
        return call(connection)


def _run_group(engine: Engine, first: _Work, take: Callable[[], _Work | None]) -> None:
    """Run the first and whatever arrives meanwhile in one transaction, then tell everybody."""
    results: dict[Future[Any], Any] = {}
    taken: list[Future[Any]] = []
    try:
        with engine.begin() as connection:
            work: _Work | None = first
            while work is not None:
                taken.append(work[1])
                _run_in_savepoint(connection, work, results)
                work = take() if len(taken) < _GROUP_LIMIT else None
    except BaseException as error:  # the transaction failed: everybody in it learns so, the thread goes on
        cause = DatabaseUnreachableError(_advice(error)) if isinstance(error, _UNREACHABLE) else error
        for future in taken:
            if not future.done():
                future.set_exception(cause)
        return
    for future, result in results.items():
        future.set_result(result)


def _run_in_savepoint(connection: Connection, work: _Work, results: dict[Future[Any], Any]) -> None:
    """Run one caller's function; its own errors are its own, a failing database is everybody's."""
    call, future = work
    try:
        with connection.begin_nested():
            results[future] = call(connection)
    except _UNREACHABLE:
        raise
    except BaseException as error:  # handed to the caller, who waits on it
        future.set_exception(error)


def _advice(error: Exception) -> str:
    """Say what failed without the statement or its parameters."""
    kind = type(getattr(error, "orig", None) or error).__name__
    return f"the database did not take the transaction ({kind}); check that it runs, its disk and its locks"
