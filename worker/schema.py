"""The typed tables. The database row is the truth; messages only wake somebody up.

Every moment is UTC. Comparisons with "now" use the database's clock (`db_now`), never this host's, so that
machines whose clocks differ agree on what is due and whose claim has expired.

States
    instance  RECEIVED -> ANALYSED | REFUSED
    study     OPEN <-> CLOSED, with `content_version` counting what changed in it
    report    PENDING -> WRITTEN -> SUPERSEDED
    delivery  PENDING -> ACCEPTED -> COMMITTED | DEAD; SUPERSEDED when a newer revision replaced it unsent
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    literal,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

UID = String(64)
"""A DICOM UID: at most 64 characters (PS3.5 section 9.1)."""
AE_TITLE = String(16)
"""An application entity title: at most 16 characters (PS3.5 table 6.2-1, AE)."""
CODE = String(48)
"""A reason code, state, route or camera key."""
HASH = String(64)
"""A SHA-256 in lower-case hexadecimal."""


class InstanceState(StrEnum):
    """Where one image stands."""

    RECEIVED = "RECEIVED"
    ANALYSED = "ANALYSED"
    REFUSED = "REFUSED"


class StudyState(StrEnum):
    """Whether more images of a study are expected."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class ReportState(StrEnum):
    """Where one revision of a study's report stands."""

    PENDING = "PENDING"
    WRITTEN = "WRITTEN"
    SUPERSEDED = "SUPERSEDED"


class DeliveryState(StrEnum):
    """Where one report stands at one destination."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    COMMITTED = "COMMITTED"
    DEAD = "DEAD"
    SUPERSEDED = "SUPERSEDED"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; `timestamptz` on PostgreSQL, sortable ISO text on SQLite."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Use the time-zone aware type where the database has one."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values; hand SQLite naive UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):
    """The database's clock, plus an optional offset in seconds (a number or a bound expression)."""

    type = UtcDateTime()
    inherit_cache = True
    name = "db_now"

    def __init__(self, offset_s: float = 0.0) -> None:
        super().__init__(literal(float(offset_s), Float()))


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    """SQLite's clock has milliseconds, stored text microseconds: pad, so that text order is time order."""
    offset = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', ({offset}) || ' seconds') || '000')"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    """The statement's moment: it moves within a transaction, as SQLite's 'now' does between statements.

    `clock_timestamp` would move within a statement too, so a comparison with it cannot use an index.
    """
    offset = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => {offset}))"


class Base(DeclarativeBase):
    """Root of the mapped tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Installation(Base):
    """One row: what makes this installation's UIDs its own."""

    __tablename__ = "installation"
    id: Mapped[int] = mapped_column(primary_key=True)
    uid_namespace: Mapped[str] = mapped_column(String(36))
    created_at: Mapped[datetime]


class Process(Base):
    """A running process and when it was last seen; lets others release what a dead one held."""

    __tablename__ = "processes"
    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    role: Mapped[str] = mapped_column(CODE)
    host: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
    bundle_pk: Mapped[int | None] = mapped_column(ForeignKey("bundles.id"))
    """The models that it analyses with; None when it analyses nothing."""


