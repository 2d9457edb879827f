"""Analysis of instances: claims with token and expiry, and the ways an analysis can end.

A transition is one statement that checks state and token: a message delivered twice does its work once, and a
stalled worker whose claim was taken over cannot write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from worker.schema import Bundle, Finding, HeaderVersion, Instance, InstanceState, Quarantined, Study, db_now
from worker.store import retention, studies
from worker.store.clock import new_token


@dataclass(frozen=True)
class ImageClaim:
    """The right to analyse one instance, and what is needed for it."""

    instance_id: int
    study_id: int
    sop_instance_uid: str
    spool_path: str
    sha256: str
    route: str
    camera: str | None
    camera_exact: bool
    adapter: str | None
    sop_class_uid: str
    token: str
    attempts: int
    claims: int
    priority: int
    calling_ae: str = ""


@dataclass(frozen=True)
class FrameFinding:
    """What was read in one frame; the columns of `findings` of the same names."""

    frame_number: int
    route: str
    adapter: str | None
    grade: int | None
    grade_label: str | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    probabilities: list[float] | None
    reason_code: str | None
    engine: str
    field_fraction: float | None
    mean_red: float | None
    mean_green: float | None
    mean_blue: float | None
    decode_ms: float
    prepare_ms: float
    engine_ms: float


def _unclaimed() -> ColumnElement[bool]:
    return and_(
        Instance.state == InstanceState.RECEIVED,
        Instance.due_at <= db_now(),
        or_(Instance.claim_expires_at.is_(None), Instance.claim_expires_at < db_now()),
    )


def due(tx: Connection, limit: int) -> list[tuple[int, int]]:
    """Return (id, priority) of instances that wait for a worker, most urgent and oldest first."""
    statement = select(Instance.id, Instance.priority).where(_unclaimed())
    rows = tx.execute(statement.order_by(Instance.priority, Instance.due_at).limit(limit)).all()
    return [(int(row.id), int(row.priority)) for row in rows]


def claim(tx: Connection, instance_id: int, owner: str, lease_s: float) -> ImageClaim | None:
    """Take the right to analyse; None when it is done, not due yet, or in somebody else's hands."""
    token = new_token()
    row = tx.execute(
        update(Instance)
        .where(Instance.id == instance_id, _unclaimed())
        .values(
            claim_owner=owner,
            claim_token=token,
            claim_expires_at=db_now(lease_s),
            claims=Instance.claims + 1,
        )
        .returning(
            Instance.id,
            Instance.study_id,
            Instance.sop_instance_uid,
            Instance.spool_path,
            Instance.sha256,
            Instance.route,
            Instance.camera,
            Instance.camera_exact,
            Instance.adapter,
            Instance.sop_class_uid,
            Instance.attempts,
            Instance.claims,
            Instance.priority,
            Instance.calling_ae,
        )
    ).one_or_none()
    if row is None:
        return None
    values = row._asdict()
    return ImageClaim(instance_id=values.pop("id"), token=token, **values)


_NO_CLAIM: dict[str, Any] = {"claim_owner": None, "claim_token": None, "claim_expires_at": None}


def _mine(claimed: ImageClaim) -> ColumnElement[bool]:
    return and_(
        Instance.id == claimed.instance_id,
        Instance.claim_token == claimed.token,
        Instance.state == InstanceState.RECEIVED,
    )


def renew(tx: Connection, tokens: Sequence[str], lease_s: float) -> int:
    """Prolong the claims of one process that are still its own; return how many."""
    statement = update(Instance).where(
        Instance.claim_token.in_(tokens), Instance.state == InstanceState.RECEIVED
    )
    return tx.execute(statement.values(claim_expires_at=db_now(lease_s))).rowcount


def reroute(tx: Connection, claimed: ImageClaim, route: str, adapter: str | None) -> ImageClaim:
    """Record the way that the active bundle takes the image; it arrived under another one."""
    tx.execute(update(Instance).where(_mine(claimed)).values(route=route, adapter=adapter))
    return replace(claimed, route=route, adapter=adapter)


def finish(tx: Connection, claimed: ImageClaim, bundle_pk: int, findings: Sequence[FrameFinding]) -> bool:
    """Write findings and state together; False (and nothing written) when the claim was lost."""
    row = tx.execute(
        update(Instance)
        .where(_mine(claimed))
        .values(
            **_NO_CLAIM,
            state=InstanceState.ANALYSED,
            reason_code=None,
            reason_detail=None,
            analysed_at=db_now(),
        )
        .returning(Instance.lateralities)
    ).one_or_none()
    if row is None:
        return False
    old = delete(Finding).where(Finding.instance_id == claimed.instance_id, Finding.bundle_pk == bundle_pk)
    tx.execute(old)
    for finding in findings:
        # The side comes from the row as it is now: a corrected header may have come in meanwhile.
        value, reason = _side(row.lateralities, finding.frame_number)
        tx.execute(
            insert(Finding).values(
                **asdict(finding),
                instance_id=claimed.instance_id,
                bundle_pk=bundle_pk,
                laterality=value,
                laterality_reason=reason,
                created_at=db_now(),
            )
        )
    return True


def _side(lateralities: list[Any], frame_number: int) -> tuple[str | None, str | None]:
    if frame_number <= len(lateralities):
        value, reason = lateralities[frame_number - 1]
        return value, reason
    return None, "LATERALITY_UNKNOWN"


