from __future__ import annotations

import builtins
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from worker import database
from worker.database import create_database_engine, pragma_problems, reading, upgrade
from worker.errors import DatabaseError, DatabaseUnreachableError


@pytest.fixture
def engine(empty_engine: Engine) -> Engine:
    """A database with one small table; SQLite and PostgreSQL."""
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, body VARCHAR(99))"))
    return empty_engine


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Engine]:
    engine = create_database_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, body VARCHAR(99))"))
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    engine = create_database_engine(
        postgres_url, statement_timeout_s=2.5, lock_timeout_s=0.25, application_name="me"
    )
    yield engine
    engine.dispose()


def _note(connection: Connection, body: str) -> None:
    connection.execute(text("INSERT INTO notes (id, body) SELECT count(*), :body FROM notes"), {"body": body})


def _notes(engine: Engine) -> list[str]:
    with reading(engine).connect() as connection:
        return list(connection.scalars(text("SELECT body FROM notes ORDER BY id")))


# --- both databases


def test_a_savepoint_is_undone_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        _note(connection, "first")
        savepoint = connection.begin_nested()
        _note(connection, "second")
        savepoint.rollback()
        with connection.begin_nested():
            _note(connection, "third")
    assert _notes(engine) == ["first", "third"]


def test_a_released_savepoint_is_undone_with_its_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        with connection.begin_nested():
            _note(connection, "kept only if the transaction is")
        transaction.rollback()
    assert _notes(engine) == []


def test_a_definition_is_undone_with_its_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE notes ADD COLUMN colour VARCHAR(9)"))
        connection.rollback()
        columns = list(connection.execute(text("SELECT * FROM notes")).keys())
    assert columns == ["id", "body"]


def test_a_transaction_that_reads_sees_one_state_or_refuses_to_write(engine: Engine) -> None:
    with reading(engine).connect() as connection, pytest.raises(DBAPIError, match=r"(?i)read-?only"):
        _note(connection, "smuggled")
    assert _notes(engine) == []


def test_a_connection_that_only_read_can_write_when_it_is_used_again(database_url: str) -> None:
    engine = create_database_engine(database_url, pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, body VARCHAR(99))"))
    for body in ("one", "two"):
        _notes(engine)
        with engine.begin() as connection:
            _note(connection, body)
    assert _notes(engine) == ["one", "two"]
    engine.dispose()


def test_parameters_stay_out_of_errors(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("INSERT INTO nowhere (body) VALUES (:body)"), {"body": "Doe^Jane"})
    assert "Doe^Jane" not in str(caught.value)


def test_callers_beyond_the_pool_wait_and_then_fail(database_url: str) -> None:
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    engine = create_database_engine(database_url, pool_size=1, max_overflow=1, pool_timeout_s=0.05)
    with engine.connect(), engine.connect(), pytest.raises(PoolTimeoutError):
        engine.connect()
    engine.dispose()


# --- what can be configured wrongly


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:geheim@host/db", "use sqlite"),
        ("postgresql+psycopg2://u:geheim@host/db", "use sqlite"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("geheim", "cannot be read"),
        ("postgresql://u:geheim@host:port/db", "cannot be read"),
    ],
)
def test_another_kind_of_url_is_refused_without_repeating_it(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message) as caught:
        create_database_engine(url)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_url_without_a_driver_gets_ours() -> None:
    assert create_database_engine("postgresql://u@host/db").dialect.driver == "psycopg"


def test_an_absent_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_psycopg(name: str, *rest: Any, **kwargs: Any) -> Any:
        if name == "psycopg":
            raise ModuleNotFoundError(name)
        return original(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_psycopg)
    with pytest.raises(DatabaseError, match=r"pip install 'fundus-worker\[postgres\]'"):
        create_database_engine("postgresql+psycopg://u@host/db")


def test_an_installation_without_migrations_says_so(
    sqlite: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty" / "versions").mkdir(parents=True)
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path / "empty")
    database._program_revisions.cache_clear()
    with pytest.raises(DatabaseError, match="install it again"):
        upgrade(sqlite)
    database._program_revisions.cache_clear()


# --- SQLite


def test_sqlite_makes_its_folder_and_syncs_every_commit(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path}/a/b/fundus.db")
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    assert pragma_problems(engine) == []
    engine.dispose()


