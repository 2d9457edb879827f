"""A listener on a free port, with an owner that remembers what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_io.listener import Caller, Listener, ReceivedObject, TurnedAway
from dicom_io.spool import Spool, SpooledFile


class Recorder:
    """Owner of a listener that stores what it gets; `answer` decides the status."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.opened: list[Caller] = []
        self.closed: list[tuple[Caller, str]] = []
        self.received: list[ReceivedObject] = []
        self.stored: list[SpooledFile] = []
        self.rejections: list[TurnedAway] = []
        self.answer: Callable[[ReceivedObject], int] = self.store
        self._lock = threading.Lock()

    def association_opened(self, caller: Caller) -> None:
        with self._lock:
            self.opened.append(caller)

    def object_received(self, received: ReceivedObject) -> int:
        with self._lock:
            self.received.append(received)
        return self.answer(received)

    def association_closed(self, caller: Caller, outcome: str) -> None:
        with self._lock:
            self.closed.append((caller, outcome))

    def turned_away(self, rejection: TurnedAway) -> None:
        with self._lock:
            self.rejections.append(rejection)

    def store(self, received: ReceivedObject) -> int:
        """Place the object in the spool, unsynced, and accept it."""
        placed = self.spool.place(received.path)
        with self._lock:
            self.stored.append(placed)
        return 0x0000

    @property
    def turned_away_count(self) -> int:
        """Rejections, those counted that were told together."""
        with self._lock:
            return sum(rejection.count for rejection in self.rejections)

    def of_kind(self, kind: str) -> list[TurnedAway]:
        """Rejections of one kind."""
        with self._lock:
            return [rejection for rejection in self.rejections if rejection.kind == kind]


@contextmanager
def listening(folder: Path, **options: Any) -> Iterator[tuple[Listener, Recorder]]:
    """A started listener, called FUNDUS and open to all unless `options` say otherwise."""
    recorder = Recorder(folder / "spool")
    settings: dict[str, Any] = {"ae_title": "FUNDUS", "allowed_callers": ("*",), **options}
    listener = Listener(recorder, host="127.0.0.1", port=0, incoming=recorder.spool.incoming, **settings)
    listener.start()
    try:
        yield listener, recorder
    finally:
        listener.stop(timeout_s=5)


def wait_until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Wait for a condition that other threads bring about.

    Raises:
        AssertionError: When it does not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s")
        time.sleep(0.01)
