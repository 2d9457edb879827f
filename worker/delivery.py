"""Reports to their destinations: one association drains everything that is due, then the next look decides.

Only one process at a time drains a destination (a lease). Every resend sends the bytes that were stored,
verified before each send, so a destination that already has the object recognises it. A destination that
cannot be reached, or refuses the association, is tried for ever; one that refuses the object itself, with a
status, is tried `max_attempts` times, then the delivery is a dead letter that a person requeues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import structlog
from pydicom.uid import UID

from dicom_io.errors import SpoolDamagedError
from dicom_io.sender import Outcome, Parcel, Peer, send
from worker.backoff import backoff_s
from worker.caller_policy import kept_from
from worker.door_settings import tls_files
from worker.report_forms import form_of, forms_of
from worker.runtime import Runtime
from worker.settings import Destination, Settings
from worker.store import deliveries, documents, leases, reports
from worker.store.clock import now
from worker.store.deliveries import DueDelivery
from worker.store.reports import DestinationRow

log = structlog.get_logger(__name__)
_LEASE_S = 120.0
_RENEW_S = 20.0
"""The lease is renewed when an association has lasted so long since the last time."""
_NO_ASSOCIATION = frozenset({"PEER_UNREACHABLE", "PEER_TLS_FAILED", "PEER_REJECTED_ASSOCIATION"})
"""The destination, not the report, is the matter. A rejection that the destination calls permanent is one of
them: many say so while they start, or while their AE table is edited. (A lost connection may be the report's
doing.)"""
_NOT_TAKEN = "CONTEXT_NOT_ACCEPTED"
"""The destination takes nothing of this kind: other kinds go on."""
_BATCH = 50
"""Reports an association at most."""
_ADDED = 500
"""Missing deliveries that are added at most at one look."""


def add_missing(runtime: Runtime) -> None:
    """Give current reports the deliveries that whoever wrote them did not know of (idempotent)."""
    for each in runtime.settings.destinations:
        kept = kept_from(runtime.settings, each.name)
        if each.required and runtime.database.read(deliveries.missing, each.name, 1, kept):
            row = DestinationRow(each.name, each.required)
            added = runtime.database.write(deliveries.add, row, _ADDED, kept)
            log.warning("deliveries_added", destination=each.name, reports=added)
        _settle_documents(runtime, each)


def _settle_documents(runtime: Runtime, destination: Destination) -> None:
    """Send what was made for others and is wanted here too; end what is not wanted here any more."""
    kinds = destination.document_kinds
    if not runtime.database.read(documents.unsettled, destination.name, kinds, deliveries.MISSING_DAYS):
        return
    withdrawn = runtime.database.write(documents.withdraw, destination.name, kinds)
    wanted = (destination.name, destination.required, kinds, deliveries.MISSING_DAYS)
    added = runtime.database.write(documents.add_missing, *wanted)
    log.warning("documents_settled", destination=destination.name, withdrawn=withdrawn, added=added)


def deliver(runtime: Runtime, name: str) -> None:
    """Drain one destination; do nothing when somebody else is at it or it is not configured."""
    destination = next((each for each in runtime.settings.destinations if each.name == name), None)
    if destination is None:
        log.error("destination_unknown", destination=name, remedy="add the [[destination]] again, or requeue")
        return
    lease = f"deliver:{name}"
    lease_s = max(_LEASE_S, 4 * runtime.settings.timeout_s(destination))
    while (token := runtime.database.write(leases.acquire, lease, runtime.process_id, lease_s)) is not None:
        try:
            _drain(runtime, destination, partial(runtime.database.write, leases.renew, lease, token, lease_s))
        finally:
            runtime.database.write(leases.release, lease, token)
        # Somebody whose wake-up found the lease taken relies on this second look.
        if runtime.stopping.is_set() or not runtime.database.read(deliveries.due, name, 1):
            return


def _drain(runtime: Runtime, destination: Destination, renew: Callable[[], bool]) -> None:
    going_on = True
    while going_on and not runtime.stopping.is_set():
        due = runtime.database.read(deliveries.due, destination.name, _BATCH)
        going_on = bool(due) and renew() and _send(runtime, destination, due, renew)


def peer_of(settings: Settings, destination: Destination, timeout_s: float) -> Peer:
    """Return the peer that a destination is, called from our own AE title."""
    return Peer(
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae=settings.listener.ae_title,
        timeout_s=timeout_s,
        tls=tls_files(settings) if destination.tls else None,
        tls_check_name=destination.tls_check_name,
    )


def _send(
    runtime: Runtime, destination: Destination, due: Sequence[DueDelivery], renew: Callable[[], bool]
) -> bool:
    """Send over one association; False when there is nothing to be gained from a further one now."""
    settings = runtime.settings
    peer = peer_of(settings, destination, settings.timeout_s(destination))
    parcels = [
        Parcel(
            each.id,
            runtime.spool.path(each.spool_path),
            each.sop_class_uid,
            each.sop_instance_uid,
            forms=forms_of(destination) if each.kind == "SR" else (),
        )
        for each in due
        if _is_sound(runtime, destination, each)
    ]
    by_id = {each.id: each for each in due}

    def wanted(delivery_id: int) -> bool:
        return runtime.database.read(deliveries.is_sendable, delivery_id)

    renewed = time.monotonic()
    refused: set[str] = set()
    in_form = partial(form_of, runtime, by_id)
    for outcome in send(peer, parcels, stopping=runtime.stopping, wanted=wanted, in_form=in_form):
        if outcome.reason_code in _NO_ASSOCIATION:
            _postpone(runtime, destination, due, outcome)
            return False
        kind = by_id[outcome.key].kind
        if outcome.reason_code == _NOT_TAKEN:
            if kind not in refused:
                _postpone(runtime, destination, [each for each in due if each.kind == kind], outcome, kind)
            refused.add(kind)
            continue
        _record(runtime, destination, by_id[outcome.key], outcome)
        if runtime.stopping.is_set():
            return False
        if time.monotonic() - renewed > _RENEW_S:
            if not renew():  # somebody took over: what is left is theirs
                return False
            renewed = time.monotonic()
    return True


def _is_sound(runtime: Runtime, destination: Destination, delivery: DueDelivery) -> bool:
    """Say whether the stored file is what was written; if not, a new revision takes the report's place."""
    try:
        runtime.spool.read_verified(delivery.spool_path, delivery.sha256)
    except SpoolDamagedError as error:
        _replace(runtime, destination, delivery, str(error))
        return False
    except OSError as error:  # may pass; the others are sent
        kind = type(error).__name__
        log.error("report_not_readable", sop_instance_uid=delivery.sop_instance_uid, error=kind)
        _try_later(runtime, delivery, "INTERNAL_ERROR", f"the stored file could not be read ({kind})")
        return False
    return True


