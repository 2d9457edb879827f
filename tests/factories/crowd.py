"""Those at the door who keep others out: idle associations, senders at a byte a second, probes.

One thread in a process of its own, so that the senders that are measured beside it are not slowed down by it.
"""

from __future__ import annotations

import multiprocessing as mp
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any

_ACCEPTED, _REJECTED = 0x02, 0x03
_PAUSE_S = 0.5
"""Whoever is turned away comes again after this."""
_TICK_S = 0.02
_START_TIMEOUT_S = 120


@dataclass(frozen=True)
class CrowdPlan:
    """Who is in the crowd.

    Attributes:
        idle: Association requests of peers that say nothing after they were accepted.
        slow: The same of peers that then send `message`, a byte a second.
        message: PDUs of a C-STORE request.
        probes: Connections that are opened and closed.
        probes_per_s: How many of them a second.
    """

    idle: tuple[bytes, ...]
    slow: tuple[bytes, ...]
    message: bytes
    probes: int
    probes_per_s: float


@dataclass
class _Peer:
    """One member; `sent` counts bytes of the message, None before the association is accepted."""

    request: bytes
    is_slow: bool
    due: float = 0.0
    connection: socket.socket | None = None
    sent: int | None = None


@dataclass
class Crowd:
    """Runs a plan until told to stop.

    Args:
        address: Host and port of the listener.
        plan: Who is in it.
    """

    address: tuple[str, int]
    plan: CrowdPlan
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, begun: Event, stop: Event, tired: Event) -> dict[str, int]:
        """Press on until `stop`. Returns what became of whom.

        Args:
            begun: Set when everybody has asked for an association and had an answer.
            stop: Asks it to end.
            tired: Set when all probes are made.

        Returns:
            `probes`; `accepted` and `rejected` associations; `ended` after they were accepted, `unanswered`:
            ended before.
        """
        peers = [_Peer(each, False) for each in self.plan.idle] + [
            _Peer(each, True) for each in self.plan.slow
        ]
        started = time.monotonic()
        with selectors.DefaultSelector() as selector:
            while not stop.is_set():
                for key, _ in selector.select(_TICK_S):
                    self._hear(selector, key.data)
                now = time.monotonic()
                for peer in peers:
                    if peer.due <= now:
                        self._act(selector, peer, now)
                self._probe(int((now - started) * self.plan.probes_per_s))
                if sum(self.counts[each] for each in ("accepted", "rejected", "unanswered")) >= len(peers):
                    begun.set()
                if self.counts["probes"] >= self.plan.probes:
                    tired.set()
            for peer in peers:
                if peer.connection is not None:
                    peer.connection.close()
        return dict(self.counts)

    def _act(self, selector: selectors.BaseSelector, peer: _Peer, now: float) -> None:
        peer.due = now + 1
        try:
            if peer.connection is None:
                self._call(selector, peer)
            elif peer.is_slow and peer.sent is not None:
                peer.connection.send(self.plan.message[peer.sent : peer.sent + 1])
                peer.sent += 1
        except OSError:
            self.counts["ended" if peer.connection is not None else "unanswered"] += 1
            self._leave(selector, peer)

    def _call(self, selector: selectors.BaseSelector, peer: _Peer) -> None:
        peer.connection = socket.create_connection(self.address, timeout=10)
        peer.sent = None
        selector.register(peer.connection, selectors.EVENT_READ, peer)
        peer.connection.sendall(peer.request)

    def _hear(self, selector: selectors.BaseSelector, peer: _Peer) -> None:
        if peer.connection is None:
            return
        try:
            data = peer.connection.recv(4096)
        except OSError:
            data = b""
        kind = data[0] if data and peer.sent is None else None
        if kind == _ACCEPTED:
            self.counts["accepted"] += 1
            peer.sent = 0
            return
        if kind == _REJECTED:
            self.counts["rejected"] += 1
        else:
            self.counts["unanswered" if peer.sent is None else "ended"] += 1
        self._leave(selector, peer)

    def _leave(self, selector: selectors.BaseSelector, peer: _Peer) -> None:
        peer.due = time.monotonic() + _PAUSE_S
        if peer.connection is not None:
            selector.unregister(peer.connection)
            peer.connection.close()
            peer.connection = None

    def _probe(self, until_now: int) -> None:
        for _ in range(min(until_now, self.plan.probes) - self.counts["probes"]):
            with suppress(OSError):  # no room at the port itself: it was one more, all the same
                socket.create_connection(self.address, timeout=10).close()
            self.counts["probes"] += 1


@dataclass
class Pressing:
    """A crowd that is at the door now; `counts` are there when it has left."""

    tired: Event
    counts: dict[str, int] = field(default_factory=dict)


@contextmanager
def pressing(address: tuple[str, int], plan: CrowdPlan) -> Iterator[Pressing]:
    """Let a crowd press while the block runs."""
    context = mp.get_context("spawn")
    begun, stop, tired = context.Event(), context.Event(), context.Event()
    told: Any = context.Queue()
    process = context.Process(
        target=_press, args=(Crowd(address, plan), begun, stop, tired, told), daemon=True
    )
    process.start()
    crowd = Pressing(tired)
    try:
        if not begun.wait(_START_TIMEOUT_S):
            raise TimeoutError("the crowd did not start")
        yield crowd
    finally:
        stop.set()
        crowd.counts = told.get(timeout=_START_TIMEOUT_S)
        process.join(_START_TIMEOUT_S)


def _press(crowd: Crowd, begun: Event, stop: Event, tired: Event, told: Any) -> None:
    told.put(crowd.run(begun, stop, tired))