class Lease(Base):
    """An exclusive, expiring right: draining one destination, sweeping."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    owner: Mapped[str] = mapped_column(String(96))
    token: Mapped[str] = mapped_column(String(32))
    expires_at: Mapped[datetime]


class Bundle(Base):
    """A model bundle that produced, or may produce, findings."""

    __tablename__ = "bundles"
    id: Mapped[int] = mapped_column(primary_key=True)
    bundle_id: Mapped[str] = mapped_column(String(96))
    version: Mapped[str] = mapped_column(String(48))
    digest: Mapped[str] = mapped_column(HASH, unique=True)
    training_camera: Mapped[str] = mapped_column(CODE)
    active: Mapped[bool]
    first_seen_at: Mapped[datetime]


class Association(Base):
    """An association that stored at least one object."""

    __tablename__ = "associations"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    process_id: Mapped[str] = mapped_column(String(96))
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    called_ae: Mapped[str] = mapped_column(AE_TITLE)
    peer_host: Mapped[str] = mapped_column(String(64))
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(CODE)

    __table_args__ = (
        Index(
            "ix_associations_open",
            "process_id",
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )


class AssociationStudy(Base):
    """Which studies an association touched: a study is not quiet while one of them is open."""

    __tablename__ = "association_studies"
    association_id: Mapped[str] = mapped_column(ForeignKey("associations.id"), primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, index=True)


class Study(Base):
    """A study: closes, is reported, and is reported again when its content changes."""

    __tablename__ = "studies"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    accession_number: Mapped[str | None] = mapped_column(String(64), index=True)
    patient_key: Mapped[str] = mapped_column(HASH)
    state: Mapped[str] = mapped_column(CODE)
    content_version: Mapped[int]
    reported_version: Mapped[int] = mapped_column(default=0)
    partial_version: Mapped[int] = mapped_column(default=0)
    priority: Mapped[int]
    expected_images: Mapped[int | None]
    withheld_reason: Mapped[str | None] = mapped_column(CODE)
    created_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    last_image_at: Mapped[datetime]
    close_due_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    report_deadline_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(String(200))
    claim_owner: Mapped[str | None] = mapped_column(String(96))
    claim_token: Mapped[str | None] = mapped_column(String(32))
    claim_expires_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_studies_open",
            "close_due_at",
            sqlite_where=text("state = 'OPEN'"),
            postgresql_where=text("state = 'OPEN'"),
        ),
        Index(
            "ix_studies_unreported",
            "due_at",
            sqlite_where=text("state = 'CLOSED' AND reported_version < content_version"),
            postgresql_where=text("state = 'CLOSED' AND reported_version < content_version"),
        ),
        # Few rows each, asked for whenever somebody looks at the dashboard.
        Index(
            "ix_studies_withheld",
            "last_image_at",
            sqlite_where=text("withheld_reason IS NOT NULL"),
            postgresql_where=text("withheld_reason IS NOT NULL"),
        ),
    )


class Instance(Base):
    """One acknowledged SOP instance in its current header version."""

    __tablename__ = "instances"
    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    header_version: Mapped[int]
    sha256: Mapped[str] = mapped_column(HASH, index=True)
    pixel_sha256: Mapped[str | None] = mapped_column(HASH)
    spool_path: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    number_of_frames: Mapped[int]
    rows: Mapped[int]
    columns: Mapped[int]
    manufacturer: Mapped[str] = mapped_column(String(64))
    model_name: Mapped[str] = mapped_column(String(64))
    camera: Mapped[str | None] = mapped_column(CODE)
    camera_exact: Mapped[bool]
    camera_rule: Mapped[str | None] = mapped_column(String(96))
    route: Mapped[str] = mapped_column(CODE)
    adapter: Mapped[str | None] = mapped_column(CODE)
    lateralities: Mapped[list[Any]]
    """One [value, reason_code] a frame: ["R", null], [null, "LATERALITY_UNKNOWN"]."""
    patient_key: Mapped[str] = mapped_column(HASH)
    issuer_key: Mapped[str | None] = mapped_column(HASH)
    """Who issued the identifier; without one, name and birth date. Two are two patients. NULL: not stated."""
    header_key: Mapped[str] = mapped_column(HASH)
    """Keyed digest of all of the header that the analysis or the report depends on."""
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    association_id: Mapped[str | None] = mapped_column(String(32))
    content_version: Mapped[int] = mapped_column(default=0)
    """The study's `content_version` of its last change: a report of that, or of a later one, covers it."""
    priority: Mapped[int]
    received_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(CODE)
    reason_code: Mapped[str | None] = mapped_column(CODE)
    reason_detail: Mapped[str | None] = mapped_column(String(200))
    uid_conflict: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    """Analyses that ended in an error."""
    claims: Mapped[int] = mapped_column(default=0)
    """Times a worker took it: counts the crashes that `attempts` cannot see."""
    due_at: Mapped[datetime]
    claim_owner: Mapped[str | None] = mapped_column(String(96))
    claim_token: Mapped[str | None] = mapped_column(String(32))
    claim_expires_at: Mapped[datetime | None]
    analysed_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_instances_pending",
            "due_at",
            sqlite_where=text("state = 'RECEIVED'"),
            postgresql_where=text("state = 'RECEIVED'"),
        ),
        Index(
            "ix_instances_refused",
            "received_at",
            sqlite_where=text("state = 'REFUSED'"),
            postgresql_where=text("state = 'REFUSED'"),
        ),
        Index("ix_instances_received_at", "received_at"),
    )


