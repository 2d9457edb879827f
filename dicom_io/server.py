"""The accepting side of a port: connections that say nothing cost a descriptor, the others two threads.

Health checks and port scanners connect and hang up, senders that found no place come again and again; threads
for each would take the processor from those who send. One thread watches all connections that have not sent
a byte yet, and rejects association requests that are not wanted; what it has to tell is told by another one,
so that nobody waits at the door while somebody's row is written.
"""

from __future__ import annotations

import math
import selectors
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import structlog
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import AddressInformation

from dicom_io.acceptor import Acceptor
from dicom_io.errors import DicomIoError
from dicom_io.limits import Limits
from dicom_io.listener_events import Caller, TurnedAway
from dicom_io.refusals import Refusal
from dicom_io.screening import REQUEST_HEAD, Rejected, who_asks

log = structlog.get_logger(__name__)

_BACKLOG = 1024
"""Connections that the kernel keeps ready; a sender that finds no place there waits for a second or more."""
_AT_A_TIME = 64
_POLL_S = 0.1
_NEGOTIATION_S = 1.0
"""A connection that has not asked for its association for so long may have to make room."""
_NEGOTIATING = 64
"""Connections that have threads before it is known who they are: TLS, and requests that come in pieces."""

Remote = tuple[str, int]


class Server:
    """Accepts connections on one port.

    Args:
        ae: The local application entity with its contexts and time limits.
        address: Host and port to bind.
        incoming: Folder for temporary files.
        handlers: pynetdicom events and their handlers.
        finished: Called once for each connection that sent something, when it has ended.
        limits: What peers are granted.
        screen: Called with who asks for an association over a plain connection; why it is rejected, or None.
            Who is not rejected is counted as open until its connection is `finished`.
        leave: Called with the association id of a connection that could not be served.
        turned_away: Called with each connection that never got threads; must not block.
        pressure: Why no object can be taken in now; None when one can.
        tls: For TLS; None for plain connections.

    Raises:
        OSError: When the port cannot be bound.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        address: Remote,
        incoming: Path,
        handlers: Sequence[tuple[Any, Callable[[Any], Any]]],
        finished: Callable[[Acceptor], None],
        *,
        limits: Limits,
        screen: Callable[[Caller], Refusal | None],
        leave: Callable[[str], None],
        turned_away: Callable[[TurnedAway], None],
        pressure: Callable[[], DicomIoError | None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.ae = ae
        self.contexts = ae.supported_contexts
        self.limits = limits
        self.incoming = incoming
        self.handlers = handlers
        self.pressure = pressure
        self._tls = tls
        self._finished = finished
        self._screen = screen
        self._leave = leave
        self._turned_away = turned_away
        self._silent: dict[socket.socket, tuple[Remote, float]] = {}
        self._acceptors: set[Acceptor] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._rejected = Rejected(self._selector)
        asked = AddressInformation.from_tuple(address)
        self._socket = socket.create_server(asked.as_tuple, family=asked.address_family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.address_info = AddressInformation.from_tuple(self._socket.getsockname())

    @property
    def port(self) -> int:
        """The TCP port that is bound."""
        return self.address_info.port

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._silent) + len(self._acceptors)

    def acceptors(self) -> list[Acceptor]:
        """Connections that have sent something."""
        with self._lock:
            return list(self._acceptors)

    def serve(self) -> None:
        """Accept connections until `close`; then close those that have sent nothing."""
        self._selector.register(self._socket, selectors.EVENT_READ)
        try:
            while not self._closing.is_set():
                for key, _ in self._selector.select(_POLL_S):
                    if key.fileobj is self._socket:
                        self._accept()
                    elif key.fileobj in self._silent:  # and not closed a moment ago to make room
                        self._heard(key.fileobj)
                    else:
                        self._rejected.heard(cast(socket.socket, key.fileobj))
                self._give_up(time.monotonic() - (self.ae.acse_timeout or 30.0))
                self._rejected.give_up()
        finally:
            self.release()

    def close(self) -> None:
        """Let `serve` end; it may take a tenth of a second."""
        self._closing.set()

    def release(self) -> None:
        """Close the port, and connections that have sent nothing."""
        self._socket.close()
        self._give_up(time.monotonic())
        self._rejected.give_up(0.0)
        self._selector.close()

    def ended(self, assoc: Acceptor) -> None:
        """Take note that a connection's thread is about to end."""
        try:
            self._finished(assoc)
        finally:
            with self._lock:
                self._acceptors.discard(assoc)

    @staticmethod
    def shutdown_request(connection: socket.socket) -> None:
        """Close a connection; pynetdicom calls this as socketserver has it."""
        with suppress(OSError):  # the peer went first
            connection.shutdown(socket.SHUT_WR)
        connection.close()

    def _accept(self) -> None:
        """Take in what waits at the port, as long as there is room."""
        for _ in range(_AT_A_TIME):
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # the peer went first, or this process has too many files open
                log.error("connection_not_accepted", error=error.strerror)
                self._closing.wait(_POLL_S)
                return
            remote = (str(address[0]), int(address[1]))
            if self._has_room():
                connection.setblocking(False)
                self._silent[connection] = (remote, time.monotonic())
                self._selector.register(connection, selectors.EVENT_READ)
            else:
                connection.close()
                self._tell(_nobody(remote), "CONNECTION_LIMIT", "as many connections are open as are allowed")

    def _has_room(self) -> bool:
        """Whether one more connection may be open, perhaps in place of one that wants nothing yet."""
        if self.connections < self.limits.connections:
            return True
        if self._silent:
            oldest = next(iter(self._silent))
            self._drop(oldest, "CONNECTION_LIMIT", "it said nothing while others waited for its place")
            return True
        return False

    def _may_negotiate(self) -> bool:
        """Whether one more connection may have threads before it is known who it is."""
        negotiating = [each for each in self.acceptors() if each.negotiates_since < math.inf]
        if len(negotiating) < _NEGOTIATING:
            return True
        oldest = min(negotiating, key=lambda each: each.negotiates_since)
        if oldest.negotiates_since < time.monotonic() - _NEGOTIATION_S:
            oldest.give_way()
        return False

    def _heard(self, connection: socket.socket) -> None:
        """Something came, or the peer hung up."""
        try:
            said = connection.recv(REQUEST_HEAD, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._drop(connection, "CONNECTION_PROBE", "the connection ended without an association request")
            return
        self._selector.unregister(connection)
        remote, _ = self._silent.pop(connection)
        caller = _nobody(remote)
        try:
            asking = None if self._tls is not None else who_asks(said, caller)
            if asking is not None and (refusal := self._screen(asking)) is not None:
                self._rejected.add(connection, refusal)
                self._tell(asking, refusal.reason_code, refusal.detail, refusal.status)
            elif asking is not None or self._may_negotiate():
                self._begin(connection, asking or caller, admitted=asking is not None)
            else:
                connection.close()
                self._tell(
                    caller, "CONNECTION_LIMIT", "too many connections had not asked for an association"
                )
        except Exception:  # whatever it was, the door stays open for others
            log.exception("connection_failed", host=remote[0])
            connection.close()
            self._leave(caller.association_id)
            self._tell(caller, "CONNECTION_LOST", "the connection could not be served")

    def _begin(self, connection: socket.socket, caller: Caller, *, admitted: bool) -> None:
        """Start the threads of a connection; `connection` is closed by them."""
        connection.settimeout(self.ae.network_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        assoc = Acceptor(self, connection, caller)
        assoc.is_admitted = admitted
        with self._lock:
            self._acceptors.add(assoc)
        try:
            assoc.start()
        except RuntimeError:
            with self._lock:
                self._acceptors.discard(assoc)
            raise

    def _give_up(self, before: float) -> None:
        """Close connections that have said nothing since `before` (monotonic seconds)."""
        while self._silent:
            connection, (_, since) = next(iter(self._silent.items()))
            if since > before:
                return
            self._drop(connection, "CONNECTION_PROBE", "the connection ended without an association request")

    def _drop(self, connection: socket.socket, reason_code: str, detail: str) -> None:
        self._selector.unregister(connection)
        remote, _ = self._silent.pop(connection)
        connection.close()
        self._tell(_nobody(remote), reason_code, detail)

    def _tell(self, caller: Caller, reason_code: str, detail: str, status: int | None = None) -> None:
        kind = "CONNECTION" if status is None else "ASSOCIATION"
        self._turned_away(TurnedAway(kind, reason_code, caller, status, detail=detail))


def _nobody(remote: Remote) -> Caller:
    """A peer that has not said who it is."""
    return Caller(uuid.uuid4().hex, "", "", *remote)
