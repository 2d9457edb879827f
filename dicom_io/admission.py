"""Which association requests are accepted, and who makes room for them (PS3.8 section 9.3.4)."""

from __future__ import annotations

import time
from collections.abc import Callable

from dicom_io.acceptor import Acceptor
from dicom_io.callers import Callers
from dicom_io.limits import Gate, Limits, Peer
from dicom_io.listener_events import Caller
from dicom_io.refusals import CALLED_AE, CALLER_LIMIT, Refusal

_LOOK_AGAIN_S = 0.05
"""Where nobody gave way, nobody will for a moment: hundreds may ask meanwhile."""


class Admission:
    """Decides on association requests; any number of threads may ask.

    Args:
        ae_title: The AE title that has to be called.
        callers: Who may call.
        limits: What is granted to all together, and to a caller without limits of its own.
        acceptors: The connections that are open, as they are when asked.
    """

    def __init__(
        self,
        ae_title: str,
        callers: Callers,
        limits: Limits,
        acceptors: Callable[[], list[Acceptor]],
    ) -> None:
        self._ae_title = ae_title
        self._callers = callers
        self._gate = Gate(limits)
        self._acceptors = acceptors
        self._full_until = 0.0

    @property
    def open_associations(self) -> int:
        """Associations that were admitted and have not left."""
        return self._gate.open_associations

    def refusal(self, caller: Caller) -> Refusal | None:
        """Why `caller` is rejected; None counts the association as open."""
        if caller.called_ae != self._ae_title:
            return CALLED_AE
        refusal = self._callers.refusal(caller.calling_ae, caller.host)
        if refusal is not None:
            return refusal
        peer, limits = (caller.host, caller.calling_ae), self.limits_of(caller)
        refusal = self._gate.may_ask(peer, limits)
        if refusal is not None:
            return refusal
        refusal = self._gate.admit(caller.association_id, peer, limits)
        if refusal is not None and self._make_room(peer if refusal is CALLER_LIMIT else None):
            refusal = self._gate.admit(caller.association_id, peer, limits)
        return refusal

    def limits_of(self, caller: Caller) -> Limits | None:
        """Limits of the caller's own; None: those of the listener."""
        return self._callers.limits(caller.calling_ae)

    def leave(self, association_id: str) -> None:
        """Count an association as ended, once."""
        self._gate.leave(association_id)

    def _make_room(self, peer: Peer | None) -> bool:
        """End an association, of `peer` if one is given, that is idle or slow; False when all are busy."""
        if peer is None and time.monotonic() < self._full_until:
            return False
        for assoc in self._acceptors():
            # Whoever takes it out of the count ends it: two that ask at once end two.
            if (
                assoc.lags
                and (peer is None or peer == caller_of(assoc).peer)
                and self._gate.leave(assoc.association_id)
            ):
                assoc.give_way()
                return True
        if peer is None:
            self._full_until = time.monotonic() + _LOOK_AGAIN_S
        return False


def caller_of(assoc: Acceptor) -> Caller:
    """Who is at the other end of a connection."""
    request = assoc.requestor.primitive
    return Caller(
        association_id=assoc.association_id,
        calling_ae="" if request is None else str(request.calling_ae_title).strip(),
        called_ae="" if request is None else str(request.called_ae_title).strip(),
        host=str(assoc.remote_address[0]),
        port=int(assoc.remote_address[1]),
    )
