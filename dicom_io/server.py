"""The accepting side of a port: connections that say nothing cost a descriptor, the others two threads.

Health checks and port scanners connect and hang up; a thread for each would take the processor from those
who send. One thread watches all connections that have not sent a byte yet; what it has to tell of them is
told by another one, so that nobody waits at the door while somebody's row is written.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
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

log = structlog.get_logger(__name__)

_BACKLOG = 1024
"""Connections that the kernel keeps ready; a sender that finds no place there waits for a second or more."""
_AT_A_TIME = 64
_POLL_S = 0.1
_NEGOTIATION_S = 1.0
"""A connection that has not asked for its association for so long may have to make room."""

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
        turned_away: Called with reason, detail and peer of each other connection; must not block.
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
        turned_away: Callable[[str, str, Remote], None],
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
        self._turned_away = turned_away
        self._silent: dict[socket.socket, tuple[Remote, float]] = {}
        self._acceptors: set[Acceptor] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
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
                    else:
                        self._heard(cast(socket.socket, key.fileobj))
                self._give_up(time.monotonic() - (self.ae.acse_timeout or 30.0))
        finally:
            self.release()

    def close(self) -> None:
        """Let `serve` end; it may take a tenth of a second."""
        self._closing.set()

    def release(self) -> None:
        """Close the port, and connections that have sent nothing."""
        self._socket.close()
        self._give_up(time.monotonic())
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
                self._turned_away("CONNECTION_LIMIT", "as many connections are open as are allowed", remote)

    def _has_room(self) -> bool:
        """Whether one more connection may be open, perhaps in place of one that wants nothing yet."""
        if self.connections < self.limits.connections:
            return True
        if self._silent:
            oldest = next(iter(self._silent))
            self._drop(oldest, "CONNECTION_LIMIT", "it said nothing while others waited for its place")
            return True
        before = time.monotonic() - _NEGOTIATION_S
        slow = [each for each in self.acceptors() if each.negotiates_since < before]
        if not slow:
            return False
        min(slow, key=lambda each: each.negotiates_since).give_way()
        return True

    def _heard(self, connection: socket.socket) -> None:
        """Something came, or the peer hung up."""
        try:
            speaks = bool(connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return
        except OSError:
            speaks = False
        if not speaks:
            self._drop(connection, "CONNECTION_PROBE", "the connection ended without an association request")
            return
        self._selector.unregister(connection)
        remote, _ = self._silent.pop(connection)
        try:
            self._begin(connection, remote)
        except Exception:  # whatever it was, the door stays open for others
            log.exception("connection_failed", host=remote[0])
            connection.close()
            self._turned_away("CONNECTION_LOST", "the connection could not be served", remote)

    def _begin(self, connection: socket.socket, remote: Remote) -> None:
        """Start the threads of a connection; `connection` is closed by them."""
        connection.settimeout(self.ae.network_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        assoc = Acceptor(self, connection, remote)
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
        self._turned_away(reason_code, detail, remote)
