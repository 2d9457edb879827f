from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, inspect, text

from worker.database import MIGRATIONS, create_database_engine, require_schema, schema_problem, upgrade
from worker.errors import (
    DatabaseError,
    DatabaseUnreachableError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
)
from worker.schema import Base


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def _definitions(engine: Engine) -> set[str]:
    """Every table, constraint and index (its predicate too) as the database itself describes it."""
    queries = {
        "sqlite": ["SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"],
        "postgresql": [
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "SELECT conrelid::regclass || ' ' || conname || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace",
            "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || ' '"
            " || coalesce(character_maximum_length, 0) || ' ' || coalesce(column_default, '')"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN"
            " (SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE')",
        ],
    }
    with engine.connect() as connection:
        found = [row for query in queries[engine.dialect.name] for row in connection.scalars(text(query))]
    return {"".join(re.split(r"[\s,]+", each)) for each in found if "alembic_version" not in each}


def test_the_migrations_make_exactly_the_mapped_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_what_the_comparison_does_not_look_at_is_the_same_too(engine: Engine) -> None:
    migrated = _definitions(engine)
    with engine.begin() as connection:
        for view in inspect(connection).get_view_names():
            connection.execute(text(f'DROP VIEW "{view}"' + (" CASCADE" if _is_postgres(engine) else "")))
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
    assert {_sorted_letters(each) for each in migrated} == {
        _sorted_letters(each) for each in _definitions(engine)
    }


def _is_postgres(engine: Engine) -> bool:
    return engine.dialect.name == "postgresql"


def _sorted_letters(definition: str) -> str:
    """SQLite keeps the statement's text, in which constraints may stand in another order."""
    return "".join(sorted(definition))


def test_an_empty_database_is_said_to_be_empty(empty_engine: Engine) -> None:
    assert schema_problem(empty_engine) == "the database has no tables yet; run `fundus-worker db upgrade`"
    with pytest.raises(SchemaMissingError):
        require_schema(empty_engine)


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    before = _definitions(engine)
    assert schema_problem(engine) is None
    upgrade(engine)
    assert _definitions(engine) == before


def test_older_tables_are_named_and_brought_up_to_date(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        command.upgrade(_config(connection), "0001")
    problem = schema_problem(empty_engine)
    assert problem is not None
    assert "0001" in problem
    assert "fundus-worker db upgrade" in problem
    with pytest.raises(SchemaOutdatedError):
        require_schema(empty_engine)
    upgrade(empty_engine)
    assert schema_problem(empty_engine) is None


def test_tables_of_a_newer_release_are_left_alone(engine: Engine) -> None:
    _set_revision(engine, "9999")
    problem = schema_problem(engine)
    assert problem is not None
    assert "9999" in problem
    assert "newer release" in problem
    with pytest.raises(SchemaTooNewError):
        upgrade(engine)
    with pytest.raises(SchemaTooNewError):
        require_schema(engine)


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_going_back_is_refused_and_nothing_is_lost(engine: Engine, revision: str) -> None:
    target = {"0001": "base", "0002": "0001"}[revision]
    _set_revision(engine, revision)
    with pytest.raises(DatabaseError, match="restore the backup"), engine.begin() as connection:
        command.downgrade(_config(connection), target)
    assert "instances" in inspect(engine).get_table_names()


def test_a_migration_that_fails_leaves_nothing_behind(empty_engine: Engine) -> None:
    # Given: a database in which one of the later tables cannot be made
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE eye_results (id INTEGER)"))
    # When
    with pytest.raises(Exception, match="eye_results"):
        upgrade(empty_engine)
    # Then: what had been made before it is gone again
    assert inspect(empty_engine).get_table_names() == ["eye_results"]
    assert isinstance(schema_problem(empty_engine), str)


def _upgrade_in_a_process(url: str, barrier: object) -> None:
    barrier.wait(60)  # type: ignore[attr-defined]  # the barrier's type has no public name
    engine = create_database_engine(url)
    upgrade(engine)
    assert schema_problem(engine) is None
    engine.dispose()


def test_processes_that_start_together_do_not_race(database_url: str) -> None:
    # Given
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(4)
    processes = [spawn.Process(target=_upgrade_in_a_process, args=(database_url, barrier)) for _ in range(4)]
    # When
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    # Then
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


@contextmanager
def _statements(engine: Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def test_a_database_that_is_up_to_date_is_only_read(engine: Engine) -> None:
    with _statements(engine) as seen:
        upgrade(engine)
    assert not [each for each in seen if re.match(r"(CREATE|INSERT|UPDATE|ALTER|DROP)", each)]


def test_no_server_is_an_error_of_our_own_without_the_password(sqlite_url: str) -> None:
    engine = create_database_engine("postgresql+psycopg://fundus:geheim@127.0.0.1:1/fundus")
    for function in (upgrade, schema_problem, require_schema):
        with pytest.raises(DatabaseUnreachableError, match="check database_url") as caught:
            function(engine)
        assert "geheim" not in str(caught.value)
    engine.dispose()


def test_the_wheel_makes_the_tables_outside_the_clone(tmp_path: Path) -> None:
    # Given
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # When
    program = (
        "from worker import database; from sys import argv;"
        "engine = database.create_database_engine(argv[1]); database.upgrade(engine);"
        "print(database.MIGRATIONS); print(database.schema_problem(engine))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path}/fundus.db"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    # Then
    assert done.stdout.splitlines() == [str(site / "worker" / "migrations"), "None"]


def test_a_new_migration_starts_from_a_template_with_plain_types(tmp_path: Path) -> None:
    # Given: what whoever writes a migration has: Alembic's own command, here on a copy without our migrations
    copy = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, copy, ignore=shutil.ignore_patterns("0*", "__pycache__"))
    (copy / "versions").mkdir(exist_ok=True)
    config = Config(cmd_opts=Namespace(x=[f"url=sqlite:///{tmp_path}/scratch.db"]))
    config.set_main_option("script_location", str(copy))
    # When
    command.revision(config, "the tables", autogenerate=True, rev_id="0001")
    # Then
    (written,) = (copy / "versions").glob("*.py")
    source = written.read_text()
    compile(source, written, "exec")
    assert "sa.DateTime(timezone=True)" in source
    assert "UtcDateTime" not in source
    assert "restore the backup" in source
    # And: it works
    command.upgrade(config, "head")
    engine = create_database_engine(f"sqlite:///{tmp_path}/scratch.db")
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    engine.dispose()
