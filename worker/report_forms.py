"""A report in the form that a destination takes: made from its stored file when it is asked for, then kept.

The richest form is the one that is always written. Which one a destination has is in its delivery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import structlog
from pydicom import dcmread

from dicom_io.errors import SpoolDamagedError
from dicom_io.report_forms import FORMS, in_form
from dicom_io.report_parts import to_bytes
from dicom_io.sender import Parcel
from dicom_io.uids import derived_uid
from worker.runtime import Runtime
from worker.settings import Destination
from worker.store import documents
from worker.store.deliveries import DueDelivery

log = structlog.get_logger(__name__)


def forms_of(destination: Destination) -> tuple[str, ...]:
    """Return the SOP classes that a destination may be sent reports in, the best first."""
    return tuple(FORMS[name] for name in destination.sr_classes)


def form_uid(runtime: Runtime, sop_class_uid: str, sop_instance_uid: str) -> str:
    """Return the SOP instance UID of a report in a lesser form; always the same."""
    return derived_uid(runtime.namespace, "report-form", sop_class_uid, sop_instance_uid)


def form_of(runtime: Runtime, due: Mapping[int, DueDelivery], parcel: Parcel, sop_class_uid: str) -> Parcel:
    """Return a report's parcel under another SOP class; its file is durable, and a row names it.

    Raises:
        SpoolDamagedError: The report's own file is lost or altered.
        SpoolFullError, OSError: No room, or the disk cannot be read now.
    """
    delivery = due[parcel.key]
    uid = form_uid(runtime, sop_class_uid, parcel.sop_instance_uid)
    stored = runtime.database.read(documents.form, uid)
    path = None if stored is None else _sound(runtime, *stored)
    if path is None:
        path = _make(runtime, delivery, sop_class_uid, uid)
    return Parcel(parcel.key, path, sop_class_uid, uid)


def _sound(runtime: Runtime, spool_path: str, sha256: str) -> Path | None:
    try:
        runtime.spool.read_verified(spool_path, sha256)
    except SpoolDamagedError:
        return None  # it is made again, from the report's own file
    return runtime.spool.path(spool_path)


def _make(runtime: Runtime, delivery: DueDelivery, sop_class_uid: str, uid: str) -> Path:
    data = runtime.spool.read_verified(delivery.spool_path, delivery.sha256)
    report = dcmread(BytesIO(data))
    made = to_bytes(in_form(report, sop_class_uid, partial(form_uid, runtime, sop_class_uid)))
    path = f"reports/{uid}.dcm"
    runtime.spool.write_durable(path, made)
    runtime.database.write(
        documents.keep_form,
        delivery.report_id,
        (sop_class_uid, uid, str(report.SeriesInstanceUID)),
        path,
        hashlib.sha256(made).hexdigest(),
    )
    log.info("report_form_written", sop_class_uid=sop_class_uid, sop_instance_uid=uid)
    return runtime.spool.path(path)