def test_sqlite_writers_queue_from_the_start_of_their_transactions(sqlite: Engine) -> None:
    # Given: writers that read first, so that each would hold an old state if it took the lock only to write
    failures: list[BaseException] = []

    def add(number: int) -> None:
        try:
            for _ in range(10):
                with sqlite.begin() as connection:
                    connection.execute(text("SELECT max(id) FROM notes")).all()
                    _note(connection, f"of writer {number}")
        except OperationalError as error:
            failures.append(error)

    # When
    writers = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    # Then
    assert failures == []
    assert len(_notes(sqlite)) == 40


def test_sqlite_readers_do_not_wait_for_a_writer(sqlite: Engine) -> None:
    with sqlite.begin() as writer:
        _note(writer, "not yet committed")
        assert _notes(sqlite) == []
    assert _notes(sqlite) == ["not yet committed"]


def test_sqlite_readers_see_one_state_throughout_a_transaction(sqlite: Engine) -> None:
    with reading(sqlite).connect() as reader:
        before = reader.scalar(text("SELECT count(*) FROM notes"))
        with sqlite.begin() as writer:
            _note(writer, "meanwhile")
        assert reader.scalar(text("SELECT count(*) FROM notes")) == before
    assert _notes(sqlite) == ["meanwhile"]


def test_pragmas_that_would_lose_a_commit_are_named_with_their_remedy(sqlite_url: str) -> None:
    # Given: a file that another program set up, and something that changes each connection
    engine = create_database_engine(sqlite_url)

    @event.listens_for(engine, "connect")
    def spoil(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in (
            "journal_mode = DELETE",
            "synchronous = NORMAL",
            "foreign_keys = OFF",
            "busy_timeout = 5",
        ):
            connection.execute(f"PRAGMA {pragma}")

    # When
    problems = pragma_problems(engine)
    # Then
    for problem, (setting, remedy) in zip(
        problems,
        [
            ("journal mode is delete", "local disk"),
            ("synchronous is 1", "sets FULL"),
            ("foreign keys are off", "SQLite library"),
            ("busy timeout is 5 ms", "10000 ms"),
        ],
        strict=True,
    ):
        assert setting in problem
        assert remedy in problem
    engine.dispose()


def test_a_folder_that_cannot_hold_a_database_is_an_error_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "fundus.db").mkdir()
    engine = create_database_engine(f"sqlite:///{tmp_path}/fundus.db")
    with pytest.raises(DatabaseUnreachableError, match="the folder can be written"):
        pragma_problems(engine)


# --- PostgreSQL


def test_postgresql_sessions_have_limits_and_sync_every_commit(postgres: Engine) -> None:
    names = ("timezone", "statement_timeout", "lock_timeout", "synchronous_commit", "application_name")
    with postgres.connect() as connection:
        found = [connection.scalar(text(f"SHOW {name}")) for name in names]
    assert found == ["UTC", "2500ms", "250ms", "on", "me"]


def test_postgresql_waits_for_a_lock_only_so_long(postgres: Engine) -> None:
    with postgres.begin() as connection:
        connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, body VARCHAR(99))"))
    with postgres.begin() as holder:
        holder.execute(text("LOCK TABLE notes"))
        with postgres.connect() as waiter, pytest.raises(OperationalError, match="lock timeout"):
            waiter.execute(text("SELECT * FROM notes"))


def test_postgresql_connections_that_were_cut_are_replaced(postgres: Engine, postgres_url: str) -> None:
    # Given: a connection in the pool that the server ends
    with postgres.connect() as connection:
        ended = connection.scalar(text("SELECT pg_backend_pid()"))
    administrator = create_database_engine(postgres_url)
    with administrator.connect() as connection:
        # (its second argument waits until the connection is gone)
        assert connection.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": ended})
    administrator.dispose()
    # Then: the next caller notices nothing
    with postgres.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != ended


def test_a_postgresql_server_that_may_lose_commits_is_named_with_its_remedy(postgres: Engine) -> None:
    # The tests' own server runs with fsync and full_page_writes off.
    problems = pragma_problems(postgres)
    assert [problem.split(" is off")[0] for problem in problems] == [
        "PostgreSQL's fsync",
        "PostgreSQL's full_page_writes",
    ]
    assert all("postgresql.conf" in problem for problem in problems)
