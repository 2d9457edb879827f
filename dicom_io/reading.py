"""What the acceptor's side reads: PDUs within the limits, data sets straight to files."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA
from pynetdicom.transport import AssociationSocket

from dicom_io.errors import ObjectTooLargeError
from dicom_io.incoming import IncomingFile
from dicom_io.limits import Breach, Pace, require_pdu_length

if TYPE_CHECKING:
    from dicom_io.acceptor import Acceptor, Server

log = structlog.get_logger(__name__)

_POLL_S = 0.05
_READ_BYTES = 1 << 16


class Receiver(DIMSEServiceProvider):
    """DIMSE provider that streams C-STORE data sets to files.

    Args:
        assoc: The association.
        server: Whose limits and folder for temporary files apply.

    Attributes:
        unfinished: Files of objects that are arriving or not answered yet, by path.
    """

    dul: UpperLayer

    def __init__(self, assoc: Association, server: Server) -> None:
        super().__init__(assoc)
        self._server = server
        self.unfinished: dict[str, IncomingFile] = {}

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA primitive (PS3.8 annex E), fragment by fragment; abort when it is invalid."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._take(context_id, fragment)
        except Breach as breach:  # an object without end; a little too large gets an answer
            self.dul.breach = breach
            self.dul.event_queue.put("Evt19")
        except Exception as error:  # a peer may send anything; its association ends, not the service
            log.warning("dimse_message_invalid", error=type(error).__name__)
            self.dul.event_queue.put("Evt19")

    def _take(self, context_id: int, fragment: bytes) -> None:
        """Take one fragment; bit 0 of its first byte marks a command, bit 1 the last of its kind."""
        arriving = self._arriving()
        if arriving is None or fragment[0] & 1:
            self._pass_on(context_id, fragment)
            self._open_file(context_id)
            return
        arriving.write(memoryview(fragment)[1:])
        if arriving.offered > 2 * self._server.limits.object_bytes:
            raise Breach("OBJECT_TOO_LARGE", str(ObjectTooLargeError(self._server.limits.object_bytes)))
        if fragment[0] & 2:
            arriving.complete = True
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
            maximum_bytes=self._server.limits.object_bytes,
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
        self.connection_lost = False
        self.breach: Breach | None = None
        self.pace = pace
        self._reading = False

    def idle_timer_expired(self) -> bool:
        """Whether the peer has been silent too long; within a PDU the pace and the socket's timeout tell."""
        if self._reading or self.breach is not None:
            return False
        return bool(super().idle_timer_expired())

    def _is_transport_event(self) -> bool:
        """Look for a PDU, unless the association has lasted too long and nothing is being answered."""
        assoc = cast("Acceptor", self.assoc)
        if self.breach is None and assoc.is_established and not assoc.serving:
            try:
                self.pace.require_time()
            except Breach as breach:
                self.abort_for(breach)
                return True
        return super()._is_transport_event()

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
            self._idle_timer.restart()
            self._reading = False

    def abort_for(self, breach: Breach) -> None:
        """Abort because of `breach`: as for a PDU that is not understood."""
        self.breach = breach
        self.event_queue.put("Evt19")

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """Next primitive from the peer; None at the timeout or once the connection has ended."""
        deadline = time.monotonic() + (timeout or 0)
        primitive = super().receive_pdu(wait=False)
        while wait and primitive is None and self.is_alive() and time.monotonic() < deadline:
            primitive = super().receive_pdu(wait=True, timeout=_POLL_S)
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


class Connection(AssociationSocket):
    """Socket that is closed even when the peer went first; pynetdicom would leave it to the collector."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, fewer only when the connection ends.

        Raises:
            Breach: The peer sends too much or too slowly.
            OSError: The connection broke, or was silent for the network timeout.
        """
        require_pdu_length(nr_bytes)
        pace = cast("Acceptor", self.assoc).dul.pace
        read = bytearray()
        while len(read) < nr_bytes:
            piece = cast(socket.socket, self.socket).recv(min(nr_bytes - len(read), _READ_BYTES))
            if not piece:
                break
            read += piece
            pace.took(len(piece))
        return read

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()
