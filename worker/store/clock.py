"""The database's clock, and tokens that tell one claim from the next."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import Connection, select

from worker.schema import db_now


def now(tx: Connection) -> datetime:
    """Return the database's time, aware UTC."""
    value = tx.scalar(select(db_now()))
    if not isinstance(value, datetime):
        raise TypeError(f"the database's clock returned {type(value).__name__}")
    return value


def new_token() -> str:
    """Return a token (32 hexadecimal digits) that no earlier claim had."""
    return secrets.token_hex(16)
