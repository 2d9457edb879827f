"""Database rows with sensible values: a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from worker.schema import (
    Base,
    Bundle,
    Delivery,
    Document,
    EyeResult,
    Finding,
    HeaderVersion,
    Installation,
    Instance,
    Quarantined,
    Rejection,
    Removal,
    Report,
    Study,
)

Row = TypeVar("Row", bound=Base)
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after the tests' own ten o'clock, UTC."""
    return START + timedelta(seconds=seconds)


class Rows:
    """Adds rows to a session; each has its primary key when it is returned."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._number = count(1)

    def _add(self, row: Row) -> Row:
        self._session.add(row)
        self._session.flush()
        return row

    def _uid(self, kind: int) -> str:
        return f"1.2.3.{kind}.{next(self._number)}"

    def bundle(self, bundle_id: str = "reference-1", *, active: bool = True) -> Bundle:
        digest = f"{next(self._number):064x}"
        return self._add(
            Bundle(
                bundle_id=bundle_id,
                version="1",
                digest=digest,
                training_camera="kowa-vx-10",
                active=active,
                first_seen_at=START,
            )
        )

    def installation(self) -> str:
        namespace = "12345678-1234-4234-8234-123456789abc"
        self._session.add(Installation(id=1, uid_namespace=namespace, created_at=START))
        return namespace

    def study(self, **values: Any) -> Study:
        defaults = {
            "study_instance_uid": self._uid(1),
            "accession_number": "A1",
            "patient_key": "0" * 64,
            "state": "CLOSED",
            "content_version": 1,
            "reported_version": 1,
            "priority": 1,
            "created_at": START,
            "opened_at": START,
            "last_image_at": START,
            "close_due_at": at(120),
            "closed_at": at(120),
        }
        return self._add(Study(**{**defaults, **values}))

    def image(self, study: Study, **values: Any) -> Instance:
        defaults = {
            "sop_instance_uid": self._uid(3),
            "study_id": study.id,
            "series_instance_uid": "1.2.3.2",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
            "transfer_syntax_uid": "1.2.840.10008.1.2.4.50",
            "header_version": 1,
            "sha256": f"{next(self._number):064x}",
            "spool_path": "objects/00/0.dcm",
            "size_bytes": 1000,
            "number_of_frames": 1,
            "rows": 2848,
            "columns": 4288,
            "manufacturer": "Kowa",
            "model_name": "VX-10",
            "camera": "kowa-vx-10",
            "camera_exact": True,
            "route": "labelled",
            "lateralities": [["R", None]],
            "patient_key": "0" * 64,
            "header_key": "0" * 64,
            "calling_ae": "ROUTER",
            "priority": 1,
            "received_at": START,
            "state": "ANALYSED",
            "due_at": START,
            "analysed_at": at(5),
        }
        return self._add(Instance(**{**defaults, **values}))

    def header_version(self, image: Instance, **values: Any) -> HeaderVersion:
        defaults = {
            "instance_id": image.id,
            "version": image.header_version,
            "sha256": image.sha256,
            "spool_path": image.spool_path,
            "study_id": image.study_id,
            "patient_key": image.patient_key,
            "lateralities": image.lateralities,
            "received_at": image.received_at,
        }
        return self._add(HeaderVersion(**{**defaults, **values}))

    def waiting(self, study: Study, **values: Any) -> Instance:
        return self.image(study, **{"state": "RECEIVED", "analysed_at": None, **values})

    def refused(self, study: Study, **values: Any) -> Instance:
        return self.image(study, **{"state": "REFUSED", "reason_code": "PIXELS_UNREADABLE", **values})

    def finding(self, image: Instance, bundle: Bundle, **values: Any) -> Finding:
        defaults = {
            "instance_id": image.id,
            "frame_number": 1,
            "bundle_pk": bundle.id,
            "laterality": "R",
            "route": image.route,
            "adapter": image.adapter,
            "grade": 0,
            "grade_label": "No DR",
            "referable": False,
            "referable_probability": 0.125,
            "certainty": 0.75,
            "quality": 0.875,
            "engine": "onnx",
            "decode_ms": 30.0,
            "prepare_ms": 10.0,
            "engine_ms": 20.0,
            "created_at": at(5),
        }
        return self._add(Finding(**{**defaults, **values}))

    def report(self, study: Study, bundle: Bundle, **values: Any) -> Report:
        defaults = {
            "study_id": study.id,
            "bundle_pk": bundle.id,
            "revision": 1,
            "content_version": 1,
            "inputs_hash": "0" * 64,
            "state": "WRITTEN",
            "partial": False,
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
            "sop_instance_uid": self._uid(4),
            "series_instance_uid": "1.2.3.5",
            "study_instance_uid": study.study_instance_uid,
            "created_at": at(130),
            "written_at": at(130),
        }
        return self._add(Report(**{**defaults, **values}))

    def eye(self, report: Report, laterality: str, **values: Any) -> EyeResult:
        defaults = {"report_id": report.id, "laterality": laterality, "images": 1, "images_used": 1}
        return self._add(EyeResult(**{**defaults, **values}))

    def delivery(self, report: Report, destination: str = "pacs", **values: Any) -> Delivery:
        defaults = {
            "report_id": report.id,
            "destination": destination,
            "required": True,
            "state": "PENDING",
            "due_at": at(130),
            "created_at": at(130),
        }
        return self._add(Delivery(**{**defaults, **values}))

    def accepted(self, report: Report, destination: str, seconds: float, **values: Any) -> Delivery:
        defaults = {"state": "ACCEPTED", "accepted_at": at(seconds), "attempts": 1}
        return self.delivery(report, destination, **{**defaults, **values})

    def document(self, report: Report, **values: Any) -> Document:
        defaults = {
            "report_id": report.id,
            "kind": "PDF",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.104.1",
            "sop_instance_uid": self._uid(6),
            "series_instance_uid": "1.2.3.7",
            "destinations": [["pacs", True]],
            "state": "PENDING",
            "due_at": at(131),
            "created_at": at(131),
        }
        return self._add(Document(**{**defaults, **values}))

    def quarantined(self, image: Instance, **values: Any) -> Quarantined:
        defaults = {
            "instance_id": image.id,
            "sha256": f"{next(self._number):064x}",
            "spool_path": "quarantine/0.dcm",
            "reason_code": "UID_CONFLICT",
            "calling_ae": "ROUTER",
            "received_at": START,
        }
        return self._add(Quarantined(**{**defaults, **values}))

    def removal(self, study: Study, **values: Any) -> Removal:
        defaults = {
            "spool_path": f"objects/00/{next(self._number)}.dcm",
            "kind": "IMAGE",
            "state": "ANALYSED",
            "standing": "DELIVERED",
            "study_id": study.id,
            "size_bytes": 1000,
            "begun_at": START,
            "ended_at": START,
        }
        return self._add(Removal(**{**defaults, **values}))

    def rejection(self, **values: Any) -> Rejection:
        defaults = {
            "kind": "ASSOCIATION",
            "reason_code": "CALLED_AE_UNKNOWN",
            "calling_ae": "ROUTER",
            "called_ae": "WRONG",
            "peer_host": "127.0.0.1",
            "detail": "the called AE title is not FUNDUS",
            "count": 1,
            "first_at": START,
            "last_at": START,
        }
        return self._add(Rejection(**{**defaults, **values}))
