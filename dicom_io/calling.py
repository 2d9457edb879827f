"""Requesting an association (PS3.8 section 7.1), plain or over TLS; its failures are told apart."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket

from dicom_io.tls import TlsFiles, TlsFilesError, client_context, tls_reason
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_UNLIMITED_PDU = 0
_REJECTED_TRANSIENT = 0x02
STOP_GRACE_S = 5.0
"""Longer than a peer that works takes for a report; within the time in which a process has to stop."""
_WATCH_S = 0.2


@dataclass(frozen=True)
class Peer:
    """Where to send to.

    Attributes:
        ae_title: Called AE title.
        host: Name or address.
        port: TCP port.
        calling_ae: Our AE title.
        timeout_s: Longest wait for the TCP connection, for the answer to the association request and for the
            answer to each object, in seconds.
        tls: Files for DICOM over TLS; None for a plain connection.
        tls_check_name: Whether the peer's certificate must be for `host`.
    """

    ae_title: str
    host: str
    port: int
    calling_ae: str
    timeout_s: float = 30.0
    tls: TlsFiles | None = None
    tls_check_name: bool = True


@dataclass(frozen=True)
class Failure:
    """Why there is no association, or an object was not taken.

    Attributes:
        reason_code: As in `worker.reasons`.
        retryable: Trying again later may help.
        detail: A sentence for the admin.
    """

    reason_code: str
    retryable: bool
    detail: str


class Line:
    """The connection of one association, for those who have to end it from outside."""

    connection: socket.socket | None = None

    def cut(self) -> None:
        """End the connection, or the attempt at one, whatever it waits for (from another thread)."""
        if self.connection is not None:
            with suppress(OSError):  # not connected any more
                self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket: pynetdicom 3.0 forgets it unclosed when the connection fails."""
        if self.connection is not None:
            self.connection.close()


class _TlsSocket(ssl.SSLSocket):
    """Remembers why the handshake failed: pynetdicom only logs it."""

    failure: str | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            self.failure = tls_reason(error)
            raise


class _Tls:
    """What pynetdicom takes for a context: hands the wrapped socket on to the line, which has to close it."""

    def __init__(self, peer: Peer, files: TlsFiles, line: Line) -> None:
        self._context = client_context(files, check_name=peer.tls_check_name)
        self._context.sslsocket_class = _TlsSocket
        self._line = line

    def wrap_socket(self, connection: socket.socket, **options: Any) -> ssl.SSLSocket:
        wrapped = self._line.connection = self._context.wrap_socket(connection, **options)
        return wrapped


class _Caller(AE):
    """Our side of one association: titles, timeouts, and a socket that is closed when there is none."""

    def __init__(self, peer: Peer, line: Line) -> None:
        super().__init__(ae_title=peer.calling_ae)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.connection_timeout = peer.timeout_s
        self.acse_timeout = peer.timeout_s
        self.dimse_timeout = peer.timeout_s
        self.network_timeout = peer.timeout_s
        self.connected = False
        self.rejection: A_ASSOCIATE_RJ | None = None
        self._timeout_s = peer.timeout_s
        self._line = line

    def on_connected(self, event: evt.Event) -> None:
        """Note that the peer was reached over TCP (EVT_CONN_OPEN)."""
        self.connected = True

    def on_pdu(self, event: evt.Event) -> None:
        """Keep a rejection (EVT_PDU_RECV): pynetdicom loses one that comes faster than it looks for it."""
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu

    def _create_socket(self, *options: Any) -> AssociationSocket:
        """Let no small packet wait to be filled, and no write last for ever at a peer that stops reading."""
        transport = super()._create_socket(*options)
        connection = self._line.connection = transport.socket
        if connection is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seconds, fraction = divmod(self._timeout_s, 1)
            limit = struct.pack("ll", int(seconds), int(fraction * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return transport


@contextmanager
def cut_when(stopping: threading.Event | None, line: Line) -> Iterator[None]:
    """Cut the connection `STOP_GRACE_S` after `stopping`, unless the block ends before."""
    if stopping is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if stopping.wait(_WATCH_S):
                if not ended.wait(STOP_GRACE_S):
                    line.cut()
                return

    threading.Thread(target=watch, name="sender-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def associate(peer: Peer, contexts: Sequence[PresentationContext], line: Line) -> Association | Failure:
    """Request an association; every way in which that fails is told apart."""
    try:
        entity = _Caller(peer, line)
        association = entity.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            max_pdu=_UNLIMITED_PDU,
            evt_handlers=[(evt.EVT_CONN_OPEN, entity.on_connected), (evt.EVT_PDU_RECV, entity.on_pdu)],
            tls_args=None if peer.tls is None else cast(Any, (_Tls(peer, peer.tls, line), peer.host)),
        )
    except TlsFilesError as error:
        return Failure("PEER_TLS_FAILED", True, f"{error}.")
    except (OSError, ValueError, TypeError) as error:
        return Failure("PEER_UNREACHABLE", True, f"{peer.host}:{peer.port}: {error}.")
    if association.is_established:
        return association
    tls_failure = line.connection.failure if isinstance(line.connection, _TlsSocket) else None
    line.close()
    if tls_failure is not None:
        return Failure("PEER_TLS_FAILED", True, f"No TLS with {peer.host}:{peer.port}: {tls_failure}.")
    if not entity.connected:
        return Failure("PEER_UNREACHABLE", True, f"No TCP connection to {peer.host}:{peer.port}.")
    return _refusal(association, entity.rejection, peer)


def _refusal(association: Association, rejection: A_ASSOCIATE_RJ | None, peer: Peer) -> Failure:
    """Why the peer, reached over TCP, did not accept the association (PS3.8 section 9.3.4)."""
    if rejection is not None:
        said = f"{rejection.result_str}; {rejection.source_str}; {rejection.reason_str}"
        transient = rejection.result == _REJECTED_TRANSIENT
        detail = f"{peer.ae_title} rejected the association: {said}."
        return Failure("PEER_REJECTED_ASSOCIATION", transient, detail)
    if association.rejected_contexts:
        detail = f"{peer.ae_title} accepted none of the presentation contexts."
        return Failure("CONTEXT_NOT_ACCEPTED", False, detail)
    return Failure("CONNECTION_LOST", True, f"{peer.ae_title} did not answer the association request.")


def end_association(association: Association, lost: bool) -> None:
    """Release the association; abort it when its peer has stopped answering."""
    if lost:
        association.abort()
    elif association.is_established:
        association.release()
