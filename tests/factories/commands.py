"""`fundus-worker`'s commands, run in this process or as a program, on an installation of a test's own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from factories.bundle import write_tiny_bundle
from factories.process import write_config
from factories.rows import Rows
from factories.servers import free_port
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from worker import database
from worker.cli import app

PROGRAM = Path(sys.executable).with_name("fundus-worker")


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended. White space is as printed; `words` has it collapsed."""

    status: int
    out: str
    err: str

    @property
    def words(self) -> str:
        return " ".join(f"{self.out} {self.err}".replace("│", " ").split())


def run(*arguments: str | Path, env: Mapping[str, str | None] | None = None) -> Answer:
    """Run a command in this process; what it changes in logging is put back. A bug's exception comes out."""
    with _logging_kept():
        result = CliRunner().invoke(
            app, [str(each) for each in arguments], env=dict(env or {}), catch_exceptions=False
        )
    return Answer(result.exit_code, result.stdout, result.stderr)


def program(*arguments: str | Path, cwd: Path) -> Answer:
    """Run a command as a program of its own, with no `FUNDUS_…` variables."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("FUNDUS_")}
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=180, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@contextmanager
def _logging_kept() -> Iterator[None]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level, logging.getLogger("pynetdicom").level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    try:
        yield
    finally:
        root.handlers[:], root.level = kept[:2]
        logging.getLogger("pynetdicom").setLevel(kept[2])
        sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
        structlog.reset_defaults()


def ago(**duration: float) -> datetime:
    """A moment before now, UTC."""
    return datetime.now(UTC) - timedelta(**duration)


@dataclass(frozen=True)
class Installation:
    """A configuration file, its tiny bundle, and the data folder beside it."""

    config: Path
    port: int
    pacs_port: int

    @property
    def folder(self) -> Path:
        return self.config.parent

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, *arguments: str | Path, env: Mapping[str, str | None] | None = None) -> Answer:
        """Run a command with this configuration."""
        return run(*arguments, "--config", self.config, env=env)

    def engine(self) -> Engine:
        """An engine of the embedded database, whose tables exist; dispose of it."""
        self.data.mkdir(exist_ok=True)
        engine = database.create_database_engine(f"sqlite:///{self.data / 'fundus.db'}")
        database.upgrade(engine)
        return engine

    @contextmanager
    def rows(self) -> Iterator[Rows]:
        """Rows that are in the database when the block ends."""
        engine = self.engine()
        try:
            with Session(engine) as session, session.begin():
                yield Rows(session)
        finally:
            engine.dispose()

    def states(self, table: str) -> list[str]:
        """The states of a table's rows, in the order of their keys."""
        engine = self.engine()
        try:
            with engine.connect() as connection:
                statement = f"SELECT state FROM {table} ORDER BY id"  # noqa: S608 - a test's own table name
                return [row[0] for row in connection.exec_driver_sql(statement)]
        finally:
            engine.dispose()


def install(folder: Path, *, pacs_port: int | None = None, **tables: Mapping[str, Any]) -> Installation:
    """Write a bundle and a configuration; nothing is started and no database is made."""
    write_tiny_bundle(folder / "bundle")
    port, pacs = free_port(), pacs_port or free_port()
    spool = {"spool": {"reserve_mb": 0}, **tables}
    config = write_config(folder, bundle="./bundle", port=port, pacs_port=pacs, **spool)
    return Installation(config, port, pacs)
