"""Which files may go under the retention rules: old ones of studies whose report was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from worker.schema import (
    Association,
    AssociationStudy,
    Delivery,
    DeliveryState,
    Document,
    DocumentState,
    HeaderVersion,
    Instance,
    InstanceState,
    Quarantined,
    Removal,
    Report,
    ReportState,
    Study,
    StudyState,
    db_now,
)


class Kind(StrEnum):
    """What a file is."""

    IMAGE = "IMAGE"
    REPORT = "REPORT"
    QUARANTINE = "QUARANTINE"


class Standing(StrEnum):
    """Where the current report of a study stands, once nothing of the study is in work."""

    DELIVERED = "DELIVERED"
    DEAD = "DEAD"
    """A destination refused it again and again: a dead letter."""
    UNSENT = "UNSENT"
    """It was written under `--no-delivery`."""


STATES = {
    Kind.IMAGE: (InstanceState.ANALYSED, InstanceState.REFUSED),
    Kind.REPORT: (ReportState.WRITTEN, ReportState.SUPERSEDED),
    Kind.QUARANTINE: ("RESOLVED",),
}
"""The states of rows whose files can go; an image that is RECEIVED, or a PENDING report, is in work."""


@dataclass(frozen=True)
class Rule:
    """Which files of one kind may go.

    Attributes:
        kind: Of what.
        older_than_s: Seconds since an image was received, a report written, a conflict resolved.
        states: States of the rows that name them; some of `STATES[kind]`.
        standings: Where the study's report may stand.
        committing: Destinations whose acceptance is not enough: they have to have committed.
    """

    kind: Kind
    older_than_s: float
    states: tuple[str, ...]
    standings: tuple[Standing, ...] = (Standing.DELIVERED,)
    committing: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredFile:
    """A file that a rule lets go; `at` is what its age counts from."""

    kind: Kind
    spool_path: str
    state: str
    standing: Standing
    study_id: int
    at: datetime


def window_end(tx: Connection, after: int, studies: int) -> int | None:
    """Return the id of the last of so many studies above `after`; None when there is none.

    Who looks for files goes from window to window: what a query costs depends on the window, not on how many
    studies there are, nor on how rarely a rule finds anything.
    """
    ids = select(Study.id).where(Study.id > after).order_by(Study.id).limit(studies).subquery()
    last: int | None = tx.scalar(select(func.max(ids.c.id)))
    return last


def studies_with_files(tx: Connection, rules: Sequence[Rule], after: int, up_to: int) -> list[int]:
    """Return the ids, ascending, above `after` and not above `up_to`, of studies with a file for a rule."""
    window = {"after": after, "up_to": up_to}
    return sorted({study_id for rule in rules for study_id in tx.scalars(_studies(rule), window)})


def files_of(tx: Connection, rules: Sequence[Rule], after: int, up_to: int) -> list[StoredFile]:
    """Return the files that the rules let go, of the studies above `after` and not above `up_to`."""
    return [
        StoredFile(rule.kind, row.spool_path, row.state, Standing(row.standing), row.study_id, row.at)
        for rule in rules
        for row in tx.execute(_files(rule), {"after": after, "up_to": up_to}).all()
    ]


def is_idle(tx: Connection, study_id: int) -> bool:
    """Say whether nothing of the study is in work, so that its files may go."""
    return tx.scalar(_is_idle(), {"study": study_id}) is not None


def kept(spool_path: InstrumentedAttribute[Any] | ColumnElement[Any]) -> ColumnElement[bool]:
    """A condition on a column of paths: the file did not go."""
    return ~exists(select(Removal.id).where(Removal.spool_path == spool_path))


def _idle() -> ColumnElement[bool]:
    """Nothing of the study is in work, on its way, or waits for a person's decision; it has its report."""
    waiting = select(Instance.id).where(
        Instance.study_id == Study.id, Instance.state == InstanceState.RECEIVED
    )
    links = select(Association.id).join(AssociationStudy, AssociationStudy.association_id == Association.id)
    connected = links.where(AssociationStudy.study_id == Study.id, Association.closed_at.is_(None))
    pending = _deliveries().where(Delivery.state == DeliveryState.PENDING)
    current = select(Report.id).where(
        Report.study_id == Study.id, Report.state == ReportState.WRITTEN, Report.sha256.is_not(None)
    )
    unmade = select(Document.id).join(Report, Report.id == Document.report_id)
    unmade = unmade.where(Report.study_id == Study.id, Document.state == DocumentState.PENDING)
    return and_(
        Study.state == StudyState.CLOSED,
        Study.reported_version >= Study.content_version,
        Study.withheld_reason.is_(None),
        or_(Study.claim_expires_at.is_(None), Study.claim_expires_at < db_now()),
        ~exists(waiting.correlate(Study)),
        ~exists(connected.correlate(Study)),
        ~exists(pending),
        ~exists(unmade.correlate(Study)),
        exists(current.correlate(Study)),
    )