def _replace(runtime: Runtime, destination: Destination, delivery: DueDelivery, detail: str) -> None:
    log.error(
        "report_damaged",
        destination=destination.name,
        sop_instance_uid=delivery.sop_instance_uid,
        study_instance_uid=delivery.study_instance_uid,
    )
    _try_later(runtime, delivery, "SPOOL_FILE_DAMAGED", detail)
    runtime.database.write(reports.damaged, delivery.report_id)


def _try_later(runtime: Runtime, delivery: DueDelivery, reason_code: str, detail: str) -> float:
    """Put off one delivery for a reason that does not count as an attempt; return for how many seconds."""
    delay_s = _delay_s(runtime, delivery.created_at)
    runtime.database.write(
        deliveries.failed,
        delivery.id,
        reason_code=reason_code,
        detail=detail,
        delay_s=delay_s,
        counts=False,
    )
    return delay_s


def _postpone(
    runtime: Runtime,
    destination: Destination,
    due: Sequence[DueDelivery],
    outcome: Outcome,
    kind: str | None = None,
) -> None:
    """Put off all that is due, or all of a kind: the longer the oldest has waited, the longer."""
    delay_s = _delay_s(runtime, min(each.created_at for each in due))
    code = outcome.reason_code or "PEER_UNREACHABLE"
    count = runtime.database.write(
        deliveries.postpone,
        destination.name,
        reason_code=code,
        detail=outcome.detail,
        delay_s=delay_s,
        kind=kind,
    )
    log.warning(
        "destination_unreachable" if kind is None else "objects_not_accepted",
        destination=destination.name,
        kind=kind,
        reason_code=code,
        reports=count,
        retry_s=round(delay_s, 1),
    )


def _delay_s(runtime: Runtime, since: datetime) -> float:
    """Return when to try again what does not count as an attempt: the wait doubles with the time gone by."""
    settings = runtime.settings.delivery
    waited_s = max(0.0, (runtime.database.read(now) - since).total_seconds())
    failures = 1 + int(math.log2(1 + waited_s / settings.retry_base_s))
    return backoff_s(failures, settings.retry_base_s, settings.retry_max_s)


def _record(runtime: Runtime, destination: Destination, delivery: DueDelivery, outcome: Outcome) -> None:
    """Write how one report fared; the log names UIDs and statuses only."""
    fields = {
        "destination": destination.name,
        "sop_instance_uid": delivery.sop_instance_uid,
        "study_instance_uid": delivery.study_instance_uid,
    }
    if outcome.accepted:
        sop = outcome.sop or (delivery.sop_class_uid, delivery.sop_instance_uid)
        runtime.database.write(deliveries.accepted, delivery.id, outcome.detail or None, sop)
        log.info("report_accepted", kind=delivery.kind, sop_class=UID(sop[0]).name, **fields)
        return
    if outcome.reason_code == "SPOOL_FILE_DAMAGED":
        # Its bytes were right a moment ago: the next look tells damage from a file that could not be opened.
        _try_later(runtime, delivery, "SPOOL_FILE_DAMAGED", outcome.detail)
        return
    settings = runtime.settings.delivery
    code = outcome.reason_code or "STORE_FAILED"
    refused = outcome.status is not None and not outcome.retryable
    attempts = delivery.attempts + 1
    if refused and attempts >= settings.max_attempts:
        runtime.database.write(deliveries.dead, delivery.id, reason_code=code, detail=outcome.detail)
        log.error("delivery_dead", reason_code=code, status=outcome.status, **fields)
        return
    if refused:
        delay_s = backoff_s(attempts, settings.retry_base_s, settings.retry_max_s)
        runtime.database.write(
            deliveries.failed,
            delivery.id,
            reason_code=code,
            detail=outcome.detail,
            delay_s=delay_s,
            counts=True,
        )
    else:
        delay_s = _try_later(runtime, delivery, code, outcome.detail)
    log.warning(
        "delivery_failed", reason_code=code, status=outcome.status, retry_s=round(delay_s, 1), **fields
    )
