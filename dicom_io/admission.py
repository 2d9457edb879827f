"""Which association requests are accepted, and who makes room for them (PS3.8 section 9.3.4)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from dicom_io.acceptor import Acceptor
from dicom_io.callers import Callers
from dicom_io.limits import Gate, Limits, Peer
from dicom_io.listener_events import Caller
from dicom_io.refusals import CALLED_AE, CALLER_LIMIT, Refusal

_LOOK_AGAIN_S = 0.05
"""Where nobody gave way, nobody will for a moment: hundreds may ask meanwhile."""
_LEAVING = 16
"""Associations that give way and have not ended: no place is given away twice as fast as it gets free."""
_WASTEFUL_S = 60.0
_REMEMBERED = 10_000


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
        self._wasteful: OrderedDict[Peer, float] = OrderedDict()
        self._lock = threading.Lock()

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
        if refusal is None or self._is_wasteful(peer):
            return refusal
        if self._make_room(peer if refusal is CALLER_LIMIT else None):
            refusal = self._gate.admit(caller.association_id, peer, limits)
        return refusal

    def limits_of(self, caller: Caller) -> Limits | None:
        """Limits of the caller's own; None: those of the listener."""
        return self._callers.limits(caller.calling_ae)

    def leave(self, association_id: str) -> None:
        """Count an association as ended, once."""
        self._gate.leave(association_id)

    def _is_wasteful(self, peer: Peer) -> bool:
        """Whether a peer held a place a moment ago and sent nothing: nobody has to make room for it."""
        with self._lock:
            return time.monotonic() < self._wasteful.get(peer, 0.0)

    def _note_waste(self, peer: Peer) -> None:
        with self._lock:
            self._wasteful.pop(peer, None)
            self._wasteful[peer] = time.monotonic() + _WASTEFUL_S
            while len(self._wasteful) > _REMEMBERED:
                self._wasteful.popitem(last=False)

    def _make_room(self, peer: Peer | None) -> bool:
        """End an association, of `peer` if one is given, that is idle or slow; False when all are busy."""
        if peer is None and time.monotonic() < self._full_until:
            return False
        acceptors = self._acceptors()
        if sum(assoc.gives_way for assoc in acceptors) >= _LEAVING:
            return False
        for assoc in acceptors:
            # Whoever takes it out of the count ends it: two that ask at once end two.
            if (
                assoc.lags
                and (peer is None or peer == caller_of(assoc).peer)
                and self._gate.leave(assoc.association_id)
            ):
                assoc.give_way()
                if not assoc.dul.pace.is_used:
                    self._note_waste(caller_of(assoc).peer)
                return True
        if peer is None:
            self._full_until = time.monotonic() + _LOOK_AGAIN_S
        return False


def caller_of(assoc: Acceptor) -> Caller:
    """Who is at the other end of a connection."""
    request = assoc.requestor.primitive
    if request is None:
        return assoc.caller
    return replace(
        assoc.caller,
        calling_ae=str(request.calling_ae_title).strip(),
        called_ae=str(request.called_ae_title).strip(),
    )