def refuse(tx: Connection, claimed: ImageClaim, reason_code: str, detail: str | None) -> bool:
    """End the analysis with a reason, which replaces what was read before; False when the claim was lost."""
    values = {
        **_NO_CLAIM,
        "state": InstanceState.REFUSED,
        "reason_code": _purged_or(tx, reason_code, claimed.spool_path),
        "reason_detail": None if detail is None else detail[:200],
        "analysed_at": db_now(),
    }
    if not tx.execute(update(Instance).where(_mine(claimed)).values(values)).rowcount:
        return False
    active = select(Bundle.id).where(Bundle.active).scalar_subquery()
    old = delete(Finding).where(Finding.instance_id == claimed.instance_id, Finding.bundle_pk.in_(active))
    tx.execute(old)
    return True


_FILE_DAMAGED = "SPOOL_FILE_DAMAGED"


def _purged_or(tx: Connection, reason_code: str, spool_path: str) -> str:
    """A file that is missing because its time was over is not damaged."""
    purged = reason_code == _FILE_DAMAGED and retention.is_removed(tx, spool_path)
    return "FILE_PURGED" if purged else reason_code


def refuse_damaged(tx: Connection, instance_id: int, damage: Callable[[str, int], str | None]) -> bool:
    """Refuse an instance that waits for its analysis and whose file is damaged; say whether it was.

    Args:
        tx: The transaction.
        instance_id: The instance.
        damage: Says what is wrong with the file of a spool path and size; None when nothing is. It is asked
            while the row is locked: a copy that comes again just now is placed before its row is looked at.
    """
    columns = (Instance.spool_path, Instance.size_bytes)
    waiting = (Instance.id == instance_id, Instance.state == InstanceState.RECEIVED)
    row = tx.execute(select(*columns).where(*waiting).with_for_update()).one_or_none()
    if row is None or (detail := damage(row.spool_path, row.size_bytes)) is None:
        return False
    values = {
        **_NO_CLAIM,
        "state": InstanceState.REFUSED,
        "reason_code": _purged_or(tx, _FILE_DAMAGED, row.spool_path),
        "reason_detail": detail[:200],
        "analysed_at": db_now(),
    }
    return bool(tx.execute(update(Instance).where(*waiting).values(values)).rowcount)


def retry(tx: Connection, claimed: ImageClaim, detail: str, delay_s: float) -> bool:
    """Put the instance back for `delay_s`; `detail` holds no patient data (a type and a place)."""
    values = {
        **_NO_CLAIM,
        "attempts": Instance.attempts + 1,
        "due_at": db_now(delay_s),
        "reason_detail": detail[:200],
    }
    return bool(tx.execute(update(Instance).where(_mine(claimed)).values(values)).rowcount)


def give_back(tx: Connection, claimed: ImageClaim, delay_s: float = 0.0) -> bool:
    """Put the instance back, as if it had not been taken: at shutdown, or for `delay_s` when too busy."""
    values = {**_NO_CLAIM, "claims": func.max(Instance.claims - 1, 0)}
    if delay_s > 0:
        values["due_at"] = db_now(delay_s)
    if tx.dialect.name != "sqlite":
        values["claims"] = func.greatest(Instance.claims - 1, 0)
    return bool(tx.execute(update(Instance).where(_mine(claimed)).values(values)).rowcount)


def release_owner(tx: Connection, owner: str) -> int:
    """Put back what a process that is gone had claimed; return how many."""
    statement = update(Instance).where(
        Instance.claim_owner == owner, Instance.state == InstanceState.RECEIVED
    )
    return tx.execute(statement.values(**_NO_CLAIM)).rowcount


def requeue(tx: Connection, instance_ids: Sequence[int], report_deadline_s: float | None = None) -> int:
    """Have refused instances analysed again, with fresh attempts, and reported; return how many."""
    values = {
        **_NO_CLAIM,
        "state": InstanceState.RECEIVED,
        "reason_code": None,
        "reason_detail": None,
        "attempts": 0,
        "claims": 0,
        "due_at": db_now(),
    }
    statement = update(Instance).where(Instance.id.in_(instance_ids), Instance.state == InstanceState.REFUSED)
    touched = tx.scalars(statement.values(values).returning(Instance.study_id)).all()
    studies.reopen_for_report(tx, sorted(set(touched)), report_deadline_s)
    version = select(Study.content_version).where(Study.id == Instance.study_id).scalar_subquery()
    tx.execute(update(Instance).where(Instance.id.in_(instance_ids)).values(content_version=version))
    return len(touched)


def unfinished_files(tx: Connection) -> list[tuple[int, str, int, str]]:
    """Return (id, spool path, size in bytes, SOP instance UID) of every instance not analysed yet."""
    statement = select(Instance.id, Instance.spool_path, Instance.size_bytes, Instance.sop_instance_uid)
    rows = tx.execute(statement.where(Instance.state == InstanceState.RECEIVED)).all()
    return [(row.id, row.spool_path, row.size_bytes, row.sop_instance_uid) for row in rows]


def known_hashes(tx: Connection, sha256s: Sequence[str]) -> set[str]:
    """Return those of the SHA-256 values that belong to a header version."""
    return set(tx.scalars(select(HeaderVersion.sha256).where(HeaderVersion.sha256.in_(sha256s))))


def quarantined_hashes(tx: Connection, sha256s: Sequence[str]) -> set[str]:
    """Return those of the SHA-256 values that belong to an object in quarantine."""
    return set(tx.scalars(select(Quarantined.sha256).where(Quarantined.sha256.in_(sha256s))))


def reanalyse(tx: Connection, instance_ids: Sequence[int]) -> int:
    """Have analysed instances read by the bundle that is active now; return how many."""
    values = {**_NO_CLAIM, "state": InstanceState.RECEIVED, "attempts": 0, "claims": 0, "due_at": db_now()}
    statement = update(Instance).where(
        Instance.id.in_(instance_ids), Instance.state == InstanceState.ANALYSED
    )
    return tx.execute(statement.values(values)).rowcount
