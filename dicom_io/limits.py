"""What the door grants: limits, how they are counted, and how a peer's pace is measured.

Peers are told apart by host and calling AE title: behind one address there may be a whole hospital, and an
AE title alone is what anybody may call himself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from dicom_io.refusals import CALLER_LIMIT, LIMIT, RATE, Refusal

Peer = tuple[str, str]
"""Host and calling AE title."""

PDU_BYTES = 1 << 20
"""Largest PDU that is asked for (PS3.8 section D.1): memory of an association is a few of it."""
_PDU_TOLERATED = 2 * PDU_BYTES
"""Some count the header in and some do not; whoever sends far more is cut off before it is read."""
_GRACE_S = 5.0
"""An association younger than this, or faster within it, is never cut off in favour of another."""
_BUCKETS = 10_000


@dataclass(frozen=True)
class Limits:
    """Limits of a listener.

    Attributes:
        connections: TCP connections at once, associations included; further ones are closed at once.
        associations: Associations at once; further ones are rejected, transiently.
        associations_per_caller: The same for one peer.
        requests_per_minute: Association requests of one peer; further ones are rejected, transiently.
        object_bytes: Largest data set; what is beyond is not written, and the object refused.
        bytes_per_s: Least pace of a message that is arriving, measured over the network timeout.
        association_s: Seconds after which an association is ended.
    """

    connections: int = 512
    associations: int = 64
    associations_per_caller: int = 32
    requests_per_minute: int = 1200
    object_bytes: int = 1_000_000_000
    bytes_per_s: float = 1000.0
    association_s: float = 3600.0


class Breach(Exception):
    """A peer went beyond a limit; its association is aborted.

    Attributes:
        reason_code: PDU_TOO_LARGE, TOO_SLOW, ASSOCIATION_TOO_LONG or OBJECT_TOO_LARGE.
        detail: One sentence.
    """

    def __init__(self, reason_code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason_code = reason_code
        self.detail = detail


class Gate:
    """Counts associations and requests; any number of threads may use it.

    Args:
        limits: What is granted.
        clock: Seconds, monotonic.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Peer] = {}
        self._per_peer: Counter[Peer] = Counter()
        self._buckets: dict[Peer, tuple[float, float]] = {}

    @property
    def open_associations(self) -> int:
        """Associations that were admitted and have not left."""
        return len(self._open)

    def may_ask(self, peer: Peer) -> Refusal | None:
        """Count one association request; a refusal when there were too many within a minute."""
        most = float(self._limits.requests_per_minute)
        now = self._clock()
        with self._lock:
            tokens, since = self._buckets.get(peer, (most, now))
            tokens = min(most, tokens + (now - since) * most / 60)
            if len(self._buckets) >= _BUCKETS and peer not in self._buckets:
                self._forget_idle(now)
            self._buckets[peer] = (max(0.0, tokens - 1), now)
        return None if tokens >= 1 else RATE

    def admit(self, association_id: str, peer: Peer) -> Refusal | None:
        """Count an association as open, or say why there is no room for it."""
        with self._lock:
            if self._per_peer[peer] >= self._limits.associations_per_caller:
                return CALLER_LIMIT
            if len(self._open) >= self._limits.associations:
                return LIMIT
            self._open[association_id] = peer
            self._per_peer[peer] += 1
        return None

    def leave(self, association_id: str) -> None:
        """Count an association as ended, once."""
        with self._lock:
            peer = self._open.pop(association_id, None)
            if peer is not None:
                self._per_peer[peer] -= 1
                if not self._per_peer[peer]:
                    del self._per_peer[peer]

    def _forget_idle(self, now: float) -> None:
        """Drop the buckets that have filled up again: they say nothing."""
        self._buckets = {peer: kept for peer, kept in self._buckets.items() if now - kept[1] < 60}


class Pace:
    """What a peer sends, over time. Written by the association's reading thread, read by others.

    Args:
        limits: What is granted.
        window_s: Seconds over which `Limits.bytes_per_s` is measured.
        clock: Seconds, monotonic.
    """

    def __init__(self, limits: Limits, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._window_s = window_s
        self._clock = clock
        self._started = self._mark = self._last = clock()
        self._waited = 0.0
        self._arrived = self._since_mark = 0
        self._before: int | None = None

    def began(self, *, inside_message: bool) -> None:
        """A PDU begins; the pause before it counts as waiting inside a message only."""
        now = self._clock()
        if inside_message:
            self._waited += now - self._last
        self._last = now

    def took(self, count: int) -> None:
        """Count bytes of a PDU.

        Raises:
            Breach: TOO_SLOW or ASSOCIATION_TOO_LONG.
        """
        now = self._clock()
        self._waited += now - self._last
        self._last = now
        self._arrived += count
        if now - self._mark >= _GRACE_S:
            self._before, self._since_mark, self._mark = self._since_mark, 0, now
        self._since_mark += count
        if self._waited >= self._window_s:
            least = self._limits.bytes_per_s * self._waited
            if self._arrived < least:
                rate = self._arrived / self._waited
                raise Breach("TOO_SLOW", f"{rate:.0f} bytes a second, over {self._window_s:g} s")
            self._waited, self._arrived = 0.0, 0
        self.require_time()

    def require_time(self) -> None:
        """Raise when the association has lasted too long.

        Raises:
            Breach: ASSOCIATION_TOO_LONG.
        """
        if self._clock() - self._started >= self._limits.association_s:
            detail = f"open for more than {self._limits.association_s:g} s"
            raise Breach("ASSOCIATION_TOO_LONG", detail)

    def lags(self) -> bool:
        """Whether the peer has been idle, or slower than the least pace, for some seconds."""
        now = self._clock()
        least = self._limits.bytes_per_s * _GRACE_S
        if now - self._started < _GRACE_S:
            return False
        if now - self._mark >= _GRACE_S:
            return self._since_mark < least
        return self._before is not None and self._before + self._since_mark < least


def require_pdu_length(length: int) -> None:
    """Refuse a PDU before memory is taken for it.

    Raises:
        Breach: PDU_TOO_LARGE.
    """
    if length > _PDU_TOLERATED:
        raise Breach("PDU_TOO_LARGE", f"a PDU of {length} bytes, where {PDU_BYTES} were agreed on")
