"""Objects out over one DICOM association (PS3.4 annex B): each file's bytes as they are stored."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.status import code_to_category
from pynetdicom.transport import AssociationSocket

from dicom_io.errors import DicomIoError
from dicom_io.tls import TlsFiles, TlsFilesError, client_context, tls_reason
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# pynetdicom then reads the data set from the file while it sends: nothing is decoded or written anew.
_config.STORE_SEND_CHUNKED_DATASET = True

_VERIFICATION = "1.2.840.10008.1.1"
_EXPLICIT = "1.2.840.10008.1.2.1"
_UNLIMITED_PDU = 0
_MAXIMUM_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers of one byte
_DUPLICATE_INSTANCE = 0x0111
_TRANSIENT = frozenset({0x0110, 0x0213, *range(0xA700, 0xA800)})
"""Processing failure, resource limitation (PS3.7 annex C), out of resources (PS3.4 table B.2-1)."""

_REJECTED_TRANSIENT = 0x02
STOP_GRACE_S = 5.0
"""Longer than a peer that works takes for a report; within the time in which a process has to stop."""
_WATCH_S = 0.2

log = structlog.get_logger(__name__)


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
class Parcel:
    """One stored file to send.

    Attributes:
        key: The caller's name for it, for instance a row id; comes back in the outcome.
        path: A PS3.10 file.
        sop_class_uid: What the file must hold.
        sop_instance_uid: What the file must hold.
        forms: SOP classes under which it may be sent, the best first; none: only its own.
    """

    key: int
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    forms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one parcel.

    Attributes:
        key: That of the parcel.
        accepted: The peer has it: success, a warning, or "duplicate" (it has it from an earlier attempt).
        retryable: Sending it again later may help.
        status: DIMSE status, None when the peer gave none.
        reason_code: None when accepted; else PEER_UNREACHABLE, PEER_TLS_FAILED, PEER_REJECTED_ASSOCIATION,
            CONTEXT_NOT_ACCEPTED, STORE_FAILED (the peer could not at that time), STORE_REFUSED (it will not),
            CONNECTION_LOST, or SPOOL_FILE_DAMAGED (our file is missing or not the object announced).
        detail: A sentence for the admin.
        sop: SOP class and instance UID of what the peer answered for; None when nothing was sent.
    """

    key: int
    accepted: bool
    retryable: bool
    status: int | None
    reason_code: str | None
    detail: str
    sop: tuple[str, str] | None = None


@dataclass(frozen=True)
class Echo:
    """Answer to a C-ECHO: whether the peer speaks DICOM with us, and a sentence that says why not."""

    ok: bool
    detail: str


@dataclass(frozen=True)
class _Failure:
    """Why there is no association."""

    reason_code: str
    retryable: bool
    detail: str

    def outcome(self, parcel: Parcel) -> Outcome:
        return Outcome(parcel.key, False, self.retryable, None, self.reason_code, self.detail)


class _Line:
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

    def __init__(self, peer: Peer, files: TlsFiles, line: _Line) -> None:
        self._context = client_context(files, check_name=peer.tls_check_name)
        self._context.sslsocket_class = _TlsSocket
        self._line = line

    def wrap_socket(self, connection: socket.socket, **options: Any) -> ssl.SSLSocket:
        wrapped = self._line.connection = self._context.wrap_socket(connection, **options)
        return wrapped


class _Caller(AE):
    """Our side of one association: titles, timeouts, and a socket that is closed when there is none."""

    def __init__(self, peer: Peer, line: _Line) -> None:
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
def _cut_when(stopping: threading.Event | None, line: _Line) -> Iterator[None]:
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


InForm = Callable[[Parcel, str], Parcel]
"""Makes the parcel of an object under another SOP class, in the same transfer syntax.

May raise OSError or DicomIoError: the parcel is then to be sent later.
"""


def _as_it_is(parcel: Parcel, sop_class_uid: str) -> Parcel:
    raise DicomIoError(f"there is no form of {parcel.sop_instance_uid} under {sop_class_uid}")


_LOST = _Failure("CONNECTION_LOST", True, "The association ended before the object was answered.")