class HeaderVersion(Base):
    """Every header an instance came with; the highest version is the current one.

    A version that is sent again after another one is a new version of the same bytes.
    """

    __tablename__ = "header_versions"
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"))
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(HASH, index=True)
    spool_path: Mapped[str] = mapped_column(String(200))
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    patient_key: Mapped[str] = mapped_column(HASH)
    lateralities: Mapped[list[Any]]
    received_at: Mapped[datetime]
    association_id: Mapped[str | None] = mapped_column(String(32))
    """Over which these bytes came last; NULL: found in the spool, so that no sender was told of them."""

    __table_args__ = (UniqueConstraint("instance_id", "version", name="uq_header_versions_version"),)


class Quarantined(Base):
    """An object kept aside: other pixels under a UID that is already taken."""

    __tablename__ = "quarantined"
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"))
    sha256: Mapped[str] = mapped_column(HASH)
    spool_path: Mapped[str] = mapped_column(String(200))
    reason_code: Mapped[str] = mapped_column(CODE)
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    received_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    """When a person decided that the first object counts; NULL: the conflict stands."""
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), index=True)
    """The study that this object names: its report would lack this image. NULL: received before 0004."""

    __table_args__ = (UniqueConstraint("instance_id", "sha256", name="uq_quarantined_sha256"),)


class Removal(Base):
    """A file that was removed under the retention rules; other rows still name it.

    Written before the file goes (`ended_at` NULL: it may still be there) and completed after; deleted when
    the same bytes are received again.
    """

    __tablename__ = "file_removals"
    id: Mapped[int] = mapped_column(primary_key=True)
    spool_path: Mapped[str] = mapped_column(String(200), unique=True)
    kind: Mapped[str] = mapped_column(CODE)
    """IMAGE, REPORT or QUARANTINE."""
    state: Mapped[str] = mapped_column(CODE)
    """The state of the row that names the file, when the removal began."""
    standing: Mapped[str] = mapped_column(CODE)
    """DELIVERED, DEAD or UNSENT: where the study's report stood."""
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    begun_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)

    __table_args__ = (
        Index(
            "ix_file_removals_begun",
            "study_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )


class Finding(Base):
    """What one bundle read in one frame. `reason_code` NULL: fit for the report."""

    __tablename__ = "findings"
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"))
    frame_number: Mapped[int]
    bundle_pk: Mapped[int] = mapped_column(ForeignKey("bundles.id"))
    laterality: Mapped[str | None] = mapped_column(String(1))
    laterality_reason: Mapped[str | None] = mapped_column(CODE)
    route: Mapped[str] = mapped_column(CODE)
    adapter: Mapped[str | None] = mapped_column(CODE)
    grade: Mapped[int | None]
    grade_label: Mapped[str | None] = mapped_column(String(64))
    referable: Mapped[bool | None]
    referable_probability: Mapped[float | None]
    certainty: Mapped[float | None]
    quality: Mapped[float | None]
    probabilities: Mapped[list[Any] | None]
    reason_code: Mapped[str | None] = mapped_column(CODE)
    engine: Mapped[str] = mapped_column(CODE)
    field_fraction: Mapped[float | None]
    mean_red: Mapped[float | None]
    mean_green: Mapped[float | None]
    mean_blue: Mapped[float | None]
    decode_ms: Mapped[float]
    prepare_ms: Mapped[float]
    engine_ms: Mapped[float]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("instance_id", "frame_number", "bundle_pk", name="uq_findings_frame_bundle"),
    )


class Report(Base):
    """One revision of a study's structured report by one bundle."""

    __tablename__ = "reports"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    bundle_pk: Mapped[int] = mapped_column(ForeignKey("bundles.id"))
    revision: Mapped[int]
    content_version: Mapped[int]
    inputs_hash: Mapped[str] = mapped_column(HASH)
    state: Mapped[str] = mapped_column(CODE)
    partial: Mapped[bool]
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    study_instance_uid: Mapped[str] = mapped_column(UID)
    predecessor_id: Mapped[int | None] = mapped_column(ForeignKey("reports.id"), index=True)
    spool_path: Mapped[str | None] = mapped_column(String(200))
    sha256: Mapped[str | None] = mapped_column(HASH)
    created_at: Mapped[datetime]
    written_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("study_id", "bundle_pk", "revision", name="uq_reports_revision"),
        # "One current report": the database refuses a second WRITTEN row of one study and bundle.
        Index(
            "uq_reports_current",
            "study_id",
            "bundle_pk",
            unique=True,
            sqlite_where=text("state = 'WRITTEN'"),
            postgresql_where=text("state = 'WRITTEN'"),
        ),
        Index("ix_reports_written_at", "written_at"),
    )


