"""What the door grants: limits, how they are counted, and how a peer's pace is measured.

Peers are told apart by host and calling AE title: behind one address there may be a whole hospital, and an
AE title alone is what anybody may call himself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dicom_io.refusals import CALLER_LIMIT, LIMIT, RATE, Refusal

Peer = tuple[str, str]
"""Host and calling AE title."""

PDU_BYTES = 1 << 20
"""Largest PDU that is asked for (PS3.8 section D.1): memory of an association is a few of it."""
_PDU_TOLERATED = 2 * PDU_BYTES
"""Some count the header in and some do not; whoever sends far more is cut off before it is read."""
_REQUEST_BYTES = 1 << 18
"""Longest PDU before there is an association: 128 presentation contexts with 60 transfer syntaxes each."""
_GRACE_S = 5.0
"""A sender that was waited for less than this is never cut off in favour of another."""
_FIRST_S = 2.0
"""The same for an association over which no message has come yet: real senders open one to send at once."""
_BUCKETS = 10_000
_MINUTE_S = 60.0


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
        reason_code: PDU_TOO_LARGE, TOO_SLOW, ASSOCIATION_TOO_LONG, OBJECT_TOO_LARGE, GAVE_WAY or
            PROTOCOL_ERROR.
        detail: One sentence.
    """

    def __init__(self, reason_code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason_code = reason_code
        self.detail = detail


class Gate:
    """Counts associations and requests; any number of threads may use it.

    Args:
        limits: What is granted to a caller that has no limits of its own.
        clock: Seconds, monotonic.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Peer] = {}
        self._per_peer: Counter[Peer] = Counter()
        self._buckets: OrderedDict[Peer, tuple[float, float]] = OrderedDict()

    @property
    def open_associations(self) -> int:
        """Associations that were admitted and have not left."""
        return len(self._open)

    def may_ask(self, peer: Peer, limits: Limits | None = None) -> Refusal | None:
        """Count one association request; a refusal, which is not counted, when there were too many.

        Args:
            peer: Who asks.
            limits: Its own, if it has any.
        """
        most = float((limits or self._limits).requests_per_minute)
        now = self._clock()
        with self._lock:
            tokens, since = self._buckets.pop(peer, (most, now))
            tokens = min(most, tokens + (now - since) * most / 60)
            granted = tokens >= 1
            self._buckets[peer] = (tokens - 1 if granted else tokens, now)
            self._forget(now)
        return None if granted else RATE

    def admit(self, association_id: str, peer: Peer, limits: Limits | None = None) -> Refusal | None:
        """Count an association as open, or say why there is no room for it."""
        most = (limits or self._limits).associations_per_caller
        with self._lock:
            if self._per_peer[peer] >= most:
                return CALLER_LIMIT
            if len(self._open) >= self._limits.associations:
                return LIMIT
            self._open[association_id] = peer
            self._per_peer[peer] += 1
        return None

    def leave(self, association_id: str) -> bool:
        """Count an association as ended, once; False when it was not counted as open."""
        with self._lock:
            peer = self._open.pop(association_id, None)
            if peer is None:
                return False
            self._per_peer[peer] -= 1
            if not self._per_peer[peer]:
                del self._per_peer[peer]
        return True

    def _forget(self, now: float) -> None:
        """Drop what is oldest: buckets that have filled up again, and any beyond what memory is kept for."""
        while self._buckets:
            _, since = next(iter(self._buckets.values()))
            if now - since < _MINUTE_S and len(self._buckets) <= _BUCKETS:
                return
            self._buckets.popitem(last=False)


class Pace:
    """What a peer sends, and how long it is waited for. Written by the association's reading thread.

    Only time in which nothing had come counts: what this machine takes for itself is not the peer's slowness.

    Args:
        limits: What is granted.
        window_s: Seconds over which `Limits.bytes_per_s` is measured.
        clock: Seconds, monotonic.
    """

    def __init__(self, limits: Limits, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._window_s = window_s
        self._clock = clock
        self._started = clock()
        self._waiting_since: float | None = None
        self._message = _Window()
        self._recent = _Window()
        self._lagged = False
        self._grace_s = _FIRST_S

    def waits(self) -> None:
        """Nothing has come: from now on the peer is waited for, unless it is already."""
        if self._waiting_since is None:
            self._waiting_since = self._clock()

    def began(self, *, inside_message: bool) -> None:
        """A PDU begins; the pause before it counts as slowness inside a message only."""
        pause_s = self._waited_s()
        self._recent.waited_s += pause_s
        if inside_message:
            self._message.waited_s += pause_s
        self._waiting_since = self._clock()

    def took(self, count: int) -> None:
        """Count bytes of a PDU, which were waited for.

        Raises:
            Breach: TOO_SLOW or ASSOCIATION_TOO_LONG.
        """
        for window in (self._message, self._recent):
            window.waited_s += self._waited_s()
            window.arrived += count
        self._waiting_since = self._clock()
        if self._recent.waited_s >= self._grace_s:
            self._lagged = self._is_slow(self._recent, self._recent.waited_s)
            self._recent = _Window()
        if self._message.waited_s >= self._window_s:
            if self._is_slow(self._message, self._message.waited_s):
                rate = self._message.arrived / self._message.waited_s
                raise Breach("TOO_SLOW", f"{rate:.0f} bytes a second, over {self._window_s:g} s")
            self._message = _Window()
        self.require_time()

    def pauses(self) -> None:
        """A PDU is complete: until `waits`, it is not the peer that is waited for."""
        self._waiting_since = None

    @property
    def is_used(self) -> bool:
        """Whether a whole message has ever come."""
        return self._grace_s == _GRACE_S

    def used(self) -> None:
        """A whole message has come: this is a sender, which may pause longer than one that never sent any."""
        self._grace_s = _GRACE_S

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
        waited_s = self._recent.waited_s + self._waited_s()
        if self._recent.arrived > self._limits.bytes_per_s * _FIRST_S:
            return self._is_slow(self._recent, waited_s) and waited_s >= self._grace_s
        return self._lagged or waited_s >= self._grace_s

    def _waited_s(self) -> float:
        since = self._waiting_since
        return 0.0 if since is None else self._clock() - since

    def _is_slow(self, window: _Window, waited_s: float) -> bool:
        return window.arrived < self._limits.bytes_per_s * waited_s


@dataclass
class _Window:
    """Seconds waited for a peer, and the bytes that came meanwhile."""

    waited_s: float = 0.0
    arrived: int = 0


def request_is_too_long(length: int) -> bool:
    """Whether a PDU of so many bytes is longer than a request for an association ever is."""
    return length > _REQUEST_BYTES


def require_pdu_length(length: int, *, established: bool) -> None:
    """Refuse a PDU before memory is taken for it.

    Args:
        length: As its header has it, in bytes.
        established: Whether there is an association; a request for one is short (PS3.8 section 9.3.2).

    Raises:
        Breach: PDU_TOO_LARGE.
    """
    if established and length > _PDU_TOLERATED:
        raise Breach("PDU_TOO_LARGE", f"a PDU of {length} bytes, where {PDU_BYTES} were agreed on")
    if not established and request_is_too_long(length):
        detail = f"a PDU of {length} bytes before an association, where {_REQUEST_BYTES} are enough"
        raise Breach("PDU_TOO_LARGE", detail)
