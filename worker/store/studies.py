"""Studies: opening, closing, and the claim under which a report is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    case,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from worker.schema import (
    Association,
    AssociationStudy,
    Instance,
    InstanceState,
    Quarantined,
    Study,
    StudyState,
    db_now,
)
from worker.store.clock import new_token, now


@dataclass(frozen=True)
class ClosingPolicy:
    """When a study counts as complete; the fields are those of `[study]` in the settings."""

    close_on: str
    quiet_s: float
    max_open_s: float
    report_deadline_s: float
    expected_images: int | None


@dataclass(frozen=True)
class StudyClaim:
    """The right to write one study's report."""

    study_id: int
    study_instance_uid: str
    accession_number: str | None
    content_version: int
    token: str
    attempts: int
    partial: bool
    """True when images are unfinished and the report's deadline is over."""
    created_at: datetime
    closed_at: datetime


@dataclass(frozen=True)
class StudyContent:
    """What an object says of its study."""

    study_instance_uid: str
    accession_number: str | None
    patient_key: str
    priority: int
    related_instances: int | None


def touch(tx: Connection, content: StudyContent, policy: ClosingPolicy) -> int:
    """Create, keep open or reopen the study that new content belongs to; return its id."""
    study_id = _reopen(tx, content, policy)
    if study_id is not None:
        return study_id
    try:
        with tx.begin_nested():
            return _create(tx, content, policy)
    except IntegrityError:
        # Another association created it between our look and our insert.
        study_id = _reopen(tx, content, policy)
        if study_id is None:
            raise
        return study_id


def _create(tx: Connection, content: StudyContent, policy: ClosingPolicy) -> int:
    moment = now(tx)
    values = {
        "study_instance_uid": content.study_instance_uid,
        "accession_number": content.accession_number,
        "patient_key": content.patient_key,
        "state": StudyState.OPEN,
        "content_version": 1,
        "reported_version": 0,
        "partial_version": 0,
        "priority": content.priority,
        "expected_images": content.related_instances or policy.expected_images,
        "created_at": moment,
        "opened_at": moment,
        "last_image_at": moment,
        "close_due_at": _close_due(moment, moment, policy),
        "attempts": 0,
    }
    return int(tx.execute(insert(Study).values(values).returning(Study.id)).scalar_one())


def _reopen(tx: Connection, content: StudyContent, policy: ClosingPolicy) -> int | None:
    columns = (Study.id, Study.state, Study.opened_at, Study.priority, Study.expected_images)
    statement = select(*columns).where(Study.study_instance_uid == content.study_instance_uid)
    row = tx.execute(statement.with_for_update()).one_or_none()
    if row is None:
        return None
    moment = now(tx)
    opened_at = row.opened_at if row.state == StudyState.OPEN else moment
    values = {
        "state": StudyState.OPEN,
        "content_version": Study.content_version + 1,
        "opened_at": opened_at,
        "last_image_at": moment,
        "close_due_at": _close_due(opened_at, moment, policy),
        "closed_at": None,
        "report_deadline_at": None,
        "priority": min(content.priority, row.priority),
        "expected_images": content.related_instances or row.expected_images or policy.expected_images,
        "accession_number": content.accession_number or Study.accession_number,
        "attempts": 0,
        "due_at": None,
        "last_error": None,
    }
    tx.execute(update(Study).where(Study.id == row.id).values(values))
    return int(row.id)


def _close_due(opened_at: datetime, moment: datetime, policy: ClosingPolicy) -> datetime:
    latest = opened_at + timedelta(seconds=policy.max_open_s)
    if policy.close_on != "quiet":
        return latest
    return min(latest, moment + timedelta(seconds=policy.quiet_s))


def settle_content(tx: Connection, study_id: int, policy: ClosingPolicy) -> None:
    """After content changed: look for identity conflicts, and close now when the expected number is in."""
    # Locked before the count: what another transaction adds meanwhile is counted by the later of the two.
    tx.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    images, patients, issuers, conflicts = tx.execute(
        select(
            func.count(Instance.id),
            func.count(func.distinct(Instance.patient_key)),
            func.count(func.distinct(Instance.issuer_key)),  # where stated: NULL is none of them
            func.coalesce(func.sum(cast(Instance.uid_conflict, Integer)), 0),
        ).where(Instance.study_id == study_id)
    ).one()
    named = select(Quarantined.id).where(Quarantined.study_id == study_id, Quarantined.resolved_at.is_(None))
    conflicts = conflicts or tx.scalar(named.limit(1)) is not None
    reason = "UID_CONFLICT" if conflicts else "PATIENT_CONFLICT" if max(patients, issuers) > 1 else None
    values: dict[str, object] = {"withheld_reason": reason}
    if patients == 1:
        key = select(Instance.patient_key).where(Instance.study_id == study_id).limit(1)
        values["patient_key"] = key.scalar_subquery()
    if policy.close_on == "count":
        expected = tx.scalar(select(Study.expected_images).where(Study.id == study_id))
        if expected and images >= expected:
            values["close_due_at"] = db_now()
    tx.execute(update(Study).where(Study.id == study_id).values(values))


