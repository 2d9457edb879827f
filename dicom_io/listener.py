"""DICOM listener: C-ECHO and C-STORE as SCP, every object and every refusal reported once.

`Listener` turns what happens on the wire into the four calls of `ListenerEvents`; what to do about
it is decided there.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext

from dicom_io.acceptor import Acceptor
from dicom_io.admission import Admission, caller_of
from dicom_io.answers import CANNOT_UNDERSTAND, SUCCESS, answer
from dicom_io.callers import CallerRule, Callers
from dicom_io.errors import DicomIoError
from dicom_io.incoming import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IncomingFile,
)
from dicom_io.limits import PDU_BYTES, Limits
from dicom_io.listener_events import Caller, ListenerEvents, ReceivedObject, TurnedAway
from dicom_io.refusals import Refusal
from dicom_io.server import Server
from dicom_io.sop_classes import IMAGE_SOP_CLASSES, IMAGE_TRANSFER_SYNTAXES, UNCOMPRESSED, VERIFICATION
from dicom_io.tally import Tally

__all__ = ["Caller", "Listener", "ListenerEvents", "ReceivedObject", "TurnedAway"]

log = structlog.get_logger(__name__)

_STOP_POLL_S = 0.02
_CLOSE_S = 2.0
"""The accepting thread looks ten times a second whether it should end."""
_END_S = 5.0


class Listener:
    """Accepts associations on one port until stopped.

    Args:
        events: Receiver of everything that happens.
        ae_title: AE title that callers must use.
        host: Address to bind.
        port: TCP port to bind; 0 takes a free one.
        allowed_callers: Calling AE titles that are accepted, beside those that `rules` allow; ("*",) accepts
            all that `rules` do not forbid.
        incoming: Folder for temporary files, on the spool's file system.
        rules: What holds for single callers.
        limits: What callers are granted; beyond it they are rejected, transiently, or cut off.
        pressure: Why no object can be taken in now, with status and reason; None when one can. Asked when
            an object begins and while it arrives; what is refused then is not written.
        tls: Server context for DICOM over TLS; None for plain connections.
        acse_timeout_s: Time for an association request to arrive after connecting.
        dimse_timeout_s: Time for an answer to a message.
        network_timeout_s: Time that an association may be silent before it is aborted.

    Raises:
        OSError: When the port cannot be bound.
    """

    def __init__(
        self,
        events: ListenerEvents,
        *,
        ae_title: str,
        host: str,
        port: int,
        allowed_callers: Sequence[str],
        incoming: Path,
        rules: Sequence[CallerRule] = (),
        limits: Limits | None = None,
        pressure: Callable[[], DicomIoError | None] = lambda: None,
        tls: ssl.SSLContext | None = None,
        acse_timeout_s: float = 30,
        dimse_timeout_s: float = 60,
        network_timeout_s: float = 60,
    ) -> None:
        self._events = events
        self._ae_title = ae_title.strip()
        limits = limits or Limits()
        self._tally = Tally(lambda turned_away: self._tell("turned_away", turned_away))
        ae = _application_entity(self._ae_title)
        ae.acse_timeout, ae.dimse_timeout = acse_timeout_s, dimse_timeout_s
        ae.network_timeout = network_timeout_s
        ae.maximum_associations = limits.connections + 1  # its own limit of 10 would reject without a row
        handlers = (
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_C_STORE, self._on_store),
        )
        self._server = Server(
            ae,
            (host, port),
            incoming,
            handlers,
            self._on_finished,
            limits=limits,
            screen=self._screen,
            leave=lambda key: self._admission.leave(key),  # noqa: PLW0108 - there is none yet
            turned_away=self._tally.add,
            pressure=pressure,
            tls=tls,
        )
        callers = Callers(allowed_callers, rules)
        self._admission = Admission(self._ae_title, callers, limits, self._server.acceptors)
        self._thread = threading.Thread(target=self._server.serve, name=f"listener-{self.port}", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port that is bound."""
        return self._server.port

    @property
    def accepting(self) -> bool:
        """Whether the thread runs that takes in connections."""
        return self._thread.is_alive()

    @property
    def open_associations(self) -> int:
        """Associations that are established now."""
        return self._admission.open_associations

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now, those included that have not asked for an association."""
        return self._server.connections

    def start(self) -> None:
        """Begin to accept associations."""
        self._tally.start()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop accepting, let running C-STOREs finish, and end every association, idle ones at once.

        Args:
            timeout_s: Time for the running C-STOREs; what still runs then is aborted. Aborted
                objects were not acknowledged, so their senders keep them.
        """
        deadline = time.monotonic() + timeout_s
        if self._thread.is_alive():
            self._server.close()
            self._thread.join(_CLOSE_S)
        else:
            self._server.release()
        ending: set[Acceptor] = set()
        while time.monotonic() < deadline and (left := set(self._server.acceptors()) - ending):
            idle = {assoc for assoc in left if not assoc.busy}
            self._end_all(idle)
            ending |= idle
            time.sleep(_STOP_POLL_S)
        self._end_all(self._server.acceptors(), wait_s=_END_S)
        self._tally.stop(_CLOSE_S)

    def _end_all(self, associations: Collection[Acceptor], wait_s: float = 0.0) -> None:
        """Abort associations side by side; wait until each has reported its end."""
        ending = [threading.Thread(target=assoc.end, daemon=True) for assoc in associations]
        for thread in ending:
            thread.start()
        deadline = time.monotonic() + wait_s
        for thread in (*ending, *associations):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _screen(self, caller: Caller) -> Refusal | None:
        """Why an association request is rejected before anything else of it is read."""
        return self._admission.refusal(caller)

    def _on_requested(self, event: Any) -> None:
        """Reject an association request that is not wanted (PS3.8 section 9.3.4)."""
        assoc: Acceptor = event.assoc
        caller = caller_of(assoc)
        refusal = None if assoc.is_admitted else self._admission.refusal(caller)
        if refusal is None:
            assoc.dimse.limits = self._admission.limits_of(caller) or assoc.dimse.limits
            return
        assoc.acse.send_reject(refusal.result, refusal.source, refusal.diagnostic)
        self._turn_away(assoc, "ASSOCIATION", refusal.reason_code, refusal.status, detail=refusal.detail)
        assoc.kill()

    def _on_established(self, event: Any) -> None:
        """Announce the association, and each abstract syntax that was not accepted."""
        assoc: Acceptor = event.assoc
        assoc.was_opened = True
        caller = caller_of(assoc)
        self._tell("association_opened", caller)
        first_of: dict[str, PresentationContext] = {}
        for context in assoc.rejected_contexts:
            first_of.setdefault(str(context.abstract_syntax), context)
        proposed = {
            context.context_id: context.transfer_syntax for context in assoc.requestor.requested_contexts
        }
        for abstract_syntax, context in first_of.items():
            syntaxes = [str(uid) for uid in proposed.get(context.context_id, [])]
            self._turn_away(
                assoc,
                "CONTEXT",
                "CONTEXT_NOT_ACCEPTED",
                context.result,
                sop_class_uid=abstract_syntax,
                transfer_syntax_uid=syntaxes[0] if syntaxes else None,
                detail=f"{UID(abstract_syntax).name} with {', '.join(UID(uid).name for uid in syntaxes)}",
            )

    def _on_store(self, event: Any) -> int:
        """Answer one C-STORE request (PS3.7 section 9.1.1, statuses of PS3.4 table B.2-1)."""
        assoc: Acceptor = event.assoc
        request = event.request
        incoming: IncomingFile | None = request._dataset_file
        if incoming is None:
            status, reason, detail = CANNOT_UNDERSTAND, "UNREADABLE_OBJECT", "the request has no data set"
        else:
            incoming.close()
            status, reason, detail = answer(self._events, caller_of(assoc), event, incoming)
        if status != SUCCESS:
            self._turn_away(
                assoc,
                "STORE",
                reason,
                status,
                sop_class_uid=str(request.AffectedSOPClassUID or "") or None,
                sop_instance_uid=str(request.AffectedSOPInstanceUID or "") or None,
                transfer_syntax_uid=str(event.context.transfer_syntax),
                detail=detail,
            )
        if incoming is not None:
            incoming.discard()
            assoc.dimse.finish(incoming)
        return status

    def _on_finished(self, assoc: Acceptor) -> None:
        """Account for what the end of a connection leaves behind; runs once for each connection."""
        # A peer answers our abort by closing the connection, which is then gone, but was not lost.
        lost, breach = assoc.dul.lost_connection() and not assoc.was_aborted, assoc.dul.breach
        reason = "CONNECTION_LOST" if lost else "ASSOCIATION_ABORTED"
        ending = "the association ended"
        if breach is not None:
            lost, reason, ending = False, breach.reason_code, f"cut off ({breach.detail})"
        left = list(assoc.dimse.unfinished.values())
        for incoming in left:
            incoming.discard()
            self._turn_away(
                assoc,
                "STORE",
                "NOT_ACKNOWLEDGED" if incoming.complete else reason,
                sop_class_uid=incoming.sop_class_uid or None,
                sop_instance_uid=incoming.sop_instance_uid or None,
                transfer_syntax_uid=incoming.transfer_syntax_uid or None,
                detail=f"{ending} before the object was " + ("answered" if incoming.complete else "complete"),
            )
        self._admission.leave(assoc.association_id)
        if assoc.was_opened:
            if breach is not None and not left:
                self._turn_away(assoc, "ASSOCIATION", reason, detail=ending)
            outcome = "RELEASED" if assoc.is_released else "CONNECTION_LOST" if lost else "ABORTED"
            self._tell("association_closed", caller_of(assoc), outcome)
        elif assoc.tls_failure is not None:
            self._turn_away(assoc, "CONNECTION", "TLS_FAILED", detail=f"no TLS: {assoc.tls_failure}")
        elif breach is not None:
            self._turn_away(assoc, "CONNECTION", reason, detail=ending)
        elif assoc.requestor.primitive is None:
            detail = "the connection ended without an association request"
            self._turn_away(assoc, "CONNECTION", "CONNECTION_PROBE", detail=detail)
        elif not assoc.is_rejected:
            self._turn_away(assoc, "ASSOCIATION", reason, detail=f"{ending} while it was negotiated")

    def _turn_away(
        self, assoc: Acceptor, kind: str, reason_code: str, status: int | None = None, **fields: Any
    ) -> None:
        self._tell("turned_away", TurnedAway(kind, reason_code, caller_of(assoc), status, **fields))

    def _tell(self, name: str, *arguments: object) -> None:
        """Call the owner; its failure must not end the association, and must not be lost."""
        try:
            getattr(self._events, name)(*arguments)
        except Exception:
            log.exception("listener_event_failed", listener_event=name, arguments=repr(arguments))


def _application_entity(ae_title: str) -> ApplicationEntity:
    """The local application entity, with the contexts that are accepted."""
    ae = ApplicationEntity(ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = PDU_BYTES  # twice as fast on large images as the default of 16 KB
    ae.add_supported_context(VERIFICATION, list(UNCOMPRESSED))
    for sop_class in IMAGE_SOP_CLASSES:
        ae.add_supported_context(sop_class, list(IMAGE_TRANSFER_SYNTAXES))
    return ae
