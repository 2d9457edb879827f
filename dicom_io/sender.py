"""Objects out over one DICOM association (PS3.4 annex B): each file's bytes as they are stored."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import _config, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.status import code_to_category

from dicom_io.calling import Failure, Line, Peer, associate, cut_when, end_association
from dicom_io.errors import DicomIoError

# pynetdicom then reads the data set from the file while it sends: nothing is decoded or written anew.
_config.STORE_SEND_CHUNKED_DATASET = True

_VERIFICATION = "1.2.840.10008.1.1"
_EXPLICIT = "1.2.840.10008.1.2.1"
_MAXIMUM_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers of one byte
_DUPLICATE_INSTANCE = 0x0111
_TRANSIENT = frozenset({0x0110, 0x0213, *range(0xA700, 0xA800)})
"""Processing failure, resource limitation (PS3.7 annex C), out of resources (PS3.4 table B.2-1)."""

__all__ = ["Echo", "InForm", "Outcome", "Parcel", "Peer", "accepted_classes", "echo", "send"]

log = structlog.get_logger(__name__)


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
    sop: tuple[str, str] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Echo:
    """Answer to a C-ECHO: whether the peer speaks DICOM with us, and a sentence that says why not."""

    ok: bool
    detail: str


def _failed(parcel: Parcel, failure: Failure) -> Outcome:
    return Outcome(parcel.key, False, failure.retryable, None, failure.reason_code, failure.detail)


InForm = Callable[[Parcel, str], Parcel]
"""Makes the parcel of an object under another SOP class, in the same transfer syntax.

May raise OSError or DicomIoError: the parcel is then to be sent later.
"""


def _as_it_is(parcel: Parcel, sop_class_uid: str) -> Parcel:
    raise DicomIoError(f"there is no form of {parcel.sop_instance_uid} under {sop_class_uid}")


_LOST = Failure("CONNECTION_LOST", True, "The association ended before the object was answered.")


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
        stopping: When this is set, a peer has some seconds to answer; then the connection is cut, so that a
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
        if isinstance(transfer_syntax, Failure):
            yield _failed(parcel, transfer_syntax)
        else:
            sound.append((parcel, transfer_syntax))
    if not sound:
        return
    line = Line()
    with cut_when(stopping, line):
        yield from _send(peer, sound, line, wanted, in_form)


def _send(
    peer: Peer,
    sound: Sequence[tuple[Parcel, UID]],
    line: Line,
    wanted: Callable[[int], bool],
    in_form: InForm,
) -> Iterator[Outcome]:
    association = associate(peer, _contexts(sound), line)
    if isinstance(association, Failure):
        yield from (_failed(parcel, association) for parcel, _ in sound)
        return
    lost = False
    try:
        for number, (parcel, transfer_syntax) in enumerate(sound):
            if lost:
                yield _failed(parcel, _LOST)
                continue
            if not wanted(parcel.key):
                continue
            message_id = number % 0xFFFF + 1
            outcome = _store(association, parcel, transfer_syntax, message_id=message_id, in_form=in_form)
            lost = outcome.reason_code == _LOST.reason_code
            yield outcome
    finally:
        end_association(association, lost)


def echo(peer: Peer) -> Echo:
    """Ask the peer for an echo (PS3.4 annex A)."""
    association = associate(peer, [build_context(_VERIFICATION)], Line())
    if isinstance(association, Failure):
        return Echo(False, f"{association.reason_code}: {association.detail}")
    try:
        status = association.send_c_echo().get("Status")
    finally:
        end_association(association, lost=False)
    if status is None:
        return Echo(False, f"{_LOST.reason_code}: the association ended before the echo was answered.")
    if status:
        return Echo(False, f"The peer answered the echo with status 0x{status:04X}.")
    return Echo(True, "The peer answered the echo.")


def accepted_classes(peer: Peer, sop_classes: Iterable[str]) -> frozenset[str] | Echo:
    """Return which SOP classes the peer takes, in Explicit VR Little Endian; or why there is no answer."""
    contexts = [build_context(_VERIFICATION), *(build_context(each, _EXPLICIT) for each in sop_classes)]
    association = associate(peer, contexts, Line())
    if isinstance(association, Failure):
        return Echo(False, f"{association.reason_code}: {association.detail}")
    end_association(association, lost=False)
    return frozenset(str(cx.abstract_syntax) for cx in association.accepted_contexts)


def _transfer_syntax(parcel: Parcel) -> UID | Failure:
    """Transfer syntax of the stored file, or what is wrong with the file."""
    try:
        meta = read_file_meta_info(parcel.path)
        held = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)
        transfer_syntax = UID(meta.TransferSyntaxUID)
    except (OSError, EOFError, InvalidDicomError, AttributeError, struct.error) as error:
        detail = f"The stored file cannot be read ({type(error).__name__})."
        return Failure("SPOOL_FILE_DAMAGED", False, detail)
    if held != (parcel.sop_class_uid, parcel.sop_instance_uid):
        return Failure("SPOOL_FILE_DAMAGED", False, "The stored file holds another object.")
    return transfer_syntax


def _contexts(parcels: Sequence[tuple[Parcel, UID]]) -> list[PresentationContext]:
    """One context for each pair of SOP class and transfer syntax, so that both sides mean the file's own."""
    pairs = dict.fromkeys(
        (form, transfer_syntax) for parcel, transfer_syntax in parcels for form in _forms(parcel)
    )
    return [build_context(*pair) for pair in list(pairs)[:_MAXIMUM_CONTEXTS]]


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
        return _failed(parcel, Failure("CONTEXT_NOT_ACCEPTED", False, detail))
    if form != parcel.sop_class_uid:
        try:
            parcel = in_form(parcel, form)
        except (OSError, DicomIoError) as error:
            detail = (
                f"The report could not be put into the form that the peer takes ({type(error).__name__})."
            )
            return _failed(parcel, Failure("INTERNAL_ERROR", True, detail))
    try:
        answer = association.send_c_store(parcel.path, msg_id=message_id)
    except Exception as error:  # whatever it was, the parcel and those behind it must have an outcome
        log.exception("send_failed", sop_instance_uid=parcel.sop_instance_uid, error=type(error).__name__)
        association.abort()
        return _failed(parcel, _LOST)
    status = answer.get("Status")
    return _failed(parcel, _LOST) if status is None else _answered(parcel, int(status))


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
