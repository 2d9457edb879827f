"""Objects that go out beside a report (PDF, overlays, other SOP classes), and their deliveries."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import sqlalchemy as sa
from alembic import op

from worker.errors import DatabaseError

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FOREIGN_KEY = "fk_deliveries_document"
FAILURES = (
    ("r.sop_instance_uid,", "COALESCE(d.sop_instance_uid, o.sop_instance_uid, r.sop_instance_uid),"),
    (
        "FROM deliveries d JOIN reports r ON r.id = d.report_id",
        "FROM deliveries d LEFT JOIN documents o ON o.id = d.document_id\n"
        "    JOIN reports r ON r.id = d.report_id",
    ),
)
DOCUMENT_FAILED = """
UNION ALL
SELECT 'document_failed', s.study_instance_uid, o.sop_instance_uid, s.accession_number,
    NULL, o.reason_code, o.reason_detail, o.due_at
FROM documents o JOIN reports r ON r.id = o.report_id JOIN studies s ON s.id = r.study_id
WHERE o.state = 'FAILED' AND r.state = 'WRITTEN'
"""
DELIVERIES = (
    (
        "d.id AS delivery_id",
        "d.id AS delivery_id,\n"
        "    COALESCE(o.kind, 'SR') AS kind,\n"
        "    COALESCE(d.sop_class_uid, o.sop_class_uid, r.sop_class_uid) AS sop_class_uid,\n"
        "    COALESCE(d.sop_instance_uid, o.sop_instance_uid, r.sop_instance_uid) AS sop_instance_uid",
    ),
    ("FROM deliveries d", "FROM deliveries d\nLEFT JOIN documents o ON o.id = d.document_id"),
)


def upgrade() -> None:
    """Make the table, let deliveries name its rows, and show both in the views."""
    connection = op.get_bind()
    views = _drop_views(connection)
    _make_documents()
    if connection.dialect.name == "sqlite":
        _make_deliveries_anew()
    else:
        _change_deliveries()
    op.create_index("ix_deliveries_report_id", "deliveries", ["report_id"])
    op.create_index("ix_deliveries_document_id", "deliveries", ["document_id"])
    _make_unique("uq_deliveries_report", "report_id", sa.text("document_id IS NULL"))
    _make_unique("uq_deliveries_document", "document_id", sa.text("document_id IS NOT NULL"))
    for statement in (*views, *_new_views(connection.dialect.name)):
        connection.exec_driver_sql(statement)


def _make_unique(name: str, column: str, where: sa.TextClause) -> None:
    op.create_index(
        name,
        "deliveries",
        [column, "destination"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )


def _change_deliveries() -> None:
    for column in _new_columns():
        op.add_column("deliveries", column)
    op.create_foreign_key(FOREIGN_KEY, "deliveries", "documents", ["document_id"], ["id"])
    op.drop_constraint("uq_deliveries_destination", "deliveries", type_="unique")


def _make_deliveries_anew() -> None:
    """SQLite cannot drop a constraint: a new table takes the rows over; no view stands on it now."""
    for name in ("ix_deliveries_dead", "ix_deliveries_pending"):
        op.drop_index(name, "deliveries")
    op.rename_table("deliveries", "deliveries_before")
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("required", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=48), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason_code", sa.String(length=48), nullable=True),
        sa.Column("reason_detail", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True),
        *_new_columns(),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"]),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name=FOREIGN_KEY),
        sa.PrimaryKeyConstraint("id"),
    )
    kept = (
        "id, report_id, destination, required, state, attempts, due_at, reason_code, reason_detail, "
        "created_at, accepted_at, committed_at"
    )
    op.execute(f"INSERT INTO deliveries ({kept}) SELECT {kept} FROM deliveries_before")  # noqa: S608 - constants
    op.drop_table("deliveries_before")
    for name, columns, state in (
        ("ix_deliveries_dead", ["report_id"], "DEAD"),
        ("ix_deliveries_pending", ["destination", "due_at"], "PENDING"),
    ):
        op.create_index(name, "deliveries", columns, sqlite_where=sa.text(f"state = '{state}'"))


def _new_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("document_id", sa.Integer(), nullable=True),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=True),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
    ]


def _drop_views(connection: sa.Connection) -> list[str]:
    """Drop the views that stand on the table; return what makes those again that stay as they are."""
    if connection.dialect.name != "sqlite":
        for name in ("v_failures", "v_deliveries"):
            op.execute(f"DROP VIEW {name}")
        return []
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'view' ORDER BY name"
    found = {str(row.name): str(row.sql) for row in connection.execute(sa.text(query))}
    for name in found:
        op.execute(f"DROP VIEW {name}")
    return [sql for name, sql in found.items() if name not in ("v_failures", "v_deliveries")]


def _new_views(dialect: str) -> list[str]:
    earlier = import_module("worker.migrations.versions.0002_views")
    texts = {"v_failures": FAILURES, "v_deliveries": DELIVERIES}
    statements = []
    for name, changes in texts.items():
        query = earlier.VIEWS[name]
        for old, new in changes:
            query = query.replace(old, new)
        query += DOCUMENT_FAILED if name == "v_failures" else ""
        statements.append(f"CREATE VIEW {name} AS\n{earlier._in_words_of(dialect, query)}")
    return statements


def _make_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=48), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("source_uid", sa.String(length=64), nullable=True),
        sa.Column("source_frame", sa.Integer(), nullable=True),
        sa.Column("destinations", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=48), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason_code", sa.String(length=48), nullable=True),
        sa.Column("reason_detail", sa.String(length=200), nullable=True),
        sa.Column("spool_path", sa.String(length=200), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.create_index("ix_documents_report_id", "documents", ["report_id"], unique=False)
    pending = sa.text("state = 'PENDING'")
    op.create_index(
        "ix_documents_pending",
        "documents",
        ["due_at"],
        unique=False,
        sqlite_where=pending,
        postgresql_where=pending,
    )


def downgrade() -> None:
    """Refuse, as everywhere."""
    raise DatabaseError("the schema cannot go back; restore the backup that was made before the upgrade")