def _deliveries() -> Select[int]:
    """Every delivery of the study, of old revisions too."""
    return (
        select(Delivery.id)
        .join(Report, Report.id == Delivery.report_id)
        .where(Report.study_id == Study.id)
        .correlate(Study)
    )


def _standing() -> ColumnElement[str]:
    current = _deliveries().where(Report.state == ReportState.WRITTEN)
    return case(
        (exists(current.where(Delivery.state == DeliveryState.DEAD)), literal(Standing.DEAD.value)),
        (~exists(current), literal(Standing.UNSENT.value)),
        else_=literal(Standing.DELIVERED.value),
    )


# To build these statements takes longer than to run them, and the writer waits meanwhile: they are kept.
@lru_cache(maxsize=32)
def _files(rule: Rule) -> Select[Any]:
    """Path, state, standing, study and moment of the files that the rule lets go, of a window of studies."""
    path, state, at, source = _source(rule.kind)
    uncommitted = _deliveries().where(
        Report.state == ReportState.WRITTEN,
        Delivery.destination.in_(rule.committing),
        Delivery.state == DeliveryState.ACCEPTED,
    )
    old = db_now(-rule.older_than_s)
    columns = (path, state.label("state"), _standing().label("standing"), Study.id.label("study_id"))
    return (
        source.with_only_columns(*columns, at.label("at"))
        .where(Study.id > bindparam("after"), Study.id <= bindparam("up_to"))
        .where(Study.created_at < old, _idle())  # the first spares the look at what is in a young one
        .where(at < old, state.in_(rule.states))
        .where(_standing().in_([each.value for each in rule.standings]), ~exists(uncommitted), kept(path))
    )


@lru_cache(maxsize=32)
def _studies(rule: Rule) -> Select[Any]:
    return select(_files(rule).subquery().c.study_id).distinct()


@lru_cache(maxsize=1)
def _is_idle() -> Select[Any]:
    return select(Study.id).where(Study.id == bindparam("study"), _idle())


def _source(kind: Kind) -> tuple[Any, Any, Any, Select[Any]]:
    """Columns of path, state and moment, and the tables that they come from."""
    if kind is Kind.REPORT:
        files = _report_files()
        reports = select(files.c.study_id).select_from(files).join(Study, Study.id == files.c.study_id)
        return files.c.spool_path, files.c.state, files.c.written_at, reports
    if kind is Kind.QUARANTINE:
        aside = select(Quarantined.id).select_from(Quarantined)
        aside = aside.join(Instance, Instance.id == Quarantined.instance_id)
        aside = aside.join(Study, Study.id == Instance.study_id)
        return Quarantined.spool_path, literal("RESOLVED"), Quarantined.resolved_at, aside
    later = aliased(HeaderVersion)
    again = exists().where(later.sha256 == HeaderVersion.sha256, later.id > HeaderVersion.id)
    images = select(HeaderVersion.id).select_from(HeaderVersion)
    images = images.join(Instance, Instance.id == HeaderVersion.instance_id)
    images = images.join(Study, Study.id == Instance.study_id)
    return HeaderVersion.spool_path, Instance.state, HeaderVersion.received_at, images.where(~again)


def _report_files() -> Subquery:
    """Files of reports and of the documents that went out with them; they share the report's state.

    The window of studies is in both parts: SQLite makes the whole of a union before it looks at a condition.
    """
    window = and_(Report.study_id > bindparam("after"), Report.study_id <= bindparam("up_to"))
    reports = select(Report.study_id, Report.spool_path, Report.state, Report.written_at).where(window)
    beside = (
        select(Report.study_id, Document.spool_path, Report.state, Document.written_at)
        .select_from(Document)
        .join(Report, Report.id == Document.report_id)
        .where(window)
    )
    return union_all(
        reports.where(Report.spool_path.is_not(None)), beside.where(Document.spool_path.is_not(None))
    ).subquery("report_files")
