"""Association requests at a glance (PS3.8 section 9.3.2): who asks, and a rejection that takes no thread."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import replace

from dicom_io.limits import request_is_too_long
from dicom_io.listener_events import Caller
from dicom_io.refusals import Refusal

REQUEST_HEAD = 42
"""Bytes of an A-ASSOCIATE-RQ up to the end of the calling AE title (PS3.8 table 9-11)."""
_ASSOCIATE_RQ, _ASSOCIATE_RJ = 0x01, 0x03
_CALLED, _CALLING = slice(10, 26), slice(26, 42)
_UNREAD_BYTES = 1 << 18


def who_asks(head: bytes, caller: Caller) -> Caller | None:
    """Complete `caller` with the AE titles of the request that a connection begins with.

    Args:
        head: The first bytes, at most `REQUEST_HEAD` of them.
        caller: The peer.

    Returns:
        None when it is not an association request, or not enough of one.
    """
    if len(head) < REQUEST_HEAD or head[0] != _ASSOCIATE_RQ:
        return None
    if request_is_too_long(int.from_bytes(head[2:6], "big")):
        return None
    called, calling = (head[each].decode("ascii", "replace").strip(" \x00") for each in (_CALLED, _CALLING))
    return replace(caller, called_ae=called, calling_ae=calling)


def reject(connection: socket.socket, refusal: Refusal) -> None:
    """Send an A-ASSOCIATE-RJ (PS3.8 section 9.3.4) and close; never waits.

    What has come is read before: closing a socket with unread data resets the connection, and the peer might
    never see why.
    """
    fields = bytes((0, refusal.result, refusal.source, refusal.diagnostic))
    with suppress(OSError):  # the peer went first
        connection.recv(_UNREAD_BYTES)
        connection.send(bytes((_ASSOCIATE_RJ, 0)) + len(fields).to_bytes(4, "big") + fields)
        connection.shutdown(socket.SHUT_WR)
    connection.close()
