"""Association requests at a glance (PS3.8 section 9.3.2): who asks, and a rejection that takes no thread."""

from __future__ import annotations

import selectors
import socket
import time
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
_ARTIM_S = 5.0
"""Time that a peer has to close its connection after it was rejected (PS3.8 section 9.1.5)."""
_REJECTED = 256
"""Connections of rejected peers that may stay open so long; beyond, the oldest is closed."""


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


class Rejected:
    """Connections of peers that were rejected, until the peers close them; for one thread.

    It is the peer's to close (PS3.8 section 9.2.3, state 13): who closes first may reset what the peer has
    not read yet, and it would never see why.

    Args:
        selector: Tells of what comes; the connections are registered with it.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._since: dict[socket.socket, float] = {}

    def add(self, connection: socket.socket, refusal: Refusal) -> None:
        """Send an A-ASSOCIATE-RJ (PS3.8 section 9.3.4); never waits."""
        fields = bytes((0, refusal.result, refusal.source, refusal.diagnostic))
        with suppress(OSError):  # the peer went first
            connection.recv(_UNREAD_BYTES)
            connection.send(bytes((_ASSOCIATE_RJ, 0)) + len(fields).to_bytes(4, "big") + fields)
        self._since[connection] = time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._since) > _REJECTED:
            self._close(next(iter(self._since)))

    def heard(self, connection: socket.socket) -> None:
        """Read and drop what a peer still sends, until it closes."""
        if connection not in self._since:  # closed a moment ago
            return
        try:
            ended = not connection.recv(_UNREAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._close(connection)

    def give_up(self, after_s: float = _ARTIM_S) -> None:
        """Close connections that were rejected so long ago."""
        while self._since:
            connection, since = next(iter(self._since.items()))
            if since > time.monotonic() - after_s:
                return
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._since[connection]
        self._selector.unregister(connection)
        connection.close()
