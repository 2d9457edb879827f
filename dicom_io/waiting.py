"""How an association waits: for its peer and for its own threads, without looking a thousand times a second.

pynetdicom's two threads an association look every millisecond whether there is something to do. With two
hundred associations open that is most of a core, taken from those who have something to send.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pynetdicom.transport import AssociationSocket

from dicom_io.limits import require_pdu_length

if TYPE_CHECKING:
    from dicom_io.acceptor import Acceptor

IDLE_S = 0.2
"""How long is waited at a time; whatever comes ends it at once, but for an end that this side decides on."""
_READ_BYTES = 1 << 16


class Requests(queue.Queue[Any]):
    """Requests that are complete, and nudges: whoever waits for a request is woken for other things too.

    Attributes:
        arrived: Requests that were ever put.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrived = 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a request."""
        self.arrived += 1
        super().put(item, block, timeout)

    def nudge(self) -> None:
        """Wake up who waits, for something that is not in here."""
        super().put((None, None))

    def next(self, timeout_s: float) -> Any:
        """Next request with its context ID; (None, None) after a nudge or when none comes in time."""
        try:
            return self.get(timeout=timeout_s)
        except queue.Empty:
            return None, None


class Noticed(queue.Queue[Any]):
    """A queue that tells somebody when something is put in."""

    def __init__(self, notice: Callable[[], None]) -> None:
        super().__init__()
        self._notice = notice

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item."""
        super().put(item, block, timeout)
        self._notice()


class Connection(AssociationSocket):
    """Socket that can be waited for, and is closed even when the peer went first.

    pynetdicom leaves closing to the garbage collector then, and asks `select`, which knows no descriptor
    beyond 1023.
    """

    @property
    def ready(self) -> bool:
        """Whether something can be read; Evt17 (PS3.8 table 9-10) is queued when the socket is broken."""
        if self.socket is None or self._is_connected is False:
            return False
        try:
            return self._readable(0)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def wait(self, timeout_s: float) -> None:
        """Wait until something can be read, the peer is gone, or the time is over."""
        try:
            self._readable(timeout_s)
        except (OSError, ValueError):
            return  # closed meanwhile: `ready` says so

    def _readable(self, timeout_s: float) -> bool:
        connection = self.socket
        if connection is None:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, fewer only when the connection ends.

        Raises:
            Breach: The peer sends too much or too slowly.
            OSError: The connection broke, or was silent for the network timeout.
        """
        assoc = cast("Acceptor", self.assoc)
        require_pdu_length(nr_bytes, established=assoc.dul.negotiated)
        pace = assoc.dul.pace
        read = bytearray()
        while len(read) < nr_bytes:
            piece = cast(socket.socket, self.socket).recv(min(nr_bytes - len(read), _READ_BYTES))
            if not piece:
                break
            read += piece
            pace.took(len(piece))
        return read

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()
