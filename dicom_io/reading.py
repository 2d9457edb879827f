"""What the acceptor's side reads: PDUs within the limits, data sets straight to files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA

from dicom_io.errors import ObjectTooLargeError
from dicom_io.incoming import IncomingFile
from dicom_io.limits import Breach, Limits, Pace
from dicom_io.waiting import IDLE_S, Connection, Noticed, Requests

if TYPE_CHECKING:
    from dicom_io.acceptor import Acceptor
    from dicom_io.server import Server

log = structlog.get_logger(__name__)

_AHEAD = 2
"""Requests that are read before the first is answered. Without negotiation only one may be sent (PS3.7 annex
D.3.3.3); who sends more waits, and takes neither memory nor descriptors."""
_NOT_CONNECTED, _AWAITING_REQUEST, _OPEN = "Sta1", "Sta2", "Sta6"
"""States of PS3.8 table 9-10."""


class Receiver(DIMSEServiceProvider):
    """DIMSE provider that streams C-STORE data sets to files.

    Args:
        assoc: The association.
        server: Whose folder for temporary files is used, and whether it is under pressure.
        limits: What the caller is granted; set once it is known who calls.

    Attributes:
        unfinished: Files of objects that are arriving or not answered yet, by path.
    """

    dul: UpperLayer
    msg_queue: Requests

    def __init__(self, assoc: Association, server: Server, limits: Limits) -> None:
        super().__init__(assoc)
        self.msg_queue = Requests()
        self.limits = limits
        self._server = server
        self._answered = 0
        self.unfinished: dict[str, IncomingFile] = {}

    @property
    def unanswered(self) -> int:
        """Complete requests that have not been answered."""
        return self.msg_queue.arrived - self._answered

    def answered(self) -> None:
        """Count a request as answered."""
        self._answered += 1

    def get_msg(self, block: bool = False) -> Any:
        """Next request, or (None, None) when something else has to be looked at."""
        return self.msg_queue.next(IDLE_S)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA primitive (PS3.8 annex E), fragment by fragment; abort when it is invalid."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._take(context_id, fragment)
        except Breach as breach:  # an object without end; a little too large gets an answer
            self.dul.abort_for(breach)
        except Exception as error:  # a peer may send anything; its association ends, not the service
            log.warning("dimse_message_invalid", error=type(error).__name__)
            self.dul.abort_for(Breach("PROTOCOL_ERROR", "a DIMSE message that cannot be read"))

    def _take(self, context_id: int, fragment: bytes) -> None:
        """Take one fragment; bit 0 of its first byte marks a command, bit 1 the last of its kind."""
        arriving = self._arriving()
        if arriving is None or fragment[0] & 1:
            self._pass_on(context_id, fragment)
            self._open_file(context_id)
            return
        arriving.write(memoryview(fragment)[1:])
        if arriving.offered > 2 * self.limits.object_bytes:
            raise Breach("OBJECT_TOO_LARGE", str(ObjectTooLargeError(self.limits.object_bytes)))
        if fragment[0] & 2:
            arriving.complete = True
            arriving.close()
            self._pass_on(context_id, fragment[:1])

    def finish(self, incoming: IncomingFile) -> None:
        """Forget `incoming`: it has been answered."""
        self.unfinished.pop(incoming.name, None)

    def _arriving(self) -> IncomingFile | None:
        """File of the object that is on the wire, None between objects."""
        file = None if self.message is None else self.message._data_set_file
        return cast("IncomingFile | None", file)

    def _pass_on(self, context_id: int, fragment: bytes) -> None:
        """Give one fragment to pynetdicom, which completes the message with the last one."""
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, fragment))
        super().receive_primitive(single)

    def _open_file(self, context_id: int) -> None:
        """Open the file once the command set of a C-STORE request with a data set is complete."""
        message = self.message
        if not isinstance(message, C_STORE_RQ) or message._data_set_file is not None:
            return
        command = message.command_set
        context = self.assoc._accepted_cx.get(context_id)
        incoming = IncomingFile(
            self._server.incoming,
            str(command.get("AffectedSOPClassUID") or ""),
            str(command.get("AffectedSOPInstanceUID") or ""),
            "" if context is None else str(context.transfer_syntax[0]),
            maximum_bytes=self.limits.object_bytes,
            pressure=self._server.pressure,
        )
        message._data_set_file = cast(Any, incoming)
        self.unfinished[incoming.name] = incoming


class UpperLayer(DULServiceProvider):
    """DICOM upper layer that waits for the socket and notices an early end.

    Attributes:
        connection_lost: Whether the connection went away while the association was open.
        breach: The limit that the peer went beyond, None while it keeps to all of them.
        pace: What the peer sends.
    """

    def __init__(self, assoc: Acceptor, pace: Pace) -> None:
        super().__init__(assoc)
        self.daemon = True
        self.to_user_queue = Noticed(self._wake)
        self.connection_lost = False
        self.breach: Breach | None = None
        self.pace = pace
        self._reading = False

    def _wake(self) -> None:
        """Let the association's thread look at what has come for it."""
        cast("Acceptor", self.assoc).dimse.msg_queue.nudge()

    @property
    def negotiated(self) -> bool:
        """Whether an association was asked for; for this thread only."""
        return self.state_machine.current_state not in (_NOT_CONNECTED, _AWAITING_REQUEST)

    def idle_timer_expired(self) -> bool:
        """Whether the peer has been silent too long; within a PDU the pace and the socket's timeout tell."""
        if self._reading or self.breach is not None:
            return False
        return bool(super().idle_timer_expired())

    def restart_idle_timer(self) -> None:
        """Begin to wait for the peer anew: until now it waited for us."""
        self._idle_timer.restart()

    def _is_transport_event(self) -> bool:
        """Look for a PDU, unless the association has lasted too long or has enough to answer."""
        assoc = cast("Acceptor", self.assoc)
        state = self.state_machine.current_state
        if self.breach is None and assoc.is_established and not assoc.serving:
            try:
                self.pace.require_time()
            except Breach as breach:
                self.abort_for(breach)
                return True
        if state == _OPEN and self.breach is None and assoc.dimse.unanswered >= _AHEAD:
            return False
        if self._is_idle(state):
            self.pace.waits()
            cast(Connection, self.socket).wait(IDLE_S)
        return super()._is_transport_event()

    def _is_idle(self, state: str) -> bool:
        """Whether only the peer can bring something to do: nothing is queued, and no answer is being made."""
        if state == _OPEN and (
            cast("Acceptor", self.assoc).dimse.unanswered or not self.to_user_queue.empty()
        ):
            return False
        # Looked at last: who has answered has queued the answer before.
        idle = state in (_AWAITING_REQUEST, _OPEN)
        return idle and self.to_provider_queue.empty() and self.event_queue.empty()

    def _read_pdu_data(self) -> None:
        """Read one PDU; abort instead when the peer goes beyond a limit (PS3.8 section 9.2, action AA-8)."""
        if self.breach is not None:  # the rest of what was refused: nobody reads it
            cast("Connection", self.socket).close()
            return
        self.pace.began(inside_message=self.assoc.dimse.message is not None)
        self._reading = True
        try:
            super()._read_pdu_data()
        except Breach as breach:
            self.abort_for(breach)
        finally:
            self.pace.pauses()
            self._idle_timer.restart()
            self._reading = False
        if (
            self.state_machine.current_state == _OPEN
            and "Evt19" in self.event_queue.queue
            and self.breach is None
        ):
            self.breach = Breach("PROTOCOL_ERROR", "a PDU that cannot be read")

    def abort_for(self, breach: Breach) -> None:
        """Abort because of `breach`: as for a PDU that is not understood."""
        self.breach = self.breach or breach
        self.event_queue.put("Evt19")

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """Next primitive from the peer; None at the timeout or once the connection has ended."""
        deadline = time.monotonic() + (timeout or 0)
        primitive = super().receive_pdu(wait=False)
        while wait and primitive is None and self.is_alive() and time.monotonic() < deadline:
            primitive = super().receive_pdu(wait=True, timeout=IDLE_S)
        self.connection_lost |= _is_loss(primitive)
        return primitive

    def lost_connection(self) -> bool:
        """Whether the connection went away without an abort, noticed already or not."""
        return self.connection_lost or _is_loss(self.peek_next_pdu())


def _is_loss(primitive: object) -> bool:
    """Whether a primitive tells of a connection that closed (PS3.8 table 9-26, action AA-4).

    Aborts that were put on the wire have a reason, the loss of the connection has none.
    """
    return isinstance(primitive, A_P_ABORT) and primitive.provider_reason == 0
