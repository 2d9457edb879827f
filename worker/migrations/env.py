"""What Alembic runs around each migration.

The program calls it through `worker.database.upgrade`, with a connection inside a transaction of its own.
Whoever writes a migration calls `alembic -x url=sqlite:///scratch.db revision --autogenerate -m "why"`.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from worker.database import create_database_engine
from worker.schema import Base, UtcDateTime


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write plain types into migrations: these stay as they are when the program's own types change."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    """Run the migrations that were asked for on one connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_item=render_item,
        transactional_ddl=True,  # SQLite can, now that transactions begin when they should
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = create_database_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.begin() as opened:
        run(opened)
    engine.dispose()
