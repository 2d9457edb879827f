"""How bytes came last, to know a retry, and which study an object in quarantine names."""

from __future__ import annotations

from alembic import op

from worker.errors import DatabaseError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE header_versions ADD COLUMN association_id VARCHAR(32)",
    "UPDATE header_versions SET association_id = "
    "(SELECT i.association_id FROM instances i WHERE i.id = header_versions.instance_id)",
    "ALTER TABLE quarantined ADD COLUMN study_id INTEGER REFERENCES studies (id)",
    "CREATE INDEX ix_quarantined_study_id ON quarantined (study_id)",
)


def upgrade() -> None:
    """Add the columns; what is known of earlier objects is the association of the first one."""
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Refuse, as everywhere."""
    raise DatabaseError("the schema cannot go back; restore the backup that was made before the upgrade")
