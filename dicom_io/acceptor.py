"""The acceptor's side of one association: pynetdicom's, with streaming to disk and no thread left behind.

What differs from pynetdicom's own classes, and why:

- A data set is written to a temporary file of *this* listener's folder while it arrives;
  `STORE_RECV_CHUNKED_DATASET` would use Python's temporary folder, for the whole process.
- A connection that closes before it asks for an association ends its threads at once, not after the
  ACSE timeout: health checks of a load balancer would pile up threads otherwise.
- Sockets have a timeout and no Nagle delay.
- However an association ends, `finished` runs once, on its own thread.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import structlog
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_io.incoming import IncomingFile

log = structlog.get_logger(__name__)

_POLL_S = 0.05


class Receiver(DIMSEServiceProvider):
    """DIMSE provider that streams C-STORE data sets to files.

    Attributes:
        unfinished: Files of objects that are arriving or not answered yet, by path.
    """

    def __init__(self, assoc: Association, folder: Path) -> None:
        super().__init__(assoc)
        self._folder = folder
        self.unfinished: dict[str, IncomingFile] = {}

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA primitive (PS3.8 annex E), fragment by fragment; abort when it is invalid."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._take(context_id, fragment)
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
            self._folder,
            str(command.get("AffectedSOPClassUID") or ""),
            str(command.get("AffectedSOPInstanceUID") or ""),
            "" if context is None else str(context.transfer_syntax[0]),
        )
        message._data_set_file = cast(Any, incoming)
        self.unfinished[incoming.name] = incoming


class UpperLayer(DULServiceProvider):
    """DICOM upper layer that waits for the socket and notices an early end.

    Attributes:
        connection_lost: Whether the connection went away while the association was open.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.daemon = True
        self.connection_lost = False

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

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class Acceptor(Association):
    """Acceptor of one association.

    Args:
        server: The server that took the connection.
        connection: The connected socket.
        remote: Host and port of the peer.

    Attributes:
        association_id: A random UUID, 32 hexadecimal digits.
        remote_address: Host and port of the peer.
        serving: Whether a request is being answered.
        was_opened: Whether the association was ever established.
    """

    dimse: Receiver
    dul: UpperLayer

    def __init__(self, server: Server, connection: socket.socket, remote: tuple[str, int]) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self.dul = UpperLayer(self)
        self.dimse = Receiver(self, server.incoming)
        self.acse_timeout = server.ae.acse_timeout
        self.network_timeout = server.ae.network_timeout
        self.remote_address = remote
        self.association_id = uuid.uuid4().hex
        self.was_opened = False
        self.serving = False
        self._finished = server.finished
        self._server = server
        self.name = f"AcceptorThread@{remote[0]}:{remote[1]}"
        self.set_socket(Connection(self, client_socket=connection))

    @property
    def busy(self) -> bool:
        """Whether an object is arriving or a request is being answered."""
        return self.serving or bool(self.dimse.unfinished)

    def end(self) -> None:
        """Abort the association, or close a connection that has none yet."""
        if self.is_established:
            self.abort()
        elif self.dul.socket is not None:
            self.dul.socket.close()

    def run_reactor(self) -> None:
        """Negotiate, serve, and report the end once, however it comes."""
        try:
            super().run_reactor()
        finally:
            self._finished(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        self.serving = True
        try:
            super()._serve_request(msg, context_id)
        finally:
            self.serving = False


class Handler(RequestHandler):
    """Starts an `Acceptor` for each connection."""

    server: Server

    def _create_association(self) -> Acceptor:
        connection = cast(socket.socket, self.request)
        connection.settimeout(self.ae.network_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assoc = Acceptor(self.server, connection, self.client_address[:2])
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = self.server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = deepcopy(self.server.contexts)
        assoc.requestor.address_info = self.remote
        for event, handler in self.server.handlers:
            assoc.bind(event, handler)
        return assoc


class Server(ThreadedAssociationServer):
    """Accepts connections on one port.

    Args:
        ae: The local application entity with its contexts and time limits.
        address: Host and port to bind.
        incoming: Folder for temporary files.
        handlers: pynetdicom events and their handlers.
        finished: Called once for each connection, when it has ended.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        incoming: Path,
        handlers: Sequence[tuple[Any, Callable[[Any], Any]]],
        finished: Callable[[Acceptor], None],
    ) -> None:
        self.incoming = incoming
        self.handlers = handlers
        self.finished = finished
        super().__init__(ae, address, ae.ae_title, ae.supported_contexts, request_handler=Handler)
        ae._servers.append(self)

    def acceptors(self) -> list[Acceptor]:
        """Connections that are being served."""
        return [assoc for assoc in self.active_associations if isinstance(assoc, Acceptor)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error between accepting a connection and serving it."""
        log.exception("connection_failed", host=client_address[0])
