from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from factories.rows import Rows, at
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from worker.database import create_database_engine, upgrade
from worker.schema import Bundle, Finding, Instance, Lease, Rejection, Study, UtcDateTime, db_now

HALF_PAST_FIVE_EAST = timezone(timedelta(hours=5, minutes=30))


@pytest.fixture
def rows(session: Session) -> Rows:
    return Rows(session)


def _lease(name: str, expires_at: Any) -> Any:
    return insert(Lease).values(name=name, owner="o", token="t", expires_at=expires_at)


def test_a_moment_comes_back_in_utc_to_the_microsecond(engine: Engine) -> None:
    moment = datetime(2026, 3, 1, 4, 30, 0, 123456, tzinfo=HALF_PAST_FIVE_EAST)
    with engine.begin() as connection:
        connection.execute(_lease("a", moment))
        found = connection.scalar(select(Lease.expires_at))
    assert found == moment
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def test_a_moment_without_a_time_zone_is_refused(engine: Engine) -> None:
    naive = datetime(2026, 3, 1)
    with engine.connect() as connection, pytest.raises(StatementError, match="without a time zone"):
        connection.execute(_lease("a", naive))


@pytest.mark.parametrize("value", [None])
def test_no_moment_is_none(engine: Engine, value: None) -> None:
    assert UtcDateTime().process_result_value(value, engine.dialect) is None
    assert UtcDateTime().process_bind_param(value, engine.dialect) is None


def test_the_databases_clock_is_utc_and_takes_an_offset(engine: Engine) -> None:
    with engine.begin() as connection:
        now, later, earlier = connection.execute(select(db_now(), db_now(90), db_now(-0.5))).one()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=60)
    assert timedelta(seconds=89) < later - now < timedelta(seconds=91)
    assert timedelta(seconds=0.4) < now - earlier < timedelta(seconds=0.6)


def test_what_the_databases_clock_stored_compares_with_what_we_stored(engine: Engine) -> None:
    # Given: moments from this program, with and without a fraction, around the database's
    with engine.begin() as connection:
        now = connection.scalar(select(db_now()))
        assert now is not None
        connection.execute(_lease("the database's", db_now()))
        connection.execute(_lease("before, whole", (now - timedelta(seconds=1)).replace(microsecond=0)))
        connection.execute(_lease("after, whole", (now + timedelta(seconds=61)).replace(microsecond=0)))
        # When
        order = connection.scalars(select(Lease.name).order_by(Lease.expires_at)).all()
        due = connection.scalars(select(Lease.name).where(Lease.expires_at <= db_now())).all()
    # Then
    assert order == ["before, whole", "the database's", "after, whole"]
    assert set(due) == {"before, whole", "the database's"}


def test_the_databases_clock_moves_within_a_transaction(engine: Engine) -> None:
    pause = {"sqlite": "SELECT 1", "postgresql": "SELECT pg_sleep(0.005)"}[engine.dialect.name]
    with engine.begin() as connection:
        first = connection.scalar(select(db_now()))
        seen = first
        while seen == first:
            connection.execute(text(pause))
            seen = connection.scalar(select(db_now()))
        assert first is not None
        assert seen is not None
        assert seen > first


def test_a_comparison_with_the_databases_clock_uses_an_index(engine: Engine) -> None:
    query = select(Rejection.id).where(Rejection.last_at > db_now(-60))
    sql = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}[engine.dialect.name]
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + sql))
    assert "ix_rejections_last_at" in plan
    assert "Filter" not in plan


def test_a_study_has_one_current_report_a_bundle(session: Session, rows: Rows) -> None:
    study, bundle, other = rows.study(), rows.bundle(), rows.bundle("other")
    rows.report(study, bundle, state="SUPERSEDED", revision=1)
    rows.report(study, bundle, revision=2)
    rows.report(study, other, revision=1)
    rows.report(study, bundle, state="PENDING", revision=3)
    with pytest.raises(IntegrityError):
        rows.report(study, bundle, revision=4)


def test_a_frame_has_one_finding_a_bundle(session: Session, rows: Rows) -> None:
    image, bundle = rows.image(rows.study()), rows.bundle()
    rows.finding(image, bundle)
    rows.finding(image, bundle, frame_number=2)
    rows.finding(image, rows.bundle("other"))
    with pytest.raises(IntegrityError):
        rows.finding(image, bundle, grade=4)


def test_a_finding_needs_its_image(session: Session, rows: Rows) -> None:
    image, bundle = rows.image(rows.study()), rows.bundle()
    rows.finding(image, bundle)
    session.commit()
    with pytest.raises(IntegrityError):
        session.execute(update(Finding).values(instance_id=image.id + 1))


def test_lists_and_flags_come_back_as_they_went_in(session: Session, rows: Rows) -> None:
    study = rows.study()
    rows.image(study, lateralities=[["R", None], [None, "LATERALITY_UNKNOWN"]], size_bytes=2**40)
    rows.bundle(active=False)
    session.commit()
    session.expunge_all()
    image = session.scalars(select(Instance)).one()
    assert image.lateralities == [["R", None], [None, "LATERALITY_UNKNOWN"]]
    assert image.size_bytes == 2**40
    assert image.camera_exact is True
    assert image.received_at == at(0)
    assert session.scalars(select(Bundle.active)).one() is False
    assert session.scalar(select(func.count()).select_from(Study)) == 1


def test_every_reference_between_tables_has_an_index(sqlite_url: str) -> None:
    """Without one, `purge` would read the whole other table for each row that it deletes."""
    engine = create_database_engine(sqlite_url)
    upgrade(engine)
    missing = []
    with engine.connect() as connection:
        tables = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all()
        for table in tables:
            indexed = {
                connection.exec_driver_sql(f"PRAGMA index_info({row.name})").first()[2]  # type: ignore[index]  # an index has a column
                for row in connection.exec_driver_sql(f"PRAGMA index_list({table})").all()
                if not row.partial
            }
            for row in connection.exec_driver_sql(f"PRAGMA foreign_key_list({table})").all():
                if row[3] not in indexed and row[2] != "bundles":  # bundles are never deleted
                    missing.append((table, row[3]))
    engine.dispose()
    assert missing == []
