"""What was turned away by the thread that opens the door: counted, and told a moment later.

Ten thousand probes would be ten thousand transactions otherwise, and everybody would wait for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dicom_io.listener_events import TurnedAway

_EVERY_S, _AT_LEAST_EVERY_S = 0.25, 5.0
_SHARE = 0.1
"""Of the time that may be spent with telling: where that is slow, more is told together."""
_AT_A_TIME = 16
"""Told side by side where there are many: whoever writes rows commits those that come together together."""
_KINDS = 1000
"""What is told apart at a time."""
_OTHERS = "(others)"


class Tally:
    """Counts what is equal but for the connection; tells on a thread of its own.

    Args:
        tell: Called with each kind that was counted; may block, must not raise.
    """

    def __init__(self, tell: Callable[[TurnedAway], None]) -> None:
        self._tell = tell
        self._counts: dict[tuple[object, ...], TurnedAway] = {}
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener-tally", daemon=True)

    def add(self, rejection: TurnedAway) -> None:
        """Count a rejection; returns at once."""
        with self._lock:
            key = _key(rejection)
            if key not in self._counts and len(self._counts) >= _KINDS:
                others = replace(rejection.caller, calling_ae="", called_ae="", host=_OTHERS)
                rejection = replace(rejection, caller=others)
                key = _key(rejection)
            known = self._counts.get(key)
            self._counts[key] = rejection if known is None else replace(known, count=known.count + 1)
        self._some.set()

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Tell what is left, and end."""
        self._stopping.set()
        self._some.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        else:
            self._flush()

    def _run(self) -> None:
        pause_s = _EVERY_S
        while not self._stopping.is_set():
            self._some.wait()
            self._stopping.wait(pause_s)
            began = time.monotonic()
            self._flush()
            pause_s = min(_AT_LEAST_EVERY_S, max(_EVERY_S, (time.monotonic() - began) / _SHARE))
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, {}
            self._some.clear()
        if len(counts) < _AT_A_TIME:
            for rejection in counts.values():
                self._tell(rejection)
            return
        with ThreadPoolExecutor(_AT_A_TIME, "listener-tally") as pool:
            list(pool.map(self._tell, counts.values()))


def _key(rejection: TurnedAway) -> tuple[object, ...]:
    caller = rejection.caller
    return (
        rejection.kind,
        rejection.reason_code,
        rejection.status,
        rejection.detail,
        caller.calling_ae,
        caller.called_ae,
        caller.host,
    )
