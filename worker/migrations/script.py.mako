"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.errors import DatabaseError

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say what changes, and how old and new programs get along with it."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Refuse: what a newer release stored would be lost."""
    raise DatabaseError("the schema cannot go back; restore the backup that was made before the upgrade")
