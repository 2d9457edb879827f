"""Files that were removed under the retention rules, and the view that shows them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.errors import DatabaseError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

VIEW = """
CREATE VIEW v_removed_files AS
SELECT
    s.study_instance_uid,
    s.accession_number,
    f.kind,
    f.state,
    f.standing,
    f.spool_path,
    f.size_bytes,
    f.begun_at,
    f.ended_at AS removed_at
FROM file_removals f
JOIN studies s ON s.id = f.study_id
"""


def upgrade() -> None:
    """Make the table and the view."""
    op.create_table(
        "file_removals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("spool_path", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=48), nullable=False),
        sa.Column("state", sa.String(length=48), nullable=False),
        sa.Column("standing", sa.String(length=48), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("spool_path"),
    )
    op.create_index("ix_file_removals_study_id", "file_removals", ["study_id"], unique=False)
    op.create_index("ix_file_removals_ended_at", "file_removals", ["ended_at"], unique=False)
    begun = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_file_removals_begun",
        "file_removals",
        ["study_id"],
        unique=False,
        sqlite_where=begun,
        postgresql_where=begun,
    )
    op.get_bind().exec_driver_sql(VIEW)


def downgrade() -> None:
    """Refuse, as everywhere."""
    raise DatabaseError("the schema cannot go back; restore the backup that was made before the upgrade")
