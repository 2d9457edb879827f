"""The acceptor's side of one association: pynetdicom's, with streaming to disk and no thread left behind.

What differs from pynetdicom's own classes, and why:

- A data set is written to a temporary file of *this* listener's folder while it arrives;
  `STORE_RECV_CHUNKED_DATASET` would use Python's temporary folder, for the whole process.
- A connection that closes before it asks for an association ends its threads at once, not after the
  ACSE timeout; one that says nothing has none (`dicom_io.server`).
- Its threads wait for what comes; pynetdicom's look every millisecond (`dicom_io.waiting`).
- Sockets have a timeout and no Nagle delay.
- However an association ends, `finished` runs once, on its own thread.
- A PDU is read only if it is no longer than agreed on, and as long as the peer keeps pace.
- The TLS handshake runs on the association's own thread; pynetdicom's would keep all others waiting.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.transport import AddressInformation

from dicom_io.limits import Breach, Pace
from dicom_io.listener_events import Caller
from dicom_io.reading import Receiver, UpperLayer
from dicom_io.tls import tls_reason
from dicom_io.waiting import Connection

if TYPE_CHECKING:
    from dicom_io.server import Server


class Acceptor(Association):
    """Acceptor of one association.

    Args:
        server: The server that took the connection.
        connection: The connected socket.
        caller: The peer, with the AE titles of its request if that was looked at.

    Attributes:
        caller: The same.
        association_id: A random UUID, 32 hexadecimal digits.
        serving: Whether a request is being answered.
        is_admitted: Whether its request was counted as open before it was read.
        was_opened: Whether the association was ever established.
        was_aborted: Whether `end` aborted it while its connection was there.
        tls_failure: Why the TLS handshake failed, None when it did not.
    """

    dimse: Receiver
    dul: UpperLayer

    def __init__(self, server: Server, connection: socket.socket, caller: Caller) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self.dul = UpperLayer(self, Pace(server.limits, server.ae.network_timeout or 60.0))
        self.dimse = Receiver(self, server, server.limits)
        self.acse_timeout = server.ae.acse_timeout
        self.network_timeout = server.ae.network_timeout
        self.caller = caller
        self.association_id = caller.association_id
        self.is_admitted = False
        self.was_opened = False
        self.was_aborted = False
        self.serving = False
        self.tls_failure: str | None = None
        self._began = time.monotonic()
        self._is_ending = False
        self.daemon = True
        self.name = f"AcceptorThread@{caller.host}:{caller.port}"
        self._ended = server.ended
        self._server = cast(Any, server)  # pynetdicom shuts a request down with it
        self.set_socket(Connection(self, client_socket=connection))
        self._describe(server)

    def _describe(self, server: Server) -> None:
        """Tell pynetdicom who both sides are, and who wants to know what happens."""
        acceptor = self.acceptor
        acceptor.maximum_length = server.ae.maximum_pdu_size
        acceptor.ae_title = server.ae.ae_title
        acceptor.address_info = server.address_info
        acceptor.implementation_class_uid = server.ae.implementation_class_uid
        acceptor.implementation_version_name = server.ae.implementation_version_name
        acceptor.supported_contexts = server.contexts  # shared: negotiation only reads them
        self.requestor.address_info = AddressInformation.from_tuple((self.caller.host, self.caller.port))
        for event, handler in server.handlers:
            self.bind(event, handler)

    @property
    def negotiates_since(self) -> float:
        """When a connection began (monotonic seconds) that has no association yet; else infinity."""
        return math.inf if self.was_opened or self.is_admitted else self._began

    @property
    def busy(self) -> bool:
        """Whether an object is arriving in good time, or a request is being answered."""
        if self.serving or self.dimse.unanswered:
            return True
        return bool(self.dimse.unfinished) and not self.dul.pace.lags()

    def end(self) -> None:
        """Abort the association, once, or close a connection that has none yet."""
        if self._is_ending:
            return
        self._is_ending = True
        if self.is_established:
            self.was_aborted = not self.dul.lost_connection()
            self.abort()
        elif self.dul.socket is not None:
            self.dul.socket.close()

    @property
    def lags(self) -> bool:
        """Whether a place is held by a peer that has been waited for: idle or slow for some seconds."""
        return (
            (self.is_established or self.is_admitted) and not self.dimse.unanswered and self.dul.pace.lags()
        )

    @property
    def gives_way(self) -> bool:
        """Whether the connection is being ended in favour of another one."""
        return self.dul.breach is not None and self.dul.breach.reason_code == "GAVE_WAY"

    def give_way(self) -> None:
        """End the connection at once, in favour of another one that has something to send."""
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
            self._ended(self)

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
        """Answer a C-ECHO or C-STORE request (PS3.7 section 9.1); anything else ends the association."""
        if not isinstance(msg, C_ECHO | C_STORE) or not msg.is_valid_request:
            # pynetdicom serves some requests on threads of their own, as many as are sent.
            self.dul.abort_for(Breach("PROTOCOL_ERROR", "a message that is no C-ECHO or C-STORE request"))
            return
        self.serving = True
        try:
            self.dul.pace.used()
            super()._serve_request(msg, context_id)
        finally:
            self.serving = False
            self.dimse.answered()
            self.dul.restart_idle_timer()