class EyeResult(Base):
    """What a report says of one eye."""

    __tablename__ = "eye_results"
    id: Mapped[int] = mapped_column(primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("reports.id"))
    laterality: Mapped[str] = mapped_column(String(1))
    grade: Mapped[int | None]
    grade_label: Mapped[str | None] = mapped_column(String(64))
    referable: Mapped[bool | None]
    referable_probability: Mapped[float | None]
    certainty: Mapped[float | None]
    quality: Mapped[float | None]
    reason_code: Mapped[str | None] = mapped_column(CODE)
    images: Mapped[int]
    images_used: Mapped[int]

    __table_args__ = (UniqueConstraint("report_id", "laterality", name="uq_eye_results_eye"),)


class Delivery(Base):
    """One report on its way to one destination."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("reports.id"))
    destination: Mapped[str] = mapped_column(String(64))
    required: Mapped[bool]
    state: Mapped[str] = mapped_column(CODE)
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime]
    reason_code: Mapped[str | None] = mapped_column(CODE)
    reason_detail: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]
    committed_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("report_id", "destination", name="uq_deliveries_destination"),
        Index(
            "ix_deliveries_pending",
            "destination",
            "due_at",
            sqlite_where=text("state = 'PENDING'"),
            postgresql_where=text("state = 'PENDING'"),
        ),
        Index(
            "ix_deliveries_dead",
            "report_id",
            sqlite_where=text("state = 'DEAD'"),
            postgresql_where=text("state = 'DEAD'"),
        ),
    )


class Rejection(Base):
    """What was turned away at the door. Repeats within an hour share a row (`count`)."""

    __tablename__ = "rejections"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(CODE)
    reason_code: Mapped[str] = mapped_column(CODE)
    status: Mapped[int | None]
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    called_ae: Mapped[str] = mapped_column(AE_TITLE)
    peer_host: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str | None] = mapped_column(UID)
    sop_instance_uid: Mapped[str | None] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str | None] = mapped_column(UID)
    detail: Mapped[str] = mapped_column(Text)
    count: Mapped[int]
    fold_key: Mapped[str | None] = mapped_column(HASH, unique=True)
    """Equal for rejections that are folded into one row; NULL: never folded (it names an object)."""
    first_at: Mapped[datetime]
    last_at: Mapped[datetime] = mapped_column(index=True)