def send(
    peer: Peer,
    parcels: Iterable[Parcel],
    *,
    stopping: threading.Event | None = None,
    wanted: Callable[[int], bool] = lambda key: True,
    in_form: InForm = _as_it_is,
) -> Iterator[Outcome]:
    """Send files over one association, each in its own transfer syntax.

    Args:
        peer: Where to.
        parcels: What; read completely before the association is requested, because that names their contexts.
        stopping: When this is set, a peer has `STOP_GRACE_S` to answer; then the connection is cut, so that a
            process whose peer hangs can end all the same.
        wanted: Asked with a parcel's key right before it is sent; one that is not wanted any more is left
            out.
        in_form: Asked for a parcel's form that the peer takes, when it does not take its own SOP class.

    Yields:
        Exactly one outcome for each parcel that is wanted, as soon as it is known, in the parcels' order
        except that damaged files come first. An association lost on the way fails those that are left as
        CONNECTION_LOST.
    """
    sound: list[tuple[Parcel, UID]] = []
    for parcel in parcels:
        transfer_syntax = _transfer_syntax(parcel)
        if isinstance(transfer_syntax, _Failure):
            yield transfer_syntax.outcome(parcel)
        else:
            sound.append((parcel, transfer_syntax))
    if not sound:
        return
    line = _Line()
    with _cut_when(stopping, line):
        yield from _send(peer, sound, line, wanted, in_form)


def _send(
    peer: Peer,
    sound: Sequence[tuple[Parcel, UID]],
    line: _Line,
    wanted: Callable[[int], bool],
    in_form: InForm,
) -> Iterator[Outcome]:
    association = _associate(peer, _contexts(sound), line)
    if isinstance(association, _Failure):
        yield from (association.outcome(parcel) for parcel, _ in sound)
        return
    lost = False
    try:
        for number, (parcel, transfer_syntax) in enumerate(sound):
            if lost:
                yield _LOST.outcome(parcel)
                continue
            if not wanted(parcel.key):
                continue
            message_id = number % 0xFFFF + 1
            outcome = _store(association, parcel, transfer_syntax, message_id=message_id, in_form=in_form)
            lost = outcome.reason_code == _LOST.reason_code
            yield outcome
    finally:
        _end(association, lost)


def echo(peer: Peer) -> Echo:
    """Ask the peer for an echo (PS3.4 annex A)."""
    association = _associate(peer, [build_context(_VERIFICATION)], _Line())
    if isinstance(association, _Failure):
        return Echo(False, f"{association.reason_code}: {association.detail}")
    try:
        status = association.send_c_echo().get("Status")
    finally:
        _end(association, lost=False)
    if status is None:
        return Echo(False, f"{_LOST.reason_code}: the association ended before the echo was answered.")
    if status:
        return Echo(False, f"The peer answered the echo with status 0x{status:04X}.")
    return Echo(True, "The peer answered the echo.")


def accepted_classes(peer: Peer, sop_classes: Iterable[str]) -> frozenset[str] | Echo:
    """Return which SOP classes the peer takes, in Explicit VR Little Endian; or why there is no answer."""
    contexts = [build_context(_VERIFICATION), *(build_context(each, _EXPLICIT) for each in sop_classes)]
    association = _associate(peer, contexts, _Line())
    if isinstance(association, _Failure):
        return Echo(False, f"{association.reason_code}: {association.detail}")
    _end(association, lost=False)
    return frozenset(str(cx.abstract_syntax) for cx in association.accepted_contexts)


def _transfer_syntax(parcel: Parcel) -> UID | _Failure:
    """Transfer syntax of the stored file, or what is wrong with the file."""
    try:
        meta = read_file_meta_info(parcel.path)
        held = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)
        transfer_syntax = UID(meta.TransferSyntaxUID)
    except (OSError, EOFError, InvalidDicomError, AttributeError, struct.error) as error:
        detail = f"The stored file cannot be read ({type(error).__name__})."
        return _Failure("SPOOL_FILE_DAMAGED", False, detail)
    if held != (parcel.sop_class_uid, parcel.sop_instance_uid):
        return _Failure("SPOOL_FILE_DAMAGED", False, "The stored file holds another object.")
    return transfer_syntax


def _contexts(parcels: Sequence[tuple[Parcel, UID]]) -> list[PresentationContext]:
    """One context for each pair of SOP class and transfer syntax, so that both sides mean the file's own."""
    pairs = dict.fromkeys(
        (form, transfer_syntax) for parcel, transfer_syntax in parcels for form in _forms(parcel)
    )
    return [build_context(*pair) for pair in list(pairs)[:_MAXIMUM_CONTEXTS]]


