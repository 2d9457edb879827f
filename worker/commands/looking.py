"""The database as `status` and `requeue` open it: neither made nor altered: another process owns it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from worker import database as db
from worker.errors import DatabaseError
from worker.settings import Settings
from worker.transactions import Database


@contextmanager
def existing_database(settings: Settings) -> Iterator[Database]:
    """Connect to tables that are there and are this program's.

    Raises:
        DatabaseError: There is none, it cannot be reached, or its schema is another; the text has the remedy.
    """
    url = settings.resolved_database_url
    if url.startswith("sqlite") and not (file := Path(make_url(url).database or "")).exists():
        raise DatabaseError(
            f"there is no database {file} yet; start `fundus-worker serve`, or say with --config which "
            "installation is meant"
        )
    engine = db.create_database_engine(url)
    database = Database(engine)
    try:
        db.require_schema(engine)
        yield database
    finally:
        database.close()