def close_due(tx: Connection, policy: ClosingPolicy, limit: int = 500) -> list[tuple[int, int]]:
    """Close every study whose time has come; return (id, priority) of each.

    A quiet study stays open while an association that touched it is open, but never beyond `max_open_s`.
    """
    busy = exists(
        select(AssociationStudy.study_id)
        .join(Association, Association.id == AssociationStudy.association_id)
        .where(AssociationStudy.study_id == Study.id, Association.closed_at.is_(None))
    )
    over = Study.opened_at < db_now(-policy.max_open_s)
    counted = func.coalesce(Study.expected_images, 0) > 0 if policy.close_on == "count" else over
    due = select(Study.id).where(
        Study.state == StudyState.OPEN, Study.close_due_at <= db_now(), or_(~busy, over, counted)
    )
    # The due time is asked for again outside: an image may have come while we waited for the row.
    which = and_(Study.close_due_at <= db_now(), Study.id.in_(due.limit(limit).scalar_subquery()))
    return _close(tx, which, policy)


def close_after_association(
    tx: Connection, association_id: str, policy: ClosingPolicy
) -> list[tuple[int, int]]:
    """Close the studies that this association touched and no other open one does; return (id, priority)."""
    mine = select(AssociationStudy.study_id).where(AssociationStudy.association_id == association_id)
    # Locked before the look at the others: of two associations that end at once, the second sees the first.
    tx.execute(select(Study.id).where(Study.id.in_(mine)).order_by(Study.id).with_for_update())
    others = (
        select(AssociationStudy.study_id)
        .join(Association, Association.id == AssociationStudy.association_id)
        .where(AssociationStudy.association_id != association_id, Association.closed_at.is_(None))
    )
    return _close(tx, and_(Study.id.in_(mine), Study.id.not_in(others)), policy)


def _close(tx: Connection, which: ColumnElement[bool], policy: ClosingPolicy) -> list[tuple[int, int]]:
    rows = tx.execute(
        update(Study)
        .where(Study.state == StudyState.OPEN, which)
        .values(
            state=StudyState.CLOSED,
            closed_at=db_now(),
            report_deadline_at=db_now(policy.report_deadline_s),
            due_at=db_now(),
        )
        .returning(Study.id, Study.priority)
    ).all()
    return [(int(row.id), int(row.priority)) for row in rows]


FILES_DAMAGED = "SPOOL_FILE_DAMAGED"
"""Withholds a report for as long as no file of the study is readable: it is tried again all the same."""


def _not_withheld() -> ColumnElement[bool]:
    return or_(Study.withheld_reason.is_(None), Study.withheld_reason == FILES_DAMAGED)


def _unfinished() -> ColumnElement[bool]:
    return exists(
        select(Instance.id).where(Instance.study_id == Study.id, Instance.state == InstanceState.RECEIVED)
    )


def _reportable() -> ColumnElement[bool]:
    """Closed, not withheld, and its content not reported yet: completely, or partially past the deadline."""
    complete = and_(Study.reported_version < Study.content_version, ~_unfinished())
    partial = and_(
        Study.partial_version < Study.content_version,
        Study.reported_version < Study.content_version,
        Study.report_deadline_at <= db_now(),
        _unfinished(),
    )
    return and_(
        Study.state == StudyState.CLOSED,
        Study.reported_version < Study.content_version,
        _not_withheld(),
        or_(Study.due_at.is_(None), Study.due_at <= db_now()),
        or_(Study.claim_expires_at.is_(None), Study.claim_expires_at < db_now()),
        or_(complete, partial),
    )


def unreported(tx: Connection, limit: int) -> list[tuple[int, int]]:
    """Return (id, priority) of studies whose report can be written now, most urgent and oldest first."""
    statement = select(Study.id, Study.priority).where(_reportable())
    rows = tx.execute(statement.order_by(Study.priority, Study.due_at).limit(limit)).all()
    return [(int(row.id), int(row.priority)) for row in rows]


def ready_for_report(tx: Connection, study_id: int) -> int | None:
    """Return the study's priority when its report can be written now, else None."""
    return tx.scalar(select(Study.priority).where(Study.id == study_id, _reportable()))


def claim(tx: Connection, study_id: int, owner: str, lease_s: float) -> StudyClaim | None:
    """Take the right to write the report; None when there is nothing to do or somebody else has it."""
    token = new_token()
    unfinished = tx.scalar(select(_unfinished()).select_from(Study).where(Study.id == study_id))
    row = tx.execute(
        update(Study)
        .where(Study.id == study_id, _reportable())
        .values(claim_owner=owner, claim_token=token, claim_expires_at=db_now(lease_s))
        .returning(
            Study.study_instance_uid,
            Study.accession_number,
            Study.content_version,
            Study.attempts,
            Study.created_at,
            Study.closed_at,
        )
    ).one_or_none()
    if row is None:
        return None
    return StudyClaim(
        study_id,
        row.study_instance_uid,
        row.accession_number,
        row.content_version,
        token,
        row.attempts,
        bool(unfinished),
        row.created_at,
        row.closed_at,
    )


