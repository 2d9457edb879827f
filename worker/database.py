"""Connections to the database, and its schema's version.

SQLite is set up so that a commit is on the disk when it returns (write-ahead log with `synchronous=FULL`;
NORMAL does not sync at commit), and so that two writers queue instead of failing: a transaction takes the
write lock at its start (`BEGIN IMMEDIATE`) unless it comes from `reading(engine)`. The driver's own
transaction handling is off: it begins too late, and savepoints would not belong to the transaction
(SQLAlchemy's manual, "Transactions with SQLite and the sqlite3 driver").

PostgreSQL gets limits on every wait, sessions in UTC, and `synchronous_commit` on whatever the server says.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool

from worker.errors import (
    DatabaseError,
    DatabaseUnreachableError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
)

MIGRATIONS = Path(__file__).parent / "migrations"
READ_ONLY = "fundus_read_only"
"""Execution option: the transaction only reads."""
SQLITE_BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another one; a transaction of ours takes milliseconds."""
CONNECT_TIMEOUT_S = 10
UPGRADE_LOCK = 0x46554E44
"""PostgreSQL's advisory lock of this program's upgrades ("FUND")."""
UPGRADE_WAIT_S = 600
"""How long a starting process waits for another one's upgrade."""


def create_database_engine(
    url: str,
    *,
    pool_size: int = 5,
    max_overflow: int = 10,
    pool_timeout_s: float = 30.0,
    statement_timeout_s: float = 60.0,
    lock_timeout_s: float = 10.0,
    application_name: str = "fundus-worker",
) -> Engine:
    """Return an engine; nothing is connected yet. SQLite's folder is made if it is not there.

    Parameters of statements never appear in its errors or logs.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://…` (the driver may be left out).
        pool_size: Connections kept open.
        max_overflow: Further connections at peaks; more callers than both wait.
        pool_timeout_s: How long a caller waits for a connection.
        statement_timeout_s: PostgreSQL ends a statement after this time.
        lock_timeout_s: PostgreSQL ends a statement that waited this long for a lock.
        application_name: What PostgreSQL's `pg_stat_activity` shows.

    Raises:
        DatabaseError: The URL is malformed or of another kind, or PostgreSQL's driver is not installed.
    """
    parsed = _parse(url)
    options: dict[str, Any] = {
        "hide_parameters": True,
        "poolclass": QueuePool,
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "pool_timeout": pool_timeout_s,
    }
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, options)
    session = {
        "timezone": "UTC",
        "synchronous_commit": "on",
        "statement_timeout": f"{round(statement_timeout_s * 1000)}ms",
        "lock_timeout": f"{round(lock_timeout_s * 1000)}ms",
    }
    return _postgresql_engine(parsed, options, session, application_name)


