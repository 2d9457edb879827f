"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.errors import DatabaseError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table; there were none."""
    op.create_table(
        "associations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("process_id", sa.String(length=96), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("peer_host", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=48), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_associations_open",
        "associations",
        ["process_id"],
        unique=False,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "bundles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("bundle_id", sa.String(length=96), nullable=False),
        sa.Column("version", sa.String(length=48), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("training_camera", sa.String(length=48), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid_namespace", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("owner", sa.String(length=96), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("role", sa.String(length=48), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("bundle_pk", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["bundle_pk"], ["bundles.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "rejections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=48), nullable=False),
        sa.Column("reason_code", sa.String(length=48), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("peer_host", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=True),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("fold_key", sa.String(length=64), nullable=True),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("fold_key"),
    )
    op.create_index(op.f("ix_rejections_last_at"), "rejections", ["last_at"], unique=False)
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("accession_number", sa.String(length=64), nullable=True),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=48), nullable=False),
        sa.Column("content_version", sa.Integer(), nullable=False),
        sa.Column("reported_version", sa.Integer(), nullable=False),
        sa.Column("partial_version", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("expected_images", sa.Integer(), nullable=True),
        sa.Column("withheld_reason", sa.String(length=48), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_image_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("close_due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("report_deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(length=200), nullable=True),
        sa.Column("claim_owner", sa.String(length=96), nullable=True),
        sa.Column("claim_token", sa.String(length=32), nullable=True),
        sa.Column("claim_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("study_instance_uid"),
    )
    op.create_index(op.f("ix_studies_accession_number"), "studies", ["accession_number"], unique=False)
    op.create_index(
        "ix_studies_open",
        "studies",
        ["close_due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'OPEN'"),
        postgresql_where=sa.text("state = 'OPEN'"),
    )
    op.create_index(
        "ix_studies_unreported",
        "studies",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'CLOSED' AND reported_version < content_version"),
        postgresql_where=sa.text("state = 'CLOSED' AND reported_version < content_version"),
    )
    op.create_index(
        "ix_studies_withheld",
        "studies",
        ["last_image_at"],
        unique=False,
        sqlite_where=sa.text("withheld_reason IS NOT NULL"),
        postgresql_where=sa.text("withheld_reason IS NOT NULL"),
    )
    op.create_table(
        "association_studies",
        sa.Column("association_id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"],
            ["associations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.id"],
        ),
        sa.PrimaryKeyConstraint("association_id", "study_id"),
    )
    op.create_index(
        op.f("ix_association_studies_study_id"), "association_studies", ["study_id"], unique=False
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("header_version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("pixel_sha256", sa.String(length=64), nullable=True),
        sa.Column("spool_path", sa.String(length=200), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("number_of_frames", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("columns", sa.Integer(), nullable=False),
        sa.Column("manufacturer", sa.String(length=64), nullable=False),
        sa.Column("model_name", sa.String(length=64), nullable=False),
        sa.Column("camera", sa.String(length=48), nullable=True),
        sa.Column("camera_exact", sa.Boolean(), nullable=False),
        sa.Column("camera_rule", sa.String(length=96), nullable=True),
        sa.Column("route", sa.String(length=48), nullable=False),
        sa.Column("adapter", sa.String(length=48), nullable=True),
        sa.Column("lateralities", sa.JSON(), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("issuer_key", sa.String(length=64), nullable=True),
        sa.Column("header_key", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("association_id", sa.String(length=32), nullable=True),
        sa.Column("content_version", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=48), nullable=False),
        sa.Column("reason_code", sa.String(length=48), nullable=True),
        sa.Column("reason_detail", sa.String(length=200), nullable=True),
        sa.Column("uid_conflict", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim_owner", sa.String(length=96), nullable=True),
        sa.Column("claim_token", sa.String(length=32), nullable=True),
        sa.Column("claim_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("analysed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.create_index(
        "ix_instances_pending",
        "instances",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'RECEIVED'"),
        postgresql_where=sa.text("state = 'RECEIVED'"),
    )
    op.create_index("ix_instances_received_at", "instances", ["received_at"], unique=False)
    op.create_index(
        "ix_instances_refused",
        "instances",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text("state = 'REFUSED'"),
        postgresql_where=sa.text("state = 'REFUSED'"),
    )
    op.create_index(op.f("ix_instances_sha256"), "instances", ["sha256"], unique=False)
    op.create_index(op.f("ix_instances_study_id"), "instances", ["study_id"], unique=False)
    op.create_table(
        "reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("bundle_pk", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("content_version", sa.Integer(), nullable=False),
        sa.Column("inputs_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=48), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("predecessor_id", sa.Integer(), nullable=True),
        sa.Column("spool_path", sa.String(length=200), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["bundle_pk"],
            ["bundles.id"],
        ),
        sa.ForeignKeyConstraint(
            ["predecessor_id"],
            ["reports.id"],
        ),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sop_instance_uid"),
        sa.UniqueConstraint("study_id", "bundle_pk", "revision", name="uq_reports_revision"),
    )
    op.create_index(op.f("ix_reports_predecessor_id"), "reports", ["predecessor_id"], unique=False)
    op.create_index(
        "uq_reports_current",
        "reports",
        ["study_id", "bundle_pk"],
        unique=True,
        sqlite_where=sa.text("state = 'WRITTEN'"),
        postgresql_where=sa.text("state = 'WRITTEN'"),
    )
    op.create_index("ix_reports_written_at", "reports", ["written_at"], unique=False)
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
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["reports.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("report_id", "destination", name="uq_deliveries_destination"),
    )
    op.create_index(
        "ix_deliveries_dead",
        "deliveries",
        ["report_id"],
        unique=False,
        sqlite_where=sa.text("state = 'DEAD'"),
        postgresql_where=sa.text("state = 'DEAD'"),
    )
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["destination", "due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_table(
        "eye_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("laterality", sa.String(length=1), nullable=False),
        sa.Column("grade", sa.Integer(), nullable=True),
        sa.Column("grade_label", sa.String(length=64), nullable=True),
        sa.Column("referable", sa.Boolean(), nullable=True),
        sa.Column("referable_probability", sa.Double(), nullable=True),
        sa.Column("certainty", sa.Double(), nullable=True),
        sa.Column("quality", sa.Double(), nullable=True),
        sa.Column("reason_code", sa.String(length=48), nullable=True),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("images_used", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["reports.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("report_id", "laterality", name="uq_eye_results_eye"),
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("frame_number", sa.Integer(), nullable=False),
        sa.Column("bundle_pk", sa.Integer(), nullable=False),
        sa.Column("laterality", sa.String(length=1), nullable=True),
        sa.Column("laterality_reason", sa.String(length=48), nullable=True),
        sa.Column("route", sa.String(length=48), nullable=False),
        sa.Column("adapter", sa.String(length=48), nullable=True),
        sa.Column("grade", sa.Integer(), nullable=True),
        sa.Column("grade_label", sa.String(length=64), nullable=True),
        sa.Column("referable", sa.Boolean(), nullable=True),
        sa.Column("referable_probability", sa.Double(), nullable=True),
        sa.Column("certainty", sa.Double(), nullable=True),
        sa.Column("quality", sa.Double(), nullable=True),
        sa.Column("probabilities", sa.JSON(), nullable=True),
        sa.Column("reason_code", sa.String(length=48), nullable=True),
        sa.Column("engine", sa.String(length=48), nullable=False),
        sa.Column("field_fraction", sa.Double(), nullable=True),
        sa.Column("mean_red", sa.Double(), nullable=True),
        sa.Column("mean_green", sa.Double(), nullable=True),
        sa.Column("mean_blue", sa.Double(), nullable=True),
        sa.Column("decode_ms", sa.Double(), nullable=False),
        sa.Column("prepare_ms", sa.Double(), nullable=False),
        sa.Column("engine_ms", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["bundle_pk"],
            ["bundles.id"],
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("instance_id", "frame_number", "bundle_pk", name="uq_findings_frame_bundle"),
    )
    op.create_table(
        "header_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("spool_path", sa.String(length=200), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("lateralities", sa.JSON(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
        ),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("instance_id", "version", name="uq_header_versions_version"),
    )
    op.create_index(op.f("ix_header_versions_sha256"), "header_versions", ["sha256"], unique=False)
    op.create_index(op.f("ix_header_versions_study_id"), "header_versions", ["study_id"], unique=False)
    op.create_table(
        "quarantined",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("spool_path", sa.String(length=200), nullable=False),
        sa.Column("reason_code", sa.String(length=48), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("instance_id", "sha256", name="uq_quarantined_sha256"),
    )


def downgrade() -> None:
    """Refuse: everything ever received would be lost."""
    raise DatabaseError("the schema cannot go back; restore the backup that was made before the upgrade")