def _mine(claimed: StudyClaim) -> ColumnElement[bool]:
    return and_(Study.id == claimed.study_id, Study.claim_token == claimed.token)


_NO_CLAIM = {"claim_owner": None, "claim_token": None, "claim_expires_at": None}


def reported(tx: Connection, claimed: StudyClaim) -> bool:
    """Record the claimed content version as reported and drop the claim; False when it was lost."""
    done = {"partial_version": claimed.content_version}
    if not claimed.partial:
        done["reported_version"] = claimed.content_version
    held = case((Study.withheld_reason == FILES_DAMAGED, None), else_=Study.withheld_reason)
    values = {**_NO_CLAIM, **done, "attempts": 0, "last_error": None, "withheld_reason": held}
    return bool(tx.execute(update(Study).where(_mine(claimed)).values(values)).rowcount)


def report_failed(tx: Connection, claimed: StudyClaim, error: str, delay_s: float) -> None:
    """Drop the claim and try again after `delay_s`; `error` holds no patient data (a type and a place)."""
    tx.execute(
        update(Study)
        .where(_mine(claimed))
        .values(**_NO_CLAIM, attempts=Study.attempts + 1, last_error=error[:200], due_at=db_now(delay_s))
    )


def files_damaged(tx: Connection, claimed: StudyClaim, delay_s: float) -> None:
    """Withhold the report: no file of the study is readable. Look again after `delay_s`."""
    report_failed(tx, claimed, FILES_DAMAGED, delay_s)
    unheld = update(Study).where(Study.id == claimed.study_id, Study.withheld_reason.is_(None))
    tx.execute(unheld.values(withheld_reason=FILES_DAMAGED))


def mark_emptied(tx: Connection, study_id: int) -> None:
    """Say of a study without images that a report of it stands at a destination; else do nothing."""
    has_images = exists(select(Instance.id).where(Instance.study_id == study_id))
    emptied = update(Study).where(Study.id == study_id, Study.withheld_reason.is_(None), ~has_images)
    tx.execute(emptied.values(withheld_reason="STUDY_EMPTIED"))


def give_back(tx: Connection, claimed: StudyClaim, report_deadline_s: float | None = None) -> None:
    """Drop the claim of a report that was not begun; a time is given when images are analysed anew first."""
    tx.execute(update(Study).where(_mine(claimed)).values(**_NO_CLAIM))
    if report_deadline_s is not None:
        _extend_deadline(tx, [claimed.study_id], report_deadline_s)


def holds(tx: Connection, claimed: StudyClaim) -> bool:
    """Say whether the claim is still this one, and keep it so until the transaction ends."""
    return tx.scalar(select(Study.id).where(_mine(claimed)).with_for_update()) is not None


def is_current(tx: Connection, claimed: StudyClaim) -> bool:
    """Say whether the study is still as it was claimed: nothing new in it, and nothing that withholds it."""
    statement = select(Study.id).where(
        _mine(claimed),
        Study.state == StudyState.CLOSED,
        Study.content_version == claimed.content_version,
        _not_withheld(),
    )
    return tx.scalar(statement.with_for_update()) is not None


def reopen_for_report(
    tx: Connection, study_ids: Sequence[int], report_deadline_s: float | None = None
) -> int:
    """Ask for a new revision; return of how many studies.

    Args:
        tx: The transaction.
        study_ids: Studies whose content has changed.
        report_deadline_s: Time for images that are analysed anew, before a partial report goes out.
    """
    values: dict[str, Any] = {
        "content_version": Study.content_version + 1,
        "attempts": 0,
        "due_at": db_now(),
        "last_error": None,
    }
    statement = update(Study).where(Study.id.in_(study_ids)).values(values)
    changed = tx.execute(statement).rowcount
    if report_deadline_s is not None:
        _extend_deadline(tx, study_ids, report_deadline_s)
    return changed


def _extend_deadline(tx: Connection, study_ids: Sequence[int], report_deadline_s: float) -> None:
    """A deadline that began with the closing says nothing of images that have to be analysed anew."""
    closed = update(Study).where(Study.id.in_(study_ids), Study.state == StudyState.CLOSED)
    tx.execute(closed.values(report_deadline_at=db_now(report_deadline_s)))


def release_owner(tx: Connection, owner: str) -> None:
    """Drop the claims of a process that is gone."""
    tx.execute(update(Study).where(Study.claim_owner == owner).values(**_NO_CLAIM))