def reading(engine: Engine) -> Engine:
    """Return a view of the engine (same pool) whose transactions only read; a write in one of them fails.

    On SQLite such a transaction does not wait for writers, and writers do not wait for it.
    """
    return engine.execution_options(**{READ_ONLY: True, "postgresql_readonly": True})


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The URL stays out of the text, and its parser's error out of the chain: it may hold a password.
        raise DatabaseError(f"database_url cannot be read as a URL ({type(error).__name__})") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise DatabaseError(
            f"database_url begins with {parsed.drivername!r}; use sqlite:///… or postgresql+psycopg://…"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise DatabaseError("a SQLite database in memory would lose everything; use sqlite:///path/to/file")
    return parsed


def _sqlite_engine(url: URL, options: dict[str, Any]) -> Engine:
    _sqlite_path(url).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S, "check_same_thread": False}, **options
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        connection.execute(f"PRAGMA busy_timeout = {round(SQLITE_BUSY_TIMEOUT_S * 1000)}")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            with _file_lock(
                url
            ):  # two processes that switch at once: one of them fails, whatever the timeout
                connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock now: a reader that becomes a writer fails at once if somebody wrote in between."""
    read_only = bool(connection.get_execution_options().get(READ_ONLY, False))
    if connection.info.get(READ_ONLY, False) != read_only:
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        connection.info[READ_ONLY] = read_only
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _postgresql_engine(
    url: URL, options: dict[str, Any], session: dict[str, str], application_name: str
) -> Engine:
    connect_args = {
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
        # A server that vanished without a word is noticed within a minute.
        "keepalives_idle": 20,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 50_000,
    }
    try:
        return create_engine(url, connect_args=connect_args, pool_pre_ping=True, pool_recycle=3600, **options)
    except ModuleNotFoundError as error:
        raise DatabaseError(
            "PostgreSQL's driver is not installed; run `pip install 'fundus-worker[postgres]'`"
        ) from error


def pragma_problems(engine: Engine) -> list[str]:
    """Return what would let a commit be lost, or writers fail, each with its remedy; empty: all is well.

    Raises:
        DatabaseUnreachableError: There is no connection.
    """
    sqlite = engine.dialect.name == "sqlite"
    with _transaction(reading(engine)) as connection:
        return _sqlite_problems(connection) if sqlite else _postgresql_problems(connection)


def _sqlite_problems(connection: Connection) -> list[str]:
    def pragma(name: str) -> Any:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    problems = []
    if (mode := pragma("journal_mode")) != "wal":
        problems.append(
            f"SQLite's journal mode is {mode}, not wal; "
            "put data_dir on a local disk (network file systems cannot do it), or use PostgreSQL"
        )
    if (level := pragma("synchronous")) < 2:
        problems.append(
            f"SQLite's synchronous is {level}, so a power loss may undo what was acknowledged; "
            "remove whatever sets it (this program sets FULL)"
        )
    if not pragma("foreign_keys"):
        problems.append("SQLite's foreign keys are off; use a SQLite library that was built with them")
    if (wait_ms := pragma("busy_timeout")) < SQLITE_BUSY_TIMEOUT_S * 1000:
        problems.append(
            f"SQLite's busy timeout is {wait_ms} ms, so writers may fail; remove whatever sets it "
            f"(this program sets {SQLITE_BUSY_TIMEOUT_S * 1000:.0f} ms)"
        )
    return problems


def _postgresql_problems(connection: Connection) -> list[str]:
    consequences = {
        "fsync": "a power loss may corrupt the database",
        "full_page_writes": "a power loss may corrupt the database",
        "synchronous_commit": "a power loss may undo what was acknowledged",
    }
    return [
        f"PostgreSQL's {name} is off, so {consequence}; set `{name} = on` in postgresql.conf and reload it"
        for name, consequence in consequences.items()
        if connection.scalar(select(func.current_setting(name))) == "off"
    ]


def upgrade(engine: Engine) -> None:
    """Bring the tables and views to this program's version, in one transaction; does nothing if they are.

    Processes that start together wait for the first one.

    Raises:
        SchemaTooNewError: A newer release made the tables; nothing was changed.
        DatabaseUnreachableError: There is no connection.
    """
    with _sole_upgrader(engine) as connection:
        error = _schema_error(connection)
        if isinstance(error, SchemaTooNewError):
            raise error
        if error is not None:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def require_schema(engine: Engine) -> None:
    """Return if the tables are those that this program needs.

    Raises:
        SchemaMissingError: There are none yet.
        SchemaOutdatedError: They are older.
        SchemaTooNewError: They are newer.
        DatabaseUnreachableError: There is no connection.
    """
    with _transaction(reading(engine)) as connection:
        error = _schema_error(connection)
    if error is not None:
        raise error


def schema_problem(engine: Engine) -> str | None:
    """Return what is wrong with the tables, with its remedy; None: nothing.

    Raises:
        DatabaseUnreachableError: There is no connection.
    """
    try:
        require_schema(engine)
    except (SchemaMissingError, SchemaOutdatedError, SchemaTooNewError) as error:
        return str(error)
    return None


def _schema_error(connection: Connection) -> DatabaseError | None:
    head, known = _program_revisions()
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        return SchemaMissingError()
    if found not in known:  # migrations are never removed, so an unknown one comes from a newer release
        return SchemaTooNewError(found, head)
    return None if found == head else SchemaOutdatedError(found, head)


@lru_cache(maxsize=1)
def _program_revisions() -> tuple[str, frozenset[str]]:
    """Return the newest schema version that this program knows, and all of them."""
    script = ScriptDirectory(str(MIGRATIONS))
    head = script.get_current_head()
    if head is None:
        raise DatabaseError(f"this installation has no migrations in {MIGRATIONS}; install it again")
    return head, frozenset(revision.revision for revision in script.walk_revisions())


@contextmanager
def _sole_upgrader(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other upgrade of the same database runs beside."""
    if engine.dialect.name == "sqlite":
        # Connected first: making a connection may take the same lock, to switch the journal's mode.
        with _connected(engine) as connection, _file_lock(engine.url), connection.begin():
            yield connection
        return
    with _transaction(engine) as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{UPGRADE_WAIT_S}s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
        # From here on a lock that a running worker holds must not stop all others for long: give up instead.
        connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
        yield connection


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with _connected(engine) as connection, connection.begin():
        yield connection


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    """A connection; an absent server is an error of our own."""
    try:
        connection = engine.connect()
    except DBAPIError as error:
        address = engine.url.render_as_string(hide_password=True)
        raise DatabaseUnreachableError(
            f"no connection to the database {address} ({type(error.orig).__name__}); "
            "check database_url, and that the server runs or the folder can be written"
        ) from error
    with connection:
        yield connection


@contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    """Hold the lock file beside a SQLite database; the kernel lets go of it when the process dies."""
    with Path(f"{_sqlite_path(url)}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sqlite_path(url: URL) -> Path:
    return Path(url.database or "")