def _associate(peer: Peer, contexts: Sequence[PresentationContext], line: _Line) -> Association | _Failure:
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
        return _Failure("PEER_TLS_FAILED", True, f"{error}.")
    except (OSError, ValueError, TypeError) as error:
        return _Failure("PEER_UNREACHABLE", True, f"{peer.host}:{peer.port}: {error}.")
    if association.is_established:
        return association
    tls_failure = line.connection.failure if isinstance(line.connection, _TlsSocket) else None
    line.close()
    if tls_failure is not None:
        return _Failure("PEER_TLS_FAILED", True, f"No TLS with {peer.host}:{peer.port}: {tls_failure}.")
    if not entity.connected:
        return _Failure("PEER_UNREACHABLE", True, f"No TCP connection to {peer.host}:{peer.port}.")
    return _refusal(association, entity.rejection, peer)


def _refusal(association: Association, rejection: A_ASSOCIATE_RJ | None, peer: Peer) -> _Failure:
    """Why the peer, reached over TCP, did not accept the association (PS3.8 section 9.3.4)."""
    if rejection is not None:
        said = f"{rejection.result_str}; {rejection.source_str}; {rejection.reason_str}"
        transient = rejection.result == _REJECTED_TRANSIENT
        detail = f"{peer.ae_title} rejected the association: {said}."
        return _Failure("PEER_REJECTED_ASSOCIATION", transient, detail)
    if association.rejected_contexts:
        detail = f"{peer.ae_title} accepted none of the presentation contexts."
        return _Failure("CONTEXT_NOT_ACCEPTED", False, detail)
    return _Failure("CONNECTION_LOST", True, f"{peer.ae_title} did not answer the association request.")


def _forms(parcel: Parcel) -> tuple[str, ...]:
    return parcel.forms or (parcel.sop_class_uid,)


def _store(
    association: Association, parcel: Parcel, transfer_syntax: UID, *, message_id: int, in_form: InForm
) -> Outcome:
    accepted = _accepted(association)
    form = next((each for each in _forms(parcel) if (each, transfer_syntax) in accepted), None)
    if form is None:
        names = ", ".join(UID(each).name for each in _forms(parcel))
        detail = f"The peer does not accept {names} as {transfer_syntax.name}."
        return _Failure("CONTEXT_NOT_ACCEPTED", False, detail).outcome(parcel)
    if form != parcel.sop_class_uid:
        try:
            parcel = in_form(parcel, form)
        except (OSError, DicomIoError) as error:
            detail = (
                f"The report could not be put into the form that the peer takes ({type(error).__name__})."
            )
            return _Failure("INTERNAL_ERROR", True, detail).outcome(parcel)
    try:
        answer = association.send_c_store(parcel.path, msg_id=message_id)
    except Exception as error:  # whatever it was, the parcel and those behind it must have an outcome
        log.exception("send_failed", sop_instance_uid=parcel.sop_instance_uid, error=type(error).__name__)
        association.abort()
        return _LOST.outcome(parcel)
    status = answer.get("Status")
    return _LOST.outcome(parcel) if status is None else _answered(parcel, int(status))


def _accepted(association: Association) -> set[tuple[str | None, str]]:
    return {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}


def _answered(parcel: Parcel, status: int) -> Outcome:
    """The outcome that a DIMSE status stands for (PS3.4 table B.2-1, PS3.7 annex C)."""
    category = code_to_category(status)
    detail = f"The peer answered 0x{status:04X} ({category})."
    if category in ("Success", "Warning") or status == _DUPLICATE_INSTANCE:
        sop = (parcel.sop_class_uid, parcel.sop_instance_uid)
        return Outcome(parcel.key, True, False, status, None, detail, sop)
    transient = status in _TRANSIENT
    reason_code = "STORE_FAILED" if transient else "STORE_REFUSED"
    return Outcome(parcel.key, False, transient, status, reason_code, detail)


def _end(association: Association, lost: bool) -> None:
    """Release the association; abort it when its peer has stopped answering."""
    if lost:
        association.abort()
    elif association.is_established:
        association.release()
