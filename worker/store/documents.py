"""Objects that go out beside a report: planned with it, made afterwards, delivered on their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, insert, select, union_all, update
from sqlalchemy.exc import IntegrityError

from worker.schema import (
    Delivery,
    DeliveryState,
    Document,
    DocumentKind,
    DocumentState,
    Report,
    ReportState,
    Study,
    db_now,
)

_UNFINISHED = (DocumentState.PENDING, DocumentState.FAILED)


@dataclass(frozen=True)
class PlannedDocument:
    """A document that a report is to have.

    Attributes:
        kind: PDF or OVERLAY.
        source_uid: SOP instance UID of the photograph that an overlay is of.
        source_frame: Its frame, 1-based; None for a single-frame object.
        destinations: (name, required) of each destination that gets it.
    """

    kind: DocumentKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    source_uid: str | None
    source_frame: int | None
    destinations: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class DueDocument:
    """A document that has to be made now; the columns of the same names."""

    id: int
    report_id: int
    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    source_uid: str | None
    source_frame: int | None
    attempts: int
    destinations: list[Any]


def plan(tx: Connection, report_id: int, planned: Sequence[PlannedDocument]) -> None:
    """Make the rows of a report's documents, in the transaction that makes the report the current one."""
    for each in planned:
        values = {**vars(each), "destinations": [list(name) for name in each.destinations]}
        moments = {"due_at": db_now(), "created_at": db_now()}
        tx.execute(insert(Document).values(**values, **moments, report_id=report_id, state=_PENDING))


_PENDING = DocumentState.PENDING.value


def _due() -> ColumnElement[bool]:
    """To be made now; of a document that is joined with its report."""
    current = Report.state == ReportState.WRITTEN
    return and_(Document.state == DocumentState.PENDING, Document.due_at <= db_now(), current)


def due_studies(tx: Connection, limit: int) -> list[tuple[int, int]]:
    """Return (id, priority) of studies of which a document can be made now."""
    statement = (
        select(Study.id, Study.priority)
        .join(Report, Report.study_id == Study.id)
        .join(Document, Document.report_id == Report.id)
        .where(_due())
        .distinct()
    )
    return [(int(row.id), int(row.priority)) for row in tx.execute(statement.order_by(Study.id).limit(limit))]


def due(tx: Connection, study_id: int) -> list[DueDocument]:
    """Return the documents of a study that can be made now, in the order of their planning."""
    columns = [getattr(Document, name) for name in DueDocument.__dataclass_fields__]
    statement = select(*columns).join(Report, Report.id == Document.report_id)
    rows = tx.execute(statement.where(Report.study_id == study_id, _due()).order_by(Document.id))
    return [DueDocument(**row._asdict()) for row in rows]


def written(tx: Connection, document: DueDocument, spool_path: str, sha256: str) -> bool:
    """Its file is durable: make its deliveries; False when its report was superseded meanwhile."""
    current = select(Report.id).where(Report.id == document.report_id, Report.state == ReportState.WRITTEN)
    if tx.scalar(current.with_for_update()) is None:
        return False
    values = {
        "state": DocumentState.WRITTEN,
        "spool_path": spool_path,
        "sha256": sha256,
        "written_at": db_now(),
        "reason_code": None,
        "reason_detail": None,
    }
    statement = update(Document).where(Document.id == document.id, Document.state == DocumentState.PENDING)
    if not tx.execute(statement.values(values)).rowcount:
        return False
    for name, required in document.destinations:
        tx.execute(insert(Delivery).values(_delivery(document.report_id, document.id, name, required)))
    return True


def left_out(tx: Connection, document_id: int, reason_code: str, detail: str) -> None:
    """There is nothing that it could be made from: that is final, and no failure."""
    _end(tx, document_id, DocumentState.LEFT_OUT, reason_code, detail)


def failed(
    tx: Connection, document_id: int, reason_code: str, detail: str, *, delay_s: float, final: bool
) -> None:
    """It could not be made: again after `delay_s`, or not again when `final`."""
    _end(tx, document_id, DocumentState.FAILED if final else DocumentState.PENDING, reason_code, detail)
    later = update(Document).where(Document.id == document_id)
    tx.execute(later.values(attempts=Document.attempts + 1, due_at=db_now(delay_s)))


def _end(tx: Connection, document_id: int, state: DocumentState, reason_code: str, detail: str) -> None:
    statement = update(Document).where(Document.id == document_id, Document.state == DocumentState.PENDING)
    tx.execute(statement.values(state=state, reason_code=reason_code, reason_detail=detail[:200]))


def failed_ids(tx: Connection, study_instance_uid: str | None) -> list[int]:
    """Return the ids of documents of current reports, or of one study's, that could not be made."""
    current = select(Report.id).where(Report.state == ReportState.WRITTEN)
    if study_instance_uid:
        current = current.where(Report.study_instance_uid == study_instance_uid)
    failed = select(Document.id).where(Document.state == DocumentState.FAILED)
    return list(tx.scalars(failed.where(Document.report_id.in_(current)).order_by(Document.id)))


def requeue(tx: Connection, document_ids: Sequence[int]) -> int:
    """Have failed documents made again, with fresh attempts; return how many."""
    statement = update(Document).where(Document.id.in_(document_ids), Document.state == DocumentState.FAILED)
    values = {"state": DocumentState.PENDING, "attempts": 0, "due_at": db_now()}
    return tx.execute(statement.values(values)).rowcount


