"""A sender that is nothing but a socket: what it puts on the wire, and when, is up to the test.

pynetdicom's own sender takes two threads that look every millisecond; hundreds of them in one process would
measure themselves.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from io import BytesIO
from types import TracebackType
from typing import Self

from factories.dicom import JPEGBaseline8Bit
from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.sop_class import OphthalmicPhotography8BitImageStorage  # type: ignore[attr-defined]

PIECE = 60_000
"""Bytes of a fragment; below what every listener takes as a PDU."""
_ACCEPTED, _DATA = 0x02, 0x04
_RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04" + bytes(4)
_STATUS = b"\x00\x00\x00\x09\x02\x00\x00\x00"
"""Tag (0000,0900) and its length in implicit little endian (PS3.7 table E.1-1)."""


@lru_cache
def associate_rq(calling: str, called: str = "FUNDUS") -> bytes:
    """An A-ASSOCIATE-RQ PDU (PS3.8 section 9.3.2) that proposes one context: 8-bit photographs, JPEG."""
    context = build_context(OphthalmicPhotography8BitImageStorage, JPEGBaseline8Bit)
    context.context_id = 1
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3"
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, called
    request.presentation_context_definition_list = [context]
    request.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return pdu.encode()


def store_pdus(ds: Dataset, message_id: int = 1, piece: int = PIECE) -> list[bytes]:
    """The P-DATA-TF PDUs (PS3.8 section 9.3.5) of a C-STORE request on context 1, explicit VR."""
    data = encode(ds, is_implicit_vr=False, is_little_endian=True)
    request = C_STORE()
    request.MessageID, request.Priority = message_id, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    request.DataSet = BytesIO(data or b"")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    pdus = []
    for primitive in message.encode_msg(1, piece):
        for context, value in primitive.presentation_data_value_list:
            item = struct.pack(">IB", len(value) + 1, context) + value
            pdus.append(b"\x04\x00" + struct.pack(">I", len(item)) + item)
    return pdus


class Wire:
    """One connection of a sender.

    Args:
        address: Host and port of the listener.
        ae_title: Calling AE title.
        source: Local address to call from.
        timeout_s: Longest wait for anything.
    """

    def __init__(
        self, address: tuple[str, int], ae_title: str, source: str = "", timeout_s: float = 30
    ) -> None:
        self.ae_title = ae_title
        self.socket = socket.create_connection(address, timeout_s, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def associate(self) -> bool:
        """Ask for an association; whether it was accepted."""
        self.socket.sendall(associate_rq(self.ae_title))
        return self._pdu()[0] == _ACCEPTED

    def push(self, ds: Dataset) -> None:
        """Send a C-STORE request, without waiting for the answer."""
        self.socket.sendall(b"".join(store_pdus(ds)))

    def answer(self) -> int:
        """Status of the next C-STORE response.

        Raises:
            ConnectionError: The association ended instead.
        """
        kind, body = self._pdu()
        if kind != _DATA:
            raise ConnectionAbortedError(f"PDU of type {kind} in place of an answer")
        at = body.index(_STATUS) + len(_STATUS)
        return int.from_bytes(body[at : at + 2], "little")

    def release(self) -> None:
        """Release the association, and wait for the answer."""
        self.socket.sendall(_RELEASE_RQ)
        self._pdu()

    def _pdu(self) -> tuple[int, bytes]:
        head = self._read(6)
        return head[0], self._read(int.from_bytes(head[2:], "big"))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("the listener hung up")
            data += piece
        return data
