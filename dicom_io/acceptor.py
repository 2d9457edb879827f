"""The acceptor's side of one association: pynetdicom's, with streaming to disk and no thread left behind.

What differs from pynetdicom's own classes, and why:

- A data set is written to a temporary file of *this* listener's folder while it arrives;
  `STORE_RECV_CHUNKED_DATASET` would use Python's temporary folder, for the whole process.
- A connection that closes before it asks for an association ends its threads at once, not after the
  ACSE timeout: health checks of a load balancer would pile up threads otherwise.
- Sockets have a timeout and no Nagle delay.
- However an association ends, `finished` runs once, on its own thread.
- A PDU is read only if it is no longer than agreed on, and as long as the peer keeps pace.
- The TLS handshake runs on the association's own thread; pynetdicom's would keep all others waiting.
"""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import structlog
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_io.errors import DicomIoError
from dicom_io.limits import Breach, Limits, Pace
from dicom_io.reading import Connection, Receiver, UpperLayer
from dicom_io.tls import tls_reason

log = structlog.get_logger(__name__)


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
        tls_failure: Why the TLS handshake failed, None when it did not.
    """

    dimse: Receiver
    dul: UpperLayer

    def __init__(self, server: Server, connection: socket.socket, remote: tuple[str, int]) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self.dul = UpperLayer(self, Pace(server.limits, server.ae.network_timeout or 60.0))
        self.dimse = Receiver(self, server)
        self.acse_timeout = server.ae.acse_timeout
        self.network_timeout = server.ae.network_timeout
        self.remote_address = remote
        self.association_id = uuid.uuid4().hex
        self.was_opened = False
        self.serving = False
        self.tls_failure: str | None = None
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

    @property
    def lags(self) -> bool:
        """Whether the association waits for its peer, which has been idle or slow for some seconds."""
        return self.is_established and not self.serving and self.dul.pace.lags()

    def give_way(self) -> None:
        """End the association at once, in favour of another one that has something to send."""
        self.dul.breach = Breach("GAVE_WAY", "idle or slow while others waited for its place")
        connection = None if self.dul.socket is None else self.dul.socket.socket
        if connection is not None:
            with suppress(OSError):  # it has just ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def run_reactor(self) -> None:
        """Negotiate, serve, and report the end once, however it comes."""
        try:
            if self._is_private():
                super().run_reactor()
        finally:
            self._finished(self)

    def _is_private(self) -> bool:
        """Whether the connection is as the listener wants it; with TLS, do the handshake."""
        transport = cast(Connection, self.dul.socket)
        connection = transport.socket
        if not isinstance(connection, ssl.SSLSocket):
            return True
        try:
            connection.settimeout(self.acse_timeout)
            connection.do_handshake()
            connection.settimeout(self.network_timeout)
        except OSError as error:
            self.tls_failure = tls_reason(error)
            transport.close()
            return False
        return True

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
        if self.server.tls is not None:
            connection = self.server.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
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
        limits: What peers are granted.
        crowded: Called with the host of a connection that is closed at once, there being too many.
        pressure: Why no object can be taken in now; None when one can.
        tls: For TLS; None for plain connections.
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
        *,
        limits: Limits,
        crowded: Callable[[tuple[str, int]], None],
        pressure: Callable[[], DicomIoError | None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.crowded = crowded
        self.pressure = pressure
        self.tls = tls
        self.incoming = incoming
        self.handlers = handlers
        self.finished = finished
        super().__init__(ae, address, ae.ae_title, ae.supported_contexts, request_handler=Handler)
        ae._servers.append(self)

    def acceptors(self) -> list[Acceptor]:
        """Connections that are being served."""
        return [assoc for assoc in self.active_associations if isinstance(assoc, Acceptor)]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close a connection at once when there are as many as are allowed: each costs two threads."""
        if len(self.active_associations) < self.limits.connections:
            return True
        self.crowded(client_address[:2])
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error between accepting a connection and serving it."""
        log.exception("connection_failed", host=client_address[0])
