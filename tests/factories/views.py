"""Asking the views, with answers that do not depend on the database."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from worker.database import reading

BOOLEANS = {"referable", "reported", "partial", "required"}


def ask(session: Session, query: str) -> list[dict[str, Any]]:
    """Commit what was prepared and query; times, dates and booleans come out as Python's."""
    session.commit()
    assert isinstance(session.bind, Engine)
    with reading(session.bind).connect() as connection:
        return [
            {column: _plain(column, value) for column, value in row._mapping.items()}
            for row in connection.execute(text(query))
        ]


def _plain(column: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    if isinstance(value, int) and column in BOOLEANS:
        return bool(value)
    return value


def only(found: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in found]
