"""Connections that were turned away before it was known who they are: counted, and told a moment later.

Ten thousand probes would be ten thousand transactions otherwise, and the thread that opens the door would
wait for each.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

from dicom_io.listener_events import Caller, TurnedAway

_EVERY_S = 0.25
_HOSTS = 1000
"""Hosts that are told apart within a moment."""
_OTHERS = "(others)"


class Tally:
    """Counts by reason and host; tells on a thread of its own.

    Args:
        tell: Called with each kind that was counted; may block, must not raise.
    """

    def __init__(self, tell: Callable[[TurnedAway], None]) -> None:
        self._tell = tell
        self._counts: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener-tally", daemon=True)

    def add(self, reason_code: str, detail: str, remote: tuple[str, int]) -> None:
        """Count a connection; returns at once."""
        host, port = remote
        with self._lock:
            key = (reason_code, detail, host)
            if key not in self._counts and len(self._counts) >= _HOSTS:
                key = (reason_code, detail, _OTHERS)
            count, _ = self._counts.get(key, (0, 0))
            self._counts[key] = (count + 1, port)
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
        while not self._stopping.is_set():
            self._some.wait()
            self._stopping.wait(_EVERY_S)
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, {}
            self._some.clear()
        for (reason_code, detail, host), (count, port) in counts.items():
            caller = Caller(uuid.uuid4().hex, "", "", host, port)
            self._tell(TurnedAway("CONNECTION", reason_code, caller, detail=detail, count=count))
