"""What `export-training-set` asks: which cameras there are images of, and the images of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Integer, and_, cast, func, or_, select

from worker.schema import Finding, Instance, Study
from worker.store import disposable

_NOT_STATED = "(not stated)"


@dataclass(frozen=True)
class CameraStock:
    """What is stored of one camera, by the manufacturer and model that its headers state.

    Attributes:
        camera: The key that a camera rule gave; None for a camera that no rule names.
        manufacturer: (0008,0070).
        model_name: (0008,1090).
        exact: Whether the rule equals the whole model string, without which no adapter is ever used.
        images: SOP instances.
        patients: Patients, by their pseudonyms.
    """

    camera: str | None
    manufacturer: str
    model_name: str
    exact: bool
    images: int
    patients: int

    @property
    def name(self) -> str:
        """What it is called after `--camera`: its key, else manufacturer and model."""
        return self.camera or f"{self.manufacturer} {self.model_name}".strip() or _NOT_STATED


@dataclass(frozen=True)
class StoredImage:
    """One SOP instance in its current header version, and what is known of it.

    Attributes:
        study_id: Key of its study.
        sop_instance_uid: For messages to the admin; never exported.
        sop_class_uid: (0008,0016).
        spool_path: Path below the spool's root.
        sha256: What the file must have.
        patient_key: The installation's pseudonym of the patient; never exported.
        state: RECEIVED, ANALYSED or REFUSED.
        reason_code: Why it was refused.
        uid_conflict: Whether other pixels came under its UID.
        study_reason: Why its study's report is withheld.
        frame_reasons: Frame number to the reason code of its newest finding, None for one without.
    """

    study_id: int
    sop_instance_uid: str
    sop_class_uid: str
    spool_path: str
    sha256: str
    patient_key: str
    state: str
    reason_code: str | None
    uid_conflict: bool
    study_reason: str | None
    frame_reasons: Mapping[int, str | None] = field(default_factory=dict)


def cameras(tx: Connection) -> list[CameraStock]:
    """Return what is stored of each camera, most images first."""
    by = (Instance.camera, Instance.manufacturer, Instance.model_name)
    exact = func.max(cast(Instance.camera_exact, Integer))
    images, patients = func.count(), func.count(Instance.patient_key.distinct())
    statement = select(*by, exact, images, patients).group_by(*by)
    found = [CameraStock(*row[:3], bool(row[3]), *row[4:]) for row in tx.execute(statement).all()]
    return sorted(found, key=lambda stock: (-stock.images, stock.name, stock.model_name))


def images_of(
    tx: Connection, stocks: Sequence[CameraStock], since: datetime | None, until: datetime | None
) -> list[StoredImage]:
    """Return the images of cameras that were received at or after `since` and before `until`, if kept.

    Args:
        tx: The transaction.
        stocks: Rows of `cameras`; at least one.
        since: Aware; None for no limit.
        until: Likewise.
    """
    wanted = _among(stocks, since, until)
    columns = (
        Instance.id,
        Instance.study_id,
        Instance.sop_instance_uid,
        Instance.sop_class_uid,
        Instance.spool_path,
        Instance.sha256,
        Instance.patient_key,
        Instance.state,
        Instance.reason_code,
        Instance.uid_conflict,
        Study.withheld_reason.label("study_reason"),
    )
    there = disposable.kept(Instance.spool_path)
    statement = select(*columns).join(Study, Study.id == Instance.study_id).where(wanted, there)
    read = _frame_reasons(tx, wanted)
    found = []
    for row in tx.execute(statement).all():
        values = dict(row._mapping)
        found.append(StoredImage(frame_reasons=read.get(values.pop("id"), {}), **values))
    return found


def _frame_reasons(tx: Connection, wanted: ColumnElement[bool]) -> dict[int, dict[int, str | None]]:
    """Instance to frame to the reason of the newest finding, whichever bundle made it."""
    columns = (Finding.instance_id, Finding.frame_number, Finding.reason_code)
    statement = select(*columns).join(Instance, Instance.id == Finding.instance_id).where(wanted)
    reasons: dict[int, dict[int, str | None]] = {}
    for row in tx.execute(statement.order_by(Finding.id)):
        reasons.setdefault(row.instance_id, {})[row.frame_number] = row.reason_code
    return reasons


def _among(
    stocks: Sequence[CameraStock], since: datetime | None, until: datetime | None
) -> ColumnElement[bool]:
    each = (
        and_(
            Instance.camera.is_(None) if stock.camera is None else Instance.camera == stock.camera,
            Instance.manufacturer == stock.manufacturer,
            Instance.model_name == stock.model_name,
        )
        for stock in stocks
    )
    criteria = [or_(*each)]
    if since is not None:
        criteria.append(Instance.received_at >= since)
    if until is not None:
        criteria.append(Instance.received_at < until)
    return and_(*criteria)
