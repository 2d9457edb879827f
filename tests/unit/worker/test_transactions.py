from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from worker.database import create_database_engine
from worker.errors import DatabaseUnreachableError
from worker.schema import Lease, db_now
from worker.transactions import Database


@pytest.fixture
def database(engine: Engine) -> Iterator[Database]:
    made = Database(engine)
    yield made
    made.close()


def _add(tx: Connection, name: str) -> str:
    tx.execute(insert(Lease).values(name=name, owner="me", token="t", expires_at=db_now()))
    return name


def _names(tx: Connection) -> list[str]:
    return sorted(tx.scalars(select(Lease.name)))


def _fail(tx: Connection, name: str) -> str:
    _add(tx, name)
    raise ValueError(name)


class _Held:
    """Occupies the writer until it is let go, so that what is submitted meanwhile joins one transaction."""

    def __init__(self, database: Database) -> None:
        self._entered, self._go = threading.Event(), threading.Event()
        self.future = database.submit(self._wait)
        assert self._entered.wait(20)

    def _wait(self, tx: Connection) -> None:
        self._entered.set()
        assert self._go.wait(20)

    def let_go(self) -> None:
        self._go.set()


def test_a_result_comes_back_and_is_there_for_readers(database: Database) -> None:
    assert database.write(_add, "a") == "a"
    assert database.read(_names) == ["a"]


def test_a_failing_function_leaves_nothing_behind_and_raises_its_own_error(database: Database) -> None:
    with pytest.raises(ValueError, match="b"):
        database.write(_fail, "b")
    assert database.read(_names) == []


def test_a_violated_constraint_reaches_the_caller_as_it_is(database: Database) -> None:
    database.write(_add, "a")
    with pytest.raises(IntegrityError):
        database.write(_add, "a")
    assert database.write(_add, "b") == "b"