def supersede(tx: Connection, report_id: int) -> None:
    """A newer revision has documents of its own: those that were not made yet are not made."""
    statement = update(Document).where(Document.report_id == report_id, Document.state.in_(_UNFINISHED))
    tx.execute(statement.values(state=DocumentState.LEFT_OUT))


def of_report(tx: Connection, report_id: int, kind: DocumentKind) -> list[tuple[str, str]]:
    """Return (SOP instance UID, series instance UID) of a report's documents of a kind that were made."""
    columns = (Document.sop_instance_uid, Document.series_instance_uid)
    statement = select(*columns).where(Document.report_id == report_id, Document.kind == kind)
    found = tx.execute(statement.where(Document.state == DocumentState.WRITTEN).order_by(Document.id))
    return [(row.sop_instance_uid, row.series_instance_uid) for row in found]


def add_missing(tx: Connection, destination: str, required: bool, kinds: Sequence[str], days: float) -> int:
    """Give a destination what was made for others and it wants too; return how many deliveries were added."""
    added = 0
    for row in tx.execute(_lacking(destination, kinds, days)).all():
        try:
            with tx.begin_nested():
                tx.execute(insert(Delivery).values(_delivery(row.report_id, row.id, destination, required)))
        except IntegrityError:  # another sweep was faster
            continue
        added += 1
    return added


def form(tx: Connection, sop_instance_uid: str) -> tuple[str, str] | None:
    """Return path and SHA-256 of a report in a lesser form; None when it was not made yet."""
    columns = select(Document.spool_path, Document.sha256)
    row = tx.execute(columns.where(Document.sop_instance_uid == sop_instance_uid)).one_or_none()
    return None if row is None else (str(row.spool_path), str(row.sha256))


def keep_form(
    tx: Connection, report_id: int, uids: tuple[str, str, str], spool_path: str, sha256: str
) -> None:
    """Record a report's form, made now or made again; `uids` are SOP class, SOP instance and series."""
    file = {"spool_path": spool_path, "sha256": sha256, "written_at": db_now()}
    again = update(Document).where(Document.sop_instance_uid == uids[1]).values(file)
    if tx.execute(again).rowcount:
        return
    values = {
        "report_id": report_id,
        "kind": DocumentKind.SR,
        "sop_class_uid": uids[0],
        "sop_instance_uid": uids[1],
        "series_instance_uid": uids[2],
        "destinations": [],
        "state": DocumentState.WRITTEN,
        "due_at": db_now(),
        "created_at": db_now(),
    }
    try:
        with tx.begin_nested():
            tx.execute(insert(Document).values(**values, **file))
    except IntegrityError:  # the delivery to another destination was faster, with the same bytes
        return


def unsettled(tx: Connection, destination: str, kinds: Sequence[str], days: float) -> bool:
    """Say whether `add_missing` or `withdraw` has anything to do; reads only."""
    unwanted = select(Delivery.id).where(_unwanted(destination, kinds)).limit(1)
    return (
        tx.scalar(unwanted) is not None or tx.execute(_lacking(destination, kinds, days)).first() is not None
    )


def withdraw(tx: Connection, destination: str, kinds: Sequence[str]) -> int:
    """Stop sending kinds that a destination does not want any more; return how many deliveries that ends."""
    statement = update(Delivery).where(_unwanted(destination, kinds))
    return tx.execute(statement.values(state=DeliveryState.SUPERSEDED)).rowcount


def _lacking(destination: str, kinds: Sequence[str], days: float) -> Select[int, int]:
    """Documents of current reports, of the last days, that a destination wants and has no delivery of.

    They go where their report goes: who does not get that, because of who sent the images, gets none of them.
    """
    own = select(Delivery.id).where(Delivery.destination == destination)
    has = exists(own.where(Delivery.document_id == Document.id))
    has_report = exists(own.where(Delivery.report_id == Document.report_id, Delivery.document_id.is_(None)))
    # From the few reports of these days to their documents: these have no index by age.
    recent = select(Report.id).where(
        Report.state == ReportState.WRITTEN, Report.written_at >= db_now(-days * 86400)
    )
    return (
        select(Document.id, Document.report_id)
        .where(Document.report_id.in_(recent), Document.kind.in_(kinds))
        .where(Document.state == DocumentState.WRITTEN, ~has, has_report)
        .limit(500)
    )


def _unwanted(destination: str, kinds: Sequence[str]) -> ColumnElement[bool]:
    # Each state by itself has an index of its own, that of those that wait, and that of those given up on.
    own = select(Delivery.id).where(Delivery.destination == destination)
    waiting = (own.where(Delivery.state == state) for state in (DeliveryState.PENDING, DeliveryState.DEAD))
    other = select(Document.id).where(Document.id == Delivery.document_id, Document.kind.not_in(kinds))
    return and_(Delivery.id.in_(union_all(*waiting)), exists(other))


def _delivery(report_id: int, document_id: int, destination: str, required: bool) -> dict[str, Any]:
    return {
        "report_id": report_id,
        "document_id": document_id,
        "destination": destination,
        "required": required,
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "due_at": db_now(),
        "created_at": db_now(),
    }