def test_concurrent_writers_all_get_their_own_result(database: Database) -> None:
    names = [f"n{number:02}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: database.write(_add, name), names)) == names
    assert database.read(_names) == names


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises((DatabaseUnreachableError, DBAPIError)):
        database.read(_add, "a")
    assert database.read(_names) == []


def test_an_error_of_the_database_names_no_values(database: Database) -> None:
    def broken(tx: Connection) -> None:
        tx.execute(text("SELECT nothing FROM nowhere WHERE x = :secret"), {"secret": "Doe^Jane"})

    with pytest.raises((DatabaseUnreachableError, DBAPIError)) as caught:
        database.write(broken)
    assert "Doe" not in str(caught.value)


class TestGroupCommit:
    @pytest.fixture
    def sqlite(self, sqlite_url: str) -> Iterator[Database]:
        from worker.database import upgrade

        engine = create_database_engine(sqlite_url)
        upgrade(engine)
        made = Database(engine)
        yield made
        made.close()

    @staticmethod
    def _commits(engine: Engine) -> list[int]:
        counted: list[int] = []
        event.listen(engine, "commit", lambda connection: counted.append(1))
        return counted

    def test_what_queues_up_shares_a_commit_and_a_bad_one_fails_alone(self, sqlite: Database) -> None:
        # Given a writer that is busy
        commits = self._commits(sqlite.engine)
        held = _Held(sqlite)
        # When several functions queue up, one of them bad
        good = [sqlite.submit(_add, name) for name in ("a", "b")]
        bad = sqlite.submit(_fail, "x")
        last = sqlite.submit(_add, "c")
        held.let_go()
        # Then the bad one fails alone, and all others came with one commit
        assert [future.result(20) for future in (*good, last)] == ["a", "b", "c"]
        with pytest.raises(ValueError, match="x"):
            bad.result(20)
        assert sqlite.read(_names) == ["a", "b", "c"]
        assert len(commits) == 1

    def test_no_result_before_the_commit(self, sqlite: Database) -> None:
        # Given a function that sees whether an earlier one of its group has its result already
        held = _Held(sqlite)
        first = sqlite.submit(_add, "a")
        early = sqlite.submit(lambda tx: first.done())
        held.let_go()
        assert early.result(20) is False
        assert first.result(20) == "a"

    def test_a_commit_that_fails_fails_everybody(self, sqlite: Database) -> None:
        # Given a disk that refuses the commit
        class DiskFullError(Exception):
            pass

        def refuse(connection: Any) -> None:
            event.remove(sqlite.engine, "commit", refuse)
            raise DiskFullError

        held = _Held(sqlite)
        event.listen(sqlite.engine, "commit", refuse)
        futures = [sqlite.submit(_add, name) for name in ("a", "b")]
        held.let_go()
        everybody: list[Future[Any]] = [held.future, *futures]
        for future in everybody:
            with pytest.raises(DiskFullError):
                future.result(20)
        # Then nothing was written, and the writer goes on
        assert sqlite.read(_names) == []
        assert sqlite.write(_add, "c") == "c"

    def test_a_failing_database_fails_the_whole_group_as_unreachable(self, sqlite: Database) -> None:
        held = _Held(sqlite)
        first = sqlite.submit(_add, "a")
        broken = sqlite.submit(lambda tx: tx.execute(text("SELECT * FROM no_such_table")))
        held.let_go()
        for future in (first, broken):
            with pytest.raises(DatabaseUnreachableError, match="check that it runs"):
                future.result(20)
        assert sqlite.read(_names) == []

    def test_no_error_ends_the_writer(self, sqlite: Database) -> None:
        def leave(tx: Connection) -> None:
            raise SystemExit

        with pytest.raises(SystemExit):
            sqlite.write(leave)
        assert sqlite.write(_add, "a") == "a"

    def test_closing_finishes_what_was_submitted_and_takes_no_more(self, sqlite: Database) -> None:
        held = _Held(sqlite)
        waiting = sqlite.submit(_add, "a")
        closing = threading.Thread(target=sqlite.close)
        closing.start()
        held.let_go()
        closing.join(20)
        assert waiting.result(20) == "a"
        with pytest.raises(DatabaseUnreachableError, match="closed"):
            sqlite.write(_add, "b")

    def test_closing_does_not_wait_for_ever_for_a_transaction_that_hangs(self, sqlite: Database) -> None:
        held = _Held(sqlite)
        assert not sqlite.close(timeout_s=0.01)
        held.let_go()
        held.future.result(20)
        assert sqlite.close(20)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is the point
    def test_nobody_waits_for_a_writer_that_is_gone(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a writer that something ends, with work behind the present one
        def end_it(*_: object) -> None:
            raise SystemExit

        monkeypatch.setattr(sqlite, "_take", lambda: None)
        held = _Held(sqlite)
        futures = [sqlite.submit(_add, "a"), sqlite.submit(_add, "b")]
        monkeypatch.setattr("worker.transactions._run_group", end_it)
        held.let_go()
        # Then everybody learns it, at once and later
        for future in futures:
            with pytest.raises(DatabaseUnreachableError, match="ended"):
                future.result(20)
        assert sqlite.close(20)
        assert not sqlite.running
        with pytest.raises(DatabaseUnreachableError, match="closed"):
            sqlite.write(_add, "c")

    def test_a_group_is_bounded(self, sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker.transactions._GROUP_LIMIT", 2)
        commits = self._commits(sqlite.engine)
        held = _Held(sqlite)
        futures = [sqlite.submit(_add, str(number)) for number in range(4)]
        held.let_go()
        assert [future.result(20) for future in futures] == ["0", "1", "2", "3"]
        assert len(commits) == 3


class TestUnreachable:
    def test_nobody_answers(self) -> None:
        database = Database(create_database_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"))
        with pytest.raises(DatabaseUnreachableError):
            database.write(_add, "a")
        with pytest.raises(DatabaseUnreachableError):
            database.read(_names)
        database.close()

    def test_no_connection_is_left_in_the_pool(self, postgres_url: str) -> None:
        # Given a pool of one connection that somebody holds
        engine = create_database_engine(postgres_url, pool_size=1, max_overflow=0, pool_timeout_s=0.05)
        database = Database(engine)
        with engine.connect():
            # Then the caller learns that it may come back, not about pools
            with pytest.raises(DatabaseUnreachableError):
                database.write(lambda tx: tx.scalar(select(1)))
            with pytest.raises(DatabaseUnreachableError):
                database.read(lambda tx: tx.scalar(select(1)))
        database.close()


def test_a_deadlock_is_nobodys_error(postgres_url: str) -> None:
    from worker.database import upgrade

    engine = create_database_engine(postgres_url)
    upgrade(engine)
    database = Database(engine)
    for name in ("a", "b"):
        database.write(_add, name)
    met = threading.Barrier(2)
    runs: list[str] = []

    def touch_both(tx: Connection, first: str, second: str) -> int:
        # Given two transactions that take two rows in opposite order, the first time that they run
        tx.execute(update(Lease).where(Lease.name == first).values(owner=first))
        runs.append(first)
        if runs.count(first) == 1:
            met.wait(20)
        return tx.execute(update(Lease).where(Lease.name == second).values(owner=first)).rowcount

    # Then both end well: the one that PostgreSQL picked as the victim ran again
    with ThreadPoolExecutor(2) as pool:
        orders = (("a", "b"), ("b", "a"))
        ends = [pool.submit(lambda each: database.write(touch_both, *each), order) for order in orders]
        assert [end.result(60) for end in ends] == [1, 1]
    assert len(runs) >= 3
    assert database.write(lambda tx: tx.execute(delete(Lease)).rowcount) == 2
    assert database.read(lambda tx: tx.scalar(select(func.count()).select_from(Lease))) == 0
    database.close()
